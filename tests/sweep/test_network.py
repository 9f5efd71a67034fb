"""Loading saved networks."""

import subprocess
import sys

import keras
import numpy as np
import pytest

import tag_keras


def save(folder):
    encoder = keras.Sequential([keras.Input((3,)), keras.layers.Dense(2)])
    model = tag_keras.MultiTaskModel(encoder, {"a": keras.layers.Dense(1)})
    model.compile("sgd", "mse", loss_weighting=tag_keras.UncertaintyWeighting())
    x = np.ones((4, 3), "float32")
    model.fit(x, {"a": x[:, 0]}, verbose=0)
    model.save(folder / "model.keras")
    return float(model.predict(x, verbose=0)["a"][0, 0])


def test_a_program_that_uses_nothing_else_loads_a_model(tmp_path):
    expected = save(tmp_path)
    # Keras comes last, so that it has not been told of the classes.
    code = (
        "import tag_keras, sys\n"
        "assert 'keras' not in sys.modules\n"
        f"model = tag_keras.load_network({str(tmp_path / 'model.keras')!r})\n"
        "import numpy as np\n"
        "print(float(model.predict(np.ones((4, 3), 'float32'), verbose=0)['a'][0, 0]))"
    )
    process = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert process.returncode == 0, process.stderr
    assert float(process.stdout) == pytest.approx(expected, rel=1e-6)


def test_what_cannot_be_loaded(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"There is no saved model '.*model\.keras'\."):
        tag_keras.load_network(tmp_path / "model.keras")
    (tmp_path / "model.keras").write_bytes(b"PK")
    with pytest.raises(ValueError, match=r"model\.keras cannot be loaded as a model\. Register"):
        tag_keras.load_network(str(tmp_path / "model.keras"))
