"""Options of selective updates, and what does not go with them."""

import keras
import pytest
from selective_training import compiled, fit
from small_models import TASKS, make_model

import tag_keras

layers = keras.layers


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"decay": 0}, r"`decay` should be in \(0, 1\]\. Received: decay=0\."),
        ({"decay": 1.5}, r"`decay` should be in .* Received: decay=1\.5\."),
        ({"decay": True}, r"`decay` should be in .* Received: decay=True\."),
        ({"preference": "median"}, r"`preference` should be a finite number, or None"),
        ({"preference": float("nan")}, r"`preference` should be .* Received: preference=nan\."),
        ({"warmup": -1}, r"`warmup` should be an integer from 0 on\. Received: warmup=-1\."),
        ({"warmup": 2.0}, r"`warmup` should be an integer from 0 on\. Received: warmup=2\.0\."),
        ({"regroup_every": 0}, r"`regroup_every` should be at least 1\. Received: .*=0\."),
        ({"regroup_every": 1.5}, r"`regroup_every` should be an integer\. Received: .*=1\.5\."),
        ({"group_norm": 1}, r"`group_norm` should be a bool\. Received: group_norm=1\."),
        ({"measure_last": None}, r"`measure_last` should be a bool\. Received: .*=None\."),
        ({"seed": -1}, r"`seed` should be an integer from 0 on\. Received: seed=-1\."),
        ({"seed": 2**63}, r"`seed` should be below 2 \*\* 63\. Received: seed=9223372036854775808"),
    ],
)
def test_options_that_are_not_what_they_should_be(options, message):
    with pytest.raises(ValueError, match=message):
        tag_keras.SelectiveTaskGroupUpdates(**options)


@pytest.mark.parametrize(
    ("name", "other"),
    [
        ("affinity", tag_keras.LookaheadAffinity()),
        ("loss_weighting", tag_keras.GradNorm("shared")),
        ("loss_weighting", tag_keras.UncertaintyWeighting()),
    ],
)
def test_what_has_no_part_in_the_updates_is_refused(name, other):
    method = tag_keras.SelectiveTaskGroupUpdates()
    message = (
        f"has training steps of its own, in which `{name}` has no part.*{type(other).__name__}"
    )
    with pytest.raises(ValueError, match=message):
        make_model().compile("adam", "mse", gradient_method=method, **{name: other})


def test_nothing_is_shared():
    model = compiled(
        tag_keras.MultiTaskModel(layers.Flatten(), {t: layers.Dense(1) for t in TASKS})
    )
    message = "no trainable variable that several tasks share, so there is nothing that a gradient"
    with pytest.raises(ValueError, match=message):
        fit(model)


@pytest.mark.parametrize(
    "options", [{"use_ema": True}, {"gradient_accumulation_steps": 2}], ids=str
)
def test_optimizers_that_do_not_go_with_several_updates(options):
    model = compiled(make_model(), keras.optimizers.SGD(0.1, **options))
    with pytest.raises(
        ValueError, match=r"which does not go with .* of the optimizer: leave it out"
    ):
        fit(model)


def test_an_optimizer_that_keeps_something_in_common():
    model = compiled(make_model(), "nadam")
    with pytest.raises(ValueError, match="Nadam has a state that all variables have in common"):
        fit(model)


def test_training_without_scikit_learn(monkeypatch):
    model = compiled(make_model())
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ImportError, match="form their groups with scikit-learn"):
        model.make_train_function()
