"""The rule for the learning rate, against a transcription of the published one with SciPy's t-test.

That is train_taskonomy.py of tstandley/taskgrouping: Trainer.learning_rate_schedule and train.
"""

import copy
import pickle
import types
import warnings

import keras
import numpy as np
import pytest
import scipy.stats
import tensorflow as tf

import tag_keras
from taskonomy import recipe
from taskonomy.recipe import PlateauRule


def published_trace(losses, steps, batch_size, window, max_window, start, smallest):
    """Learning rate after each step until the training stops, epochs of `steps` steps."""
    history, rates = [], []
    last = halvings = 0
    rate = start
    for epoch in range(len(losses) // steps):
        if rate < smallest:
            break
        for step in range(steps):
            history.append(losses[epoch * steps + step])
            length = window // batch_size
            if epoch >= 2 and len(history) - last > length:
                # Python's // rounds down: -5 * 9 // 8 is -6.
                a = sorted(history[-length : -length * 5 // 8])
                b = sorted(history[-length * 3 // 8 :])
                a = a[int(len(a) * 0.05) : int(len(a) * 0.95)]
                b = b[int(len(b) * 0.05) : int(len(b) * 0.95)]
                pairs = min(len(a), len(b))
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore")
                    t, p = scipy.stats.ttest_rel(a[:pairs], b[:pairs], nan_policy="omit")
                if t < 0 or p > 0.99:
                    halvings += 1
                    last = len(history)
                    rate = start * 0.5**halvings
                    window = min(max_window, window * 2)
            rates.append(rate)
    return rates


def trace(rule, losses, steps, start=0.1):
    """Learning rate after each step of a training with these losses, as Keras tells of them."""
    optimizer = keras.optimizers.SGD(start)
    model = types.SimpleNamespace(optimizer=optimizer, steps_per_execution=1, stop_training=False)
    # Two tasks, of which the one loses three times as much as the other.
    model.tasks, seen = ("a", "b"), [0, 0]
    model.task_losses = types.SimpleNamespace(labels_seen=lambda: seen)
    rule.set_model(model)
    rates = []
    rule.on_train_begin()
    for epoch in range(len(losses) // steps):
        rule.on_epoch_begin(epoch)
        own = losses[epoch * steps : (epoch + 1) * steps]
        for step in range(steps):
            seen[:] = [8 * (step + 1), step + 1]
            mean = np.mean(own[: step + 1])
            # The joint loss, which a method may weigh, says nothing.
            logs = {"loss": -mean, "a_loss": 0.25 * mean, "b_loss": 0.75 * mean}
            rule.on_train_batch_end(step, logs)
            rates.append(float(optimizer.learning_rate))
        rule.on_epoch_end(epoch)
        if model.stop_training:
            break
    return rates


def curve(kind, number, seed=0):
    rng = np.random.default_rng(seed)
    noise = 0.05 * rng.normal(size=number)
    times = np.arange(number)
    if kind == "falling":
        return 2 * np.exp(-times / 200) + 0.001 * noise
    if kind == "rising":
        return 1 + times / number + noise
    if kind == "steps":
        return 1 / (1 + times // 90) + noise + 1
    return 1 + noise


@pytest.mark.parametrize("kind", ["falling", "rising", "steps", "flat"])
@pytest.mark.parametrize(("window", "max_window"), [(160, 640), (148, 300)])
def test_the_trace_is_that_of_the_published_rule(kind, window, max_window):
    # 40 or 37 steps in a window; 37 is not divisible by 8.
    losses = curve(kind, 360)
    expected = published_trace(losses, 30, 4, window, max_window, 0.1, 0.001)
    rates = trace(PlateauRule(4, window, max_window, 0.001), losses, 30)
    np.testing.assert_allclose(rates, expected, rtol=1e-6)
    if kind == "falling":
        assert set(expected) == {0.1}
    if kind == "rising":
        # After 60 steps, the end of the second epoch, and whenever there is a new window.
        assert expected.index(0.05) == 60


def test_training_stops_before_an_epoch_with_too_small_a_rate():
    # Rising losses: halved in the steps 60, 69, 78, ...; windows of 8 steps stay as they are.
    losses = curve("rising", 300)
    rates = trace(PlateauRule(1, 8, 8, min_learning_rate=0.02), losses, 30)
    expected = published_trace(losses, 30, 1, 8, 8, 0.1, 0.02)
    np.testing.assert_allclose(rates, expected, rtol=1e-6)
    assert len(rates) < 300
    assert len(rates) % 30 == 0
    assert rates[-1] < 0.02 < rates[-31]


def test_the_t_test_is_scipys():
    rng = np.random.default_rng(0)
    for number in (2, 3, 50, 2000):
        a, b = rng.normal(size=(2, number))
        t, p = recipe.paired_t_test(a, b + 0.1)
        expected = scipy.stats.ttest_rel(a, b + 0.1)
        assert t == pytest.approx(expected.statistic, rel=1e-9)
        assert p == pytest.approx(expected.pvalue, rel=1e-9)
    a[::7] = np.nan
    expected = scipy.stats.ttest_rel(a, b, nan_policy="omit")
    assert recipe.paired_t_test(a, b)[0] == pytest.approx(expected.statistic, rel=1e-9)
    # All differences the same: progress or none, without any doubt.
    assert recipe.paired_t_test([2.0, 3.0], [1.0, 2.0]) == (np.inf, 0.0)
    assert recipe.paired_t_test([1.0, 2.0], [2.0, 3.0]) == (-np.inf, 0.0)
    assert np.isnan(recipe.paired_t_test([1.0, 2.0], [1.0, 2.0])).all()
    assert np.isnan(recipe.paired_t_test([1.0], [2.0])).all()


def test_outliers_have_no_say():
    falling = list(np.linspace(2, 1, 80))
    newer = [value - 0.5 for value in falling]
    assert not recipe.no_progress(falling, newer)
    assert recipe.no_progress(newer, falling)
    # Four of 80 are a twentieth.
    assert not recipe.no_progress(falling, [1000.0] * 4 + newer[4:])


def test_an_epoch_of_many_batches_is_a_fifth_of_them():
    assert recipe.steps_per_epoch(10_000) == 10_000
    assert recipe.steps_per_epoch(10_001) == 2_000
    assert recipe.steps_per_epoch(7) == 7


def test_the_defaults_are_those_of_the_published_code():
    rule = PlateauRule(96)
    assert (rule.window, rule.max_window, rule.min_learning_rate) == (500_000, 2_000_000, 3e-5)
    assert recipe.EPOCHS == 100


def test_it_is_copied_and_pickled_before_and_after_a_training():
    losses = curve("rising", 150)
    rule = PlateauRule(4, 160, 640)
    copies = [copy.deepcopy(rule), pickle.loads(pickle.dumps(rule))]
    expected = trace(rule, losses, 30)
    assert rule.num_halvings == 2
    copies += [copy.deepcopy(rule), pickle.loads(pickle.dumps(rule))]
    for one in copies:
        # It starts anew with every training.
        assert trace(one, losses, 30) == expected
    assert len(rule.losses) == 150


class Drift(keras.layers.Layer):
    """Predictions that grow by one with each step, whatever the model is trained on."""

    def __init__(self):
        super().__init__()
        self.step = self.add_weight(trainable=False, initializer="zeros")

    def call(self, x, training=False):
        if training:
            self.step.assign_add(1.0)
        return 0.0 * x + self.step


def drifting_model(targets, **options):
    """A model that learns nothing, and its data, a batch of each step: what is lost is known."""
    model = tag_keras.MultiTaskModel(
        keras.Sequential([keras.Input((1,)), keras.layers.Dense(1)]),
        {task: Drift() for task in targets},
    )
    model.compile(keras.optimizers.SGD(0.1), "mae", **options)
    steps = len(next(iter(targets.values())))
    x = np.zeros((steps, 1, 1), "float32")
    labels = {task: np.float32(values)[..., None] for task, values in targets.items()}
    return model, tf.data.Dataset.from_tensor_slices((x.repeat(len(labels["a"][0]), 1), labels))


def test_in_fit_with_a_model():
    losses = curve("rising", 120)
    # The predictions are 1, 2, ...: the losses are the differences of the labels from them.
    times = np.arange(1, 121)
    targets = {"a": times + 0.25 * losses, "b": times - 0.75 * losses}
    model, data = drifting_model({task: values[:, None] for task, values in targets.items()})
    rule = PlateauRule(4, 40, 40, 0.03)
    history = model.fit(
        data.repeat(), steps_per_epoch=20, epochs=6, verbose=0, callbacks=[rule], shuffle=False
    )
    expected = published_trace(losses, 20, 4, 40, 40, 0.1, 0.03)
    assert len(expected) == 20 * len(history.epoch) < 120
    assert float(model.optimizer.learning_rate) == pytest.approx(expected[-1])
    # The losses of the steps, from the means over the epoch that Keras logs.
    np.testing.assert_allclose(rule.losses, losses[: len(expected)], rtol=1e-3)


def test_the_loss_of_a_step_is_the_plain_sum_over_the_tasks_also_with_weights_and_missing_labels():
    random = np.random.default_rng(0)
    errors = {task: random.uniform(1, 2, size=(10, 4)) for task in "ab"}
    errors["a"][0] = errors["b"][7] = np.nan
    errors["b"][4, 1:] = np.nan
    model, data = drifting_model(
        {task: values + np.arange(1, 11)[:, None] for task, values in errors.items()},
        loss_weights={"a": 7.0},
        loss_weighting=tag_keras.UncertaintyWeighting(),
    )
    rule = PlateauRule(4)
    history = model.fit(data, epochs=1, verbose=0, callbacks=[rule], shuffle=False).history
    # A task without any label loses nothing.
    counts = {task: np.maximum(np.isfinite(values).sum(1), 1) for task, values in errors.items()}
    expected = sum(np.nansum(errors[task], 1) / counts[task] for task in "ab")
    np.testing.assert_allclose(rule.losses, expected, rtol=1e-5)
    assert history["loss"][0] > expected.mean() + 0.5


def test_errors():
    with pytest.raises(ValueError, match="`batch_size` should be at least 1"):
        PlateauRule(0)
    with pytest.raises(ValueError, match="`window` should have at least 8 batches"):
        PlateauRule(96, 700)
    with pytest.raises(ValueError, match="`min_learning_rate` should be at least 0"):
        PlateauRule(96, min_learning_rate=-1.0)
    with pytest.raises(ValueError, match="`first_epoch` should be at least 0"):
        PlateauRule(96, first_epoch=-1)
    model = keras.Sequential([keras.Input((1,)), keras.layers.Dense(1)])
    x = np.zeros((4, 1), "float32")
    model.compile("sgd", "mse", steps_per_execution=2)
    with pytest.raises(ValueError, match="needs the loss of every step: compile with `steps_per"):
        model.fit(x, x, verbose=0, callbacks=[PlateauRule(96)])
    model.compile(keras.optimizers.SGD(keras.optimizers.schedules.CosineDecay(0.1, 10)), "mse")
    with pytest.raises(ValueError, match="The learning rate should be a number, for the rule to"):
        model.fit(x, x, verbose=0, callbacks=[PlateauRule(96)])
