"""What is served, as a file: it comes back as it was, and a damaged one is named."""

import dataclasses
import json

import pytest
from guard_cases import GROUPING, make_rows

import tag_keras


def test_save_and_load(tmp_path):
    for seeds in ((0, 1, 2), (0,)):
        serving = tag_keras.guard_groups(GROUPING, make_rows(seeds=seeds))
        serving.save(tmp_path / "served.json")
        assert tag_keras.Serving.load(tmp_path / "served.json") == serving


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("{", "is not a JSON file .* Delete it"),
        ("[]", "should hold a JSON object"),
        ({"seeds": None}, "`seeds` should be at least one whole number"),
        ({"seeds": []}, "`seeds` should be at least one whole number"),
        ({"author": 1}, "unexpected keyword argument 'author'"),
        ({"grouping": []}, r"`grouping` should hold objects. Received: grouping=\[\]"),
        ({"grouping": {}}, "missing 6 required positional arguments"),
        ({"moves": {}}, r"`moves` should be a list. Received: moves={}"),
        ({"moves": [1]}, "`moves` should hold objects. Received: moves=1"),
        ({"networks": [["group_0", 1]]}, "a name and a seed for each of the 2 groups"),
        ({"networks": [["group_0", 1], ["single_c", "0"]]}, "a name and a seed for each"),
        ({"total": "1"}, "`total` should be a finite number. Received: total='1'"),
        ({"total_joint": "1"}, "`total_joint` should be a finite number or None"),
        ({"total_single": "1"}, "`total_single` should be a finite number or None"),
        ({"split": 1}, "`split` should be a name"),
        ({"beyond_noise": 1}, "`beyond_noise` should be a bool"),
    ],
)
def test_a_damaged_file_is_named_with_a_remedy(tmp_path, change, message):
    path = tmp_path / "served.json"
    tag_keras.guard_groups(GROUPING, make_rows()).save(path)
    if isinstance(change, dict):
        path.write_text(json.dumps({**json.loads(path.read_text()), **change}))
        message += ".* Delete it and run the step that wrote it again"
    else:
        path.write_text(change)
    with pytest.raises(ValueError, match=f"served.json .*{message}"):
        tag_keras.Serving.load(path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"task": 1}, "`task` should be a name"),
        ({"noise": float("nan")}, "`noise` should be a finite number or None"),
        ({"mean_after": None}, "`mean_after` should be a finite number. Received"),
        ({"reason": "luck"}, '`reason` should be "beyond the noise", "the guarantee" or'),
    ],
)
def test_a_wrong_move_is_named(change, message):
    serving = tag_keras.guard_groups(GROUPING, make_rows())
    with pytest.raises(ValueError, match=message):
        dataclasses.replace(serving.moves[0], **change)
    with pytest.raises(ValueError, match="`moves` should be of different tasks"):
        dataclasses.replace(serving, moves=serving.moves * 2)
