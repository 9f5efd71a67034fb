"""Training by selective task group updates: small models, eager or traced once for many tests."""

import keras
import numpy as np
from small_models import in_batches, make_data, make_model

import tag_keras

NEVER = 10**6
GRAPH = {"run_eagerly": False, "jit_compile": False}
# Of the traced model, which is compiled with it.
DECAY = 0.2


def compiled(model, optimizer="adam", groups=None, compiled_with=None, **options):
    """The model, with these groups from the start: the number of its group by task.

    It trains eagerly, because tracing takes longer than a few steps.
    """
    method = tag_keras.SelectiveTaskGroupUpdates(**{"seed": 0, "warmup": NEVER, **options})
    arguments = {"run_eagerly": True, **(compiled_with or {})}
    model.compile(optimizer, "mse", gradient_method=method, **arguments)
    if groups is not None:
        model.gradient_method.assignment.assign(np.array(groups, "float32"))
    return model


def fit(model, batches=6, data=None, batch_size=16, **kwargs):
    """Trains on batches of 16, by default in epochs of three batches."""
    data = in_batches(*(data or make_data(16 * min(batches, 3))), batch_size)
    return model.fit(
        data, shuffle=False, verbose=0, **{"epochs": -(-batches // 3), **kwargs}
    ).history


def falling_rate():
    return keras.optimizers.schedules.InverseTimeDecay(0.05, 1, 0.5)


class Traced:
    """A model of three tasks with Adam whose step is traced once, and which starts anew for a test.

    Groups, seeds and averages are variables, and the method looks at its options outside of the
    graph; only `decay`, `group_norm` and `measure_last` are in the trace.
    """

    def __init__(self, model=None, optimizer=None, data=None, **options):
        optimizer = optimizer or keras.optimizers.Adam(falling_rate())
        self.model = model or make_model(regularizer="l2")
        compiled(self.model, optimizer, compiled_with=GRAPH, **{"decay": DECAY, **options})
        x, y = data or make_data(16)
        self.model(x)
        optimizer.build(self.model.trainable_variables)
        variables = [*self.model.variables, *optimizer.variables]
        self._start = [(variable, variable.numpy()) for variable in variables]
        fit(self.model, 1, (x, y))

    def restart(self, groups=None, seed=0, warmup=NEVER, regroup_every=1):
        """The model as it was before all training, with these options of the method."""
        for variable, value in self._start:
            variable.assign(value)
        method = self.model.gradient_method
        method.warmup, method.regroup_every = warmup, regroup_every
        method.seed_used.assign(np.int64(seed))
        if groups is not None:
            method.assignment.assign(np.array(groups, "float32"))
        return self.model


def state(model):
    """All weights but those of the method, and the optimizer's."""
    method = model.gradient_method
    own = {id(one) for one in method.weights} if method is not None else set()
    weights = [one for one in model.weights if id(one) not in own]
    return [one.numpy() for one in [*weights, *model.optimizer.variables]]


def method_state(model):
    return [one.numpy() for one in model.gradient_method.weights]


def assert_same(values, others, atol=1e-6):
    for value, wanted in zip(values, others, strict=True):
        np.testing.assert_allclose(value, wanted, atol=atol)


def assert_same_weights(model, other):
    for value, wanted in zip(model.trainable_variables, other.trainable_variables, strict=True):
        np.testing.assert_array_equal(value.numpy(), wanted.numpy())
