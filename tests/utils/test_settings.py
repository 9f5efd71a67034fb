"""Settings of a run: written once, and compared whenever it goes on."""

import pytest

from tag_keras.utils.files import comparable, keep_settings


def test_the_same_settings_go_on_and_others_are_refused(tmp_path):
    settings = {"tasks": ("a", "b"), "epochs": 3}
    keep_settings(tmp_path, settings)
    # A tuple comes back as a list.
    keep_settings(tmp_path, settings)
    message = r"another run: epochs was 3 and is 4; seed was None and is 1\. Give another output"
    with pytest.raises(ValueError, match=message):
        keep_settings(tmp_path, {**settings, "epochs": 4, "seed": 1})


def test_what_can_be_written_down_and_changes_a_training_is_compared():
    fit = {"epochs": 3, "verbose": 2, "callbacks": [object()], "validation_data": (1, 2)}
    assert comparable({**fit, "steps_per_epoch": None, "shuffle": False}) == {
        "epochs": 3,
        "shuffle": False,
    }
