import pytest
from selective_training import Traced


@pytest.fixture(scope="session")
def traced():
    return Traced()
