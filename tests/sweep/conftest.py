import pytest
from sweep_folders import leave_out_fit, pretend

from tag_keras.sweep import job, runners


@pytest.fixture
def trained(monkeypatch):
    """Names of the networks that were trained in this process, which only pretends to."""
    names = []

    def train(folder, one, data, progress=None):
        names.append(one.network.name)
        pretend(folder, one, data)

    monkeypatch.setattr(runners, "train_job", train)
    return names


@pytest.fixture
def untrained(monkeypatch):
    """Leaves out `fit`, which takes most of the time."""
    monkeypatch.setattr(job, "train_network", leave_out_fit)
