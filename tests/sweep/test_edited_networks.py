"""`load_network` on .keras files that were edited at random, by seed.

It gives one clear error, a ValueError that names the file, or a model with the weights of the file;
it never raises another error, and never runs code out of the file.
"""

import builtins
import json
import random
import sys
import zipfile

import keras
import numpy as np
import pytest
from random_edits import VALUES, edit_bytes, edit_json

import tag_keras
from tag_keras.sweep.network import delete_damaged, load_network

# The few are of all kinds; so are the many.
SEEDS = [range(100), pytest.param(range(100, 1000), marks=pytest.mark.slow)]


@pytest.fixture(scope="module")
def network():
    """A model that trains, with an estimator, an optimizer and all that is saved with them."""
    keras.utils.set_random_seed(0)
    x = keras.Input((3,))
    shared = keras.layers.Dense(2, use_bias=False, name="shared")(x)
    outputs = {task: keras.layers.Dense(1, use_bias=task == "a")(shared) for task in ("a", "b")}
    model = tag_keras.MultiTaskModel.from_functional(keras.Model(x, outputs))
    # With a slot for each weight: making variables is what takes longest.
    optimizer = keras.optimizers.SGD(momentum=0.9)
    affinity = tag_keras.LookaheadAffinity(every=2)
    model.compile(optimizer, "mse", affinity=affinity, run_eagerly=True)
    return model


@pytest.fixture
def code(tmp_path, monkeypatch):
    """Values that would run code: of a module beside the file, or of bytes in it."""
    (tmp_path / "canary.py").write_text(
        "import builtins\nbuiltins.has_sung = True\ndef sing(*_, **__):\n    return None\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    # Not as `raising=False` of monkeypatch: the attribute is set by others, too.
    builtins.has_sung = False
    sing = lambda values: setattr(__import__("builtins"), "has_sung", True) or values  # noqa: E731
    function = keras.saving.serialize_keras_object(sing)
    layer = keras.saving.serialize_keras_object(keras.layers.Lambda(sing))
    module = {"module": "canary", "config": {}, "registered_name": None}
    yield [
        "canary",
        function,
        layer,
        {**module, "class_name": "sing"},
        {**module, "class_name": "function", "config": "sing"},
        {"module": "os", "class_name": "system", "config": "exit 1", "registered_name": "system"},
        {"class_name": "TorchModuleWrapper", "config": {"module": "gASVCgAAAAAAAACMBnN5c3RlbZQu"}},
    ]
    del builtins.has_sung
    sys.modules.pop("canary", None)


def edit_parts(parts, generator, values):
    """The members of a .keras file, one of them edited, left out or renamed; and which."""
    parts, kind = dict(parts), generator.random()
    # Keras reads nothing in the other member, metadata.json.
    read = [name for name in sorted(parts) if name != "metadata.json"]
    name = generator.choice([*parts, *read * 4])
    if kind < 0.6:
        name = "config.json"
        # The dangerous values as often as all others together.
        edited = edit_json(json.loads(parts[name]), generator, [*VALUES, *values * 4])
        parts[name] = json.dumps(edited).encode()
    elif kind < 0.85:
        parts[name] = edit_bytes(parts[name], generator)
    elif kind < 0.9:
        del parts[name]
    else:
        parts[generator.choice(["../out", "x", "a/b", "assets/x"])] = parts.pop(name)
    return parts, name


def write_edited(path, generator, parts, values):
    """Writes a file with edits; returns the member that they change, "" for bytes of the file.

    Then its checksums, which stand for the bytes as they were written, are those of before.
    """
    of_bytes, edited = generator.random() < 0.3, ""
    if not of_bytes:
        parts, edited = edit_parts(parts, generator, values)
    with zipfile.ZipFile(path, "w") as file:
        for name, part in parts.items():
            file.writestr(name, part)
    if of_bytes:
        path.write_bytes(edit_bytes(path.read_bytes(), generator))
    return edited


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("seeds", SEEDS, ids=["few", "many"])
def test_an_edited_network_loads_or_is_named_and_runs_no_code(seeds, network, code, tmp_path):
    path, loaded = tmp_path / "network.keras", 0
    network.save(path)
    with zipfile.ZipFile(path) as file:
        parts = {name: file.read(name) for name in file.namelist()}
    x = np.ones((2, 3), "float32")
    expected = network(x)
    for seed in seeds:
        edited = write_edited(path, random.Random(seed), parts, code)
        try:
            model = load_network(path)
        except ValueError as error:
            assert str(path) in str(error), seed
            # What was not written so is known to be damage, and made anew.
            assert edited or delete_damaged(path), seed
        else:
            loaded += 1
            if edited != "model.weights.h5":
                # Whatever model the configuration says, it has all weights of the file.
                for found, wanted in zip(model.get_weights(), network.get_weights(), strict=True):
                    np.testing.assert_array_equal(found, wanted, err_msg=str(seed))
            if not edited:
                for task, values in model(x).items():
                    np.testing.assert_array_equal(values, expected[task])
        assert not builtins.has_sung, seed
        assert not (tmp_path.parent / "out").exists(), seed
    assert 0 < loaded < len(seeds)


@pytest.mark.filterwarnings("ignore")
def test_the_canary_sings_where_code_runs(code):
    """Otherwise the test above would find nothing."""
    layer = keras.saving.deserialize_keras_object(code[2], safe_mode=False)
    layer(np.ones((1, 2), "float32"))
    assert builtins.has_sung
    builtins.has_sung = False
    import canary  # noqa: F401

    assert builtins.has_sung
