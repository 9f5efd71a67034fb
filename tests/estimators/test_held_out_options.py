"""Held-out data as an option: saved, compared and told from others without the data."""

import json
import pickle
import re

import keras
import numpy as np
import pytest
import tensorflow as tf
from held_out_cases import dataset_of, make_data, make_model

import tag_keras
from tag_keras import LookaheadAffinity


@pytest.mark.slow
def test_a_saved_model_measures_no_more_before_it_is_given_data(tmp_path):
    x, y = make_data(8)
    model = make_model(LookaheadAffinity(2, on=make_data(8, seed=1)))
    model.fit(x, y, verbose=0)
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    loaded.run_eagerly = True
    np.testing.assert_array_equal(loaded.get_affinity().mean, model.get_affinity().mean)
    np.testing.assert_allclose(loaded.predict(x, verbose=0)["a"], model.predict(x, verbose=0)["a"])
    assert loaded.evaluate(x, y, verbose=0) == pytest.approx(model.evaluate(x, y, verbose=0))
    assert loaded._affinity_options == LookaheadAffinity(2, on="held-out data")
    message = "A saved model does not hold the held-out data that it measured affinities on. Give "
    with pytest.raises(ValueError, match=message):
        loaded.fit(x, y, verbose=0)
    loaded.compile("sgd", "mse", affinity=LookaheadAffinity(on=(x, y)), run_eagerly=True)
    loaded.fit(x, y, verbose=0)
    assert (loaded.get_affinity().count == 1).all()


def test_options_are_written_copied_and_compared_without_the_data():
    data = make_data()
    options = LookaheadAffinity(3, on=data)
    written = json.loads(json.dumps(options.get_config()))
    wanted = {"every": 3, "overhead": 0.1, "update": "optimizer", "baseline": False}
    assert written == wanted | {"on": "held-out data"}
    assert LookaheadAffinity(3).get_config()["on"] is None
    assert LookaheadAffinity.from_config(written) == LookaheadAffinity(3, on="held-out data")
    assert LookaheadAffinity.from_config({"every": 3}) == LookaheadAffinity(3)
    assert repr(options) == (
        "LookaheadAffinity(every=3, overhead=0.1, update='optimizer', baseline=False)"
    )

    copy = pickle.loads(pickle.dumps(options))
    np.testing.assert_array_equal(copy.on[1]["a"], data[1]["a"])
    # The same data are those that are the same object.
    assert options == LookaheadAffinity(3, on=data) != LookaheadAffinity(3, on=make_data())
    assert len({options, LookaheadAffinity(3, on=data), copy, LookaheadAffinity(3)}) == 3
    assert options != LookaheadAffinity(4, on=data)
    assert options != tag_keras.FirstOrderAffinity(3)


def test_settings_tell_arrays_from_others():
    x, y = make_data()

    def settings(*on):
        return LookaheadAffinity(3, on=on).settings()

    known = settings(x, y)
    assert json.loads(json.dumps(known)) == known
    assert re.fullmatch(r"held-out data, 4 arrays, CRC-32 [0-9a-f]{8}", known.pop("on"))
    assert known == {"every": 3, "update": "optimizer", "baseline": False}
    changed = x.copy()
    changed[-1, -1] += 1
    others = [
        (changed, y),
        (x[:, ::-1], y),
        (x.reshape(5, 48), y),
        ([x], y),
        (x.view("int32"), y),
        (x, {**y, "a": y["b"], "b": y["a"]}),
        (x, {"b": y["b"], "a": y["a"]}),
        (x, y["a"]),
        (x, y, {"a": np.ones(48)}),
        (x, y, np.ones(48)),
    ]
    found = {settings(*one)["on"] for one in [(x, y), *others]}
    assert len(found) == 1 + len(others)
    # The same data in other words: what trains alike.
    for one in [
        [x.astype("float64"), {task: label.tolist() for task, label in y.items()}],
        (np.asfortranarray(x), dict(reversed(y.items())), None),
        (tf.constant(x), y),
    ]:
        assert settings(*one)["on"] == settings(x, y)["on"]


def test_settings_do_not_look_into_what_would_have_to_be_run():
    def never():
        raise AssertionError

    for on in (never, dataset_of(*make_data()).batch(4), "held-out data"):
        assert LookaheadAffinity(on=on).settings()["on"] == "held-out data"
    assert LookaheadAffinity().settings()["on"] is None
    assert tag_keras.CosineAffinity(3).settings() == {"every": 3, "kernels_only": True}
