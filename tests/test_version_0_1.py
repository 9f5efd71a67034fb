"""Files that version 0.1 wrote, when all modules lay in one folder, load to the same values."""

import json
from pathlib import Path

import keras
import numpy as np
import pytest

import tag_keras
from tag_keras.results import load_results, role_of_version_0_1, save_results

FILES = Path(__file__).parent / "fixtures" / "version_0_1"


@pytest.fixture(scope="module")
def expected():
    return json.loads((FILES / "expected.json").read_text())


def test_a_model_predicts_the_same_and_goes_on(expected):
    model = tag_keras.load_network(FILES / "model.keras")
    x = np.random.default_rng(0).normal(size=(8, 4, 4, 1)).astype("float32")
    for task, values in model.predict(x[:3], verbose=0).items():
        np.testing.assert_allclose(values.ravel(), expected["predictions"][task], rtol=1e-6)
    np.testing.assert_array_equal(model.get_affinity().mean, expected["affinity"])
    assert int(model.optimizer.iterations) == expected["iterations"] == 4
    assert isinstance(model.loss_weighting, tag_keras.UncertaintyWeighting)
    assert isinstance(model.gradient_method, tag_keras.PCGrad)
    blocks = [one for one in model.encoder.layers if isinstance(one, tag_keras.ResidualBlock)]
    assert len(blocks) == 1
    assert isinstance(model, keras.Model)


def test_affinities_and_groups(expected):
    affinity = tag_keras.Affinity.load(FILES / "affinity.json")
    np.testing.assert_array_equal(affinity.mean, expected["affinity"])
    grouping = tag_keras.Grouping.load(FILES / "groups.json")
    assert grouping == tag_keras.select_groups(affinity, 1)


def test_results_get_the_fields_that_were_in_the_names(tmp_path):
    rows = load_results(FILES / "results.json")
    found = {row.network: (row.role, row.index, row.early, row.half_size) for row in rows}
    assert found == {
        "joint": ("joint", None, False, False),
        "single_a": ("single", None, False, False),
        "group_0": ("group", 0, False, False),
        "early_half_single_b": ("single", None, True, True),
        "group_0-1": ("group", None, False, False),
        "uw_joint": ("uw", None, False, False),
        "affinity": ("affinity", None, False, False),
    }
    assert [(row.seed, row.loss) for row in rows if row.network == "single_a"] == [(1, 0.7)]
    # Written anew, they say it themselves.
    save_results(tmp_path / "results.json", rows)
    assert load_results(tmp_path / "results.json") == rows
    written = json.loads((tmp_path / "results.json").read_text())
    assert {row["role"] for row in written} == {"joint", "single", "group", "uw", "affinity"}


@pytest.mark.parametrize("name", ["early_bird", "half_life", "joint_venture", "groups", "single"])
def test_other_names_say_nothing_but_the_method(name):
    assert role_of_version_0_1(name) == {"role": name}


def test_a_file_of_an_unknown_kind_is_named(tmp_path):
    rows = json.loads((FILES / "results.json").read_text())
    path = tmp_path / "results.json"
    path.write_text(json.dumps([{**rows[0], "colour": "red"}]))
    with pytest.raises(
        ValueError, match=r"results\.json, row 0 has missing or unknown fields: \['c"
    ):
        load_results(path)
    for field, value in (("role", 1), ("index", "0"), ("early", 0), ("half_size", None)):
        path.write_text(json.dumps([{**rows[0], field: value}]))
        with pytest.raises(ValueError, match=rf"row 0: the field '{field}' has a wrong value"):
            load_results(path)
