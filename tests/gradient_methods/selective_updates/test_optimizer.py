"""Steps on some of the variables, against the optimizer applied to these alone."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from tag_keras.gradient_methods.selective_updates.optimizer import PartialUpdates

SHAPES = [(4, 3), (3,), (3, 2), (2,)]
# The shared variables, and two heads.
PARTS = [0, 0, 1, 2]

OPTIMIZERS = {
    "sgd": lambda: keras.optimizers.SGD(0.1),
    "nesterov": lambda: keras.optimizers.SGD(0.1, momentum=0.9, nesterov=True),
    "global_clipnorm": lambda: keras.optimizers.SGD(0.1, momentum=0.9, global_clipnorm=0.5),
    "clipnorm": lambda: keras.optimizers.Adam(0.01, clipnorm=0.5),
    "amsgrad": lambda: keras.optimizers.Adam(0.01, amsgrad=True),
    "adamw": lambda: keras.optimizers.AdamW(0.01, weight_decay=0.1),
    "schedule": lambda: keras.optimizers.Adam(keras.optimizers.schedules.CosineDecay(0.01, 10)),
    "rmsprop": lambda: keras.optimizers.RMSprop(0.01, momentum=0.5, centered=True),
    "adagrad": lambda: keras.optimizers.Adagrad(0.01),
    "adadelta": lambda: keras.optimizers.Adadelta(0.01),
    "adamax": lambda: keras.optimizers.Adamax(0.01),
    "ftrl": lambda: keras.optimizers.Ftrl(0.01),
    "lion": lambda: keras.optimizers.Lion(0.01),
    "lamb": lambda: keras.optimizers.Lamb(0.01),
    "adafactor": lambda: keras.optimizers.Adafactor(0.01),
    "muon": lambda: keras.optimizers.Muon(0.01),
}


def random_arrays(seed):
    rng = np.random.default_rng(seed)
    return [rng.normal(size=shape).astype("float32") for shape in SHAPES]


def make(optimizer, constraint=None):
    """Variables, and an optimizer built with them, after a step with all."""
    values = enumerate(random_arrays(0))
    variables = [keras.Variable(value, name=f"v{index}") for index, value in values]
    for variable in variables:
        variable.constraint = constraint
    optimizer.build(variables)
    optimizer.apply(random_arrays(1), variables)
    return variables, optimizer


@pytest.mark.parametrize("name", sorted(OPTIMIZERS))
def test_a_step_on_some_equals_the_optimizer_applied_to_these_alone(name):
    variables, optimizer = make(OPTIMIZERS[name]())
    updates = PartialUpdates(optimizer, variables, PARTS)
    values = [tf.convert_to_tensor(one) for one in updates.variables]
    before = [one.numpy() for one in [*variables, *optimizer.variables]]
    gradients = [tf.constant(one) for one in random_arrays(2)]
    chosen = tf.constant([True, False, True])
    # In a graph for one of them, whose tracing takes longer than the step.
    step = tf.function(updates) if name == "schedule" else updates
    results = [one.numpy() for one in step(values, gradients, chosen, [0, 0, 0])]

    # Nothing was assigned.
    for variable, value in zip([*variables, *optimizer.variables], before, strict=True):
        np.testing.assert_array_equal(variable.numpy(), value)

    alone = [index for index, part in enumerate(PARTS) if part in (0, 2)]
    optimizer.apply([gradients[i] for i in alone], [variables[i] for i in alone])
    for variable, value in zip(updates.variables, results, strict=True):
        np.testing.assert_allclose(value, variable.numpy(), rtol=1e-6, atol=1e-7)
    # The head that was not chosen has not moved.
    np.testing.assert_array_equal(results[2], before[2])


def test_a_gradient_of_zero_would_move_what_is_not_chosen():
    variables, optimizer = make(keras.optimizers.Adam(0.01))
    before = variables[2].numpy()
    optimizer.apply([tf.zeros(SHAPES[2])], [variables[2]])
    assert np.abs(variables[2].numpy() - before).min() > 1e-3


def test_values_are_stepped_from_and_not_those_of_the_variables():
    variables, optimizer = make(keras.optimizers.SGD(0.1))
    updates = PartialUpdates(optimizer, variables, PARTS)
    values = [tf.ones_like(one) for one in updates.variables]
    gradients = [tf.fill(shape, 2.0) for shape in SHAPES]
    results = updates(values, gradients, tf.constant([True, True, False]), [0, 0, 0])
    # 1 - 0.1 * 2.
    np.testing.assert_allclose(results[0], np.full(SHAPES[0], 0.8), rtol=1e-6)
    np.testing.assert_array_equal(results[3], np.ones(SHAPES[3]))


def test_more_updates_count_for_adam_and_not_for_the_schedule():
    # Adam from zero moments with the gradient g: m = 0.1 g, v = 0.001 g^2, so that the step is
    # rate * 0.1 / (1 - 0.9^t) / sqrt(0.001 / (1 - 0.999^t)), of which only the first is 1 * rate.
    schedule = keras.optimizers.schedules.PiecewiseConstantDecay([0], [0.1, 0.0])
    optimizer = keras.optimizers.Adam(schedule, epsilon=1e-12)
    variables = [keras.Variable([1.0]), keras.Variable([1.0])]
    optimizer.build(variables)
    updates = PartialUpdates(optimizer, variables, [0, 1])
    values = [tf.convert_to_tensor(one) for one in updates.variables]
    gradients = [tf.constant([3.0])] * 2
    results = updates(values, gradients, tf.constant([True, True]), [tf.constant(4, "int64"), 0])
    step = 0.1 * 0.1 / (1 - 0.9**5) / np.sqrt(0.001 / (1 - 0.999**5))
    np.testing.assert_allclose([results[0], results[1]], [[1 - step], [0.9]], rtol=1e-5)


def test_the_global_norm_is_that_of_the_chosen():
    variables = [keras.Variable([0.0]), keras.Variable([0.0])]
    optimizer = keras.optimizers.SGD(1.0, global_clipnorm=1.0)
    optimizer.build(variables)
    updates = PartialUpdates(optimizer, variables, [0, 1])
    values = [tf.convert_to_tensor(one) for one in updates.variables]
    gradients = [tf.constant([4.0]), tf.constant([3.0])]
    alone = updates(values, gradients, tf.constant([True, False]), [0, 0])
    both = updates(values, gradients, tf.constant([True, True]), [0, 0])
    np.testing.assert_allclose([alone[0], alone[1]], [[-1.0], [0.0]], rtol=1e-6)
    np.testing.assert_allclose([both[0], both[1]], [[-0.8], [-0.6]], rtol=1e-6)


def test_slices_of_an_embedding_and_variables_that_nothing_depends_on():
    variables = [keras.Variable(np.ones((3, 2), "float32")), keras.Variable([1.0])]
    optimizer = keras.optimizers.Adam(0.01)
    optimizer.build(variables)
    updates = PartialUpdates(optimizer, variables, [0, 1])
    values = [tf.convert_to_tensor(one) for one in updates.variables]
    slices = tf.IndexedSlices(tf.ones((2, 2)), tf.constant([1, 1]), tf.constant([3, 2]))
    kept = updates(values, [slices, None], tf.constant([False, True]), [0, 0])
    np.testing.assert_array_equal(kept[0], np.ones((3, 2)))
    new = updates(values, [slices, None], tf.constant([True, True]), [0, 0])
    optimizer.apply([slices], variables[:1])
    np.testing.assert_allclose(new[0], variables[0].numpy(), atol=1e-7)
    np.testing.assert_array_equal(new[1], [1.0])


def test_constraints_hold_for_what_moves():
    variables, optimizer = make(keras.optimizers.SGD(0.1), keras.constraints.NonNeg())
    updates = PartialUpdates(optimizer, variables, PARTS)
    values = [-tf.ones_like(one) for one in updates.variables]
    gradients = [tf.zeros(shape) for shape in SHAPES]
    results = updates(values, gradients, tf.constant([True, False, False]), [0, 0, 0])
    assert results[0].numpy().min() == 0 and results[2].numpy().max() == -1


def test_an_optimizer_with_a_state_of_all_variables_in_common():
    variables, optimizer = make(keras.optimizers.Nadam(0.01))
    updates = PartialUpdates(optimizer, variables, PARTS)
    values = [tf.convert_to_tensor(one) for one in updates.variables]
    message = r"Nadam has a state that all variables have in common, so it cannot update"
    with pytest.raises(ValueError, match=message):
        updates(values, random_arrays(1), tf.constant([True, True, True]), [0, 0, 0])


@pytest.mark.parametrize(
    "options", [{"use_ema": True}, {"gradient_accumulation_steps": 2}], ids=str
)
def test_options_that_do_not_go_with_several_updates(options):
    ((name, value),) = options.items()
    variables, optimizer = make(keras.optimizers.SGD(0.1, **options))
    message = rf"several in one batch, which does not go with {name} .* Received: {name}={value}\."
    with pytest.raises(ValueError, match=message):
        PartialUpdates(optimizer, variables, PARTS)
