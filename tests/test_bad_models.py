import functools

import keras
import numpy as np
import pytest
import tensorflow as tf
from small_models import TASKS, make_data, make_model

import tag_keras
from tag_keras.estimators.base import AffinityEstimator

layers = keras.layers


def fit(model):
    model.fit(*make_data(), epochs=1, batch_size=16, verbose=0)


def compile_with(**kwargs):
    return lambda: make_model().compile("sgd", **{"loss": "mse", **kwargs})


def fit_with_labels(labels):
    def run():
        model = make_model()
        model.compile("sgd", "mse", affinity=tag_keras.LookaheadAffinity())
        x, y = make_data()
        model.fit(x, {task: y[task] for task in labels} if labels else y["a"], verbose=0)

    return run


def fit_frozen():
    model = make_model()
    model.encoder.trainable = False
    model.compile("sgd", "mse", affinity=tag_keras.LookaheadAffinity())
    fit(model)


def encoder_of_a_list():
    inputs = keras.Input((5,))
    encoder = keras.Model(inputs, [layers.Dense(3)(inputs), layers.Dense(3)(inputs)])
    tag_keras.MultiTaskModel(encoder, {task: layers.Dense(1) for task in TASKS})


def fit_with_layers(encoder=lambda x: x, head=lambda x: x[:, :1]):
    class Function(layers.Layer):
        def __init__(self, function):
            super().__init__()
            self.function = function

        def call(self, inputs):
            return self.function(inputs)

    def run():
        model = tag_keras.MultiTaskModel(Function(encoder), {t: Function(head) for t in TASKS})
        model.compile("sgd", "mse")
        fit(model)

    return run


def without_batches(method):
    def run():
        model = make_model()
        model.compile("sgd", "mse")
        getattr(model, method)(tf.data.Dataset.from_tensor_slices(make_data()), verbose=0)

    return run


def with_weights_of_another_task(where):
    def run():
        model = make_model()
        model.compile("sgd", "mse")
        x, y = make_data()
        weights = {"A": y["a"], **{task: y[task] for task in ("b", "c", "unused")}}
        if where == "validation_data":
            model.fit(x, y, validation_data=(x, y, weights), verbose=0)
        else:
            getattr(model, where)(x, y, sample_weight=weights, verbose=0)

    return run


def fit_without_features():
    inputs = keras.Input((5,))
    encoder = keras.Model(inputs, {"a": layers.Dense(3)(inputs)})
    model = tag_keras.MultiTaskModel(encoder, {task: layers.Dense(1) for task in TASKS})
    model.compile("sgd", "mse")
    fit(model)


def share(*parts, built):
    """Makes a model whose parts, of `encoder`, `a` and `b`, have one layer in common."""
    common = layers.Dense(3)
    if built:
        common.build((None, 3))

    def part(name):
        return keras.Sequential([common] if name in parts else [layers.Dense(3)])

    model = tag_keras.MultiTaskModel(part("encoder"), {task: part(task) for task in "ab"})
    model(np.zeros((1, 3)))


@pytest.mark.parametrize(
    ("action", "message"),
    [
        *(
            (functools.partial(share, *parts, built=built), "should have no layer in common")
            for parts in (("a", "b"), ("encoder", "b"))
            for built in (False, True)
        ),
        (
            lambda: tag_keras.MultiTaskModel(layers.Dense(1), {}),
            "`heads` should have a layer for at least one task. Received: heads={}",
        ),
        (lambda: tag_keras.MultiTaskModel(layers.Dense(1), [layers.Dense(1)]), "dict of layers"),
        (lambda: tag_keras.MultiTaskModel(layers.Dense(1), {1: layers.Dense(1)}), "list of names"),
        (lambda: make_model().compile("sgd"), "`loss` should be a dict"),
        (compile_with(loss=["mse", "mse", "mse"]), "`loss` should be a dict"),
        (
            compile_with(loss={"a": ["mse", "mae"], "b": "mse", "c": ["mse"]}),
            r"`loss` should have one loss for each task. It has lists for \['a', 'c'\]",
        ),
        (
            compile_with(loss={"a": "mse", "d": "mse"}, metrics={"e": ["mae"]}),
            r"`loss` has the unknown tasks \['d'\]; `loss` lacks the tasks \['b', 'c'\]; "
            r"`metrics` has the unknown tasks \['e'\]",
        ),
        (compile_with(loss_weights=[1.0, 2.0, 1.0]), "`loss_weights` should be a dict"),
        *(
            (
                compile_with(loss_weights={"b": weight}),
                "`loss_weights` should give 'b' a finite number, or a `keras.Variable`. Received: ",
            )
            for weight in (None, "1", float("nan"), True, [1.0])
        ),
        (compile_with(loss_weights={"d": 1.0}), r"`loss_weights` has the unknown tasks \['d'\]"),
        (compile_with(metrics=[keras.metrics.MeanAbsoluteError()]), "`metrics` should be a dict"),
        (compile_with(affinity="lookahead"), "`affinity` should be an estimator"),
        (compile_with(affinity=AffinityEstimator()), "`affinity` should be an estimator"),
        (compile_with(affinity=tag_keras.LookaheadAffinity), "`affinity` should be an estimator"),
        (fit_with_labels(("a", "b")), r"Missing: \['c'\]"),
        (fit_with_labels(None), "Labels should be a dict"),
        (fit_frozen, "no trainable variable"),
        (
            encoder_of_a_list,
            r"^The encoder should give one tensor .* \['b', 'a', 'c'\]. Received: a list of 2\.$",
        ),
        (
            fit_with_layers(encoder=lambda x: [x, x]),
            "should give one tensor .* Received: a list of 2",
        ),
        (
            fit_with_layers(encoder=lambda x: None),
            "encoder should give one tensor .* Received: None; does its `call` lack a `return`",
        ),
        (
            fit_with_layers(encoder=lambda x: {"a": x, "b": None, "c": x}),
            r"features for every task. Missing: \['b'\]",
        ),
        *(
            (
                fit_with_layers(head=head),
                f"The head 'b' should give one tensor. Received: {received}",
            )
            for head, received in (
                (lambda x: [x[:, :1]], "a list of 1"),
                (lambda x: {"logit": x[:, :1]}, "a dict of 1"),
                (lambda x: None, "None; does its `call` lack a `return`"),
            )
        ),
        *(
            (without_batches(method), r"`x` should be a dataset of batches.*add `\.batch\(32\)`")
            for method in ("fit", "evaluate")
        ),
        *(
            (
                with_weights_of_another_task(where),
                rf"^`{where}`: `sample_weight` .{{,150}}Unknown: \['A'\]\. Missing: \['a'\]\.$",
            )
            for where in ("fit", "evaluate", "validation_data")
        ),
        (fit_without_features, r"features for every task. Missing: \['b', 'c'\]"),
        (lambda: make_model().get_affinity(), "No affinities have been measured"),
    ],
)
def test_bad_input(action, message):
    with pytest.raises(ValueError, match=message):
        action()
