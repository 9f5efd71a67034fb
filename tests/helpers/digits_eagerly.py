"""Networks of the digits that train eagerly: of few steps, tracing takes most of the time."""

import keras
import pytest

from digits import data, network, train

_build_model = network.build_model


def patch(monkeypatch, images=32):
    """Lets networks of the digits train eagerly, and gives only this many images of each split."""
    compile_model, load = network.compile_model, data.load

    def compile_eagerly(model, *args, **options):
        compile_model(model, *args, **{**options, "run_eagerly": True})
        model.steps_per_execution = 1

    def load_some(*args, **options):
        return keras.tree.map_structure(lambda array: array[:images], load(*args, **options))

    monkeypatch.setattr(network, "compile_model", compile_eagerly)
    monkeypatch.setattr(data, "load", load_some)


def build_model(tasks, build_encoder=None, **options):
    """A network of few weights, also in a process of the sweep, where nothing is patched."""
    encoder = [keras.Input((8, 8, 1)), keras.layers.Flatten(), keras.layers.Dense(4, "relu")]
    with pytest.MonkeyPatch.context() as patched:
        patch(patched)
        return _build_model(tasks, build_encoder=lambda _: keras.Sequential(encoder), **options)


def run_script(*flags):
    """Runs the digits script with such networks, three steps an epoch, and few images."""
    with pytest.MonkeyPatch.context() as patched:
        patch(patched, images=100)
        patched.setattr(network, "build_model", build_model)
        patched.setattr(train, "STEPS_PER_EPOCH", 3)
        train.define_flags()
        train.FLAGS(["train", *flags])
        train.run()
