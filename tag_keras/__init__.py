"""Task Affinity Groupings for Keras: which of my tasks should share a network?

The rooms of the package, in the order of the flow:

- `estimators`: measure, inside `fit`, how tasks help each other; `affinity` holds the result.
- `selection`: select groups of tasks, or networks under a budget. NumPy and SciPy only.
- `decision`: whether groups pay, and how sure that is, by measured losses. NumPy and SciPy only.
- `multitask`, `loss_weighting`, `gradient_methods`, `networks`: train one network. `model` puts
  them together as `MultiTaskModel`, `train_step` has its steps of training.
- `sweep`: train many networks; `results` holds the result, `grouped_model` serves it.
- `comparison`: compare, and choose what is served. `report`: the page that says so.
- `experiment`, `study`: the whole flow, for one problem and for the papers' tables.
- `backend`, `utils`: what all of these use.
"""

import importlib
import json
import os
import sys
from pathlib import Path
from typing import Any

import lazy_loader

__version__ = "0.2.0"

# Names load at first use, so that selecting networks never loads TensorFlow.
_load, _list, __all__ = lazy_loader.attach_stub(__name__, __file__)


def __getattr__(name: str) -> Any:
    if name not in __all__:
        # Without `obj`, from which Python would guess once more as it prints the error.
        raise AttributeError(_unknown(name), name=name)
    value = _load(name)
    _register_classes()
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_list()})


def _unknown(name: str) -> str:
    import difflib

    message = f"module {__name__!r} has no attribute {name!r}"
    near = difflib.get_close_matches(name, __all__, n=1)
    return f"{message}. Did you mean {near[0]!r}?" if near else message


def _register_classes() -> None:
    """Makes the classes of saved models known to Keras, if Keras and TensorFlow are loaded."""
    if {"keras", "tensorflow"} <= set(sys.modules):
        importlib.import_module("tag_keras.saved_classes")


def _check_keras() -> None:
    """Fails under another backend or legacy Keras, without loading Keras to find out."""
    if os.environ.get("TF_USE_LEGACY_KERAS", "").lower() in ("1", "true"):
        raise ImportError(
            "tag_keras works with Keras 3, and TF_USE_LEGACY_KERAS asks for Keras 2. "
            "Unset TF_USE_LEGACY_KERAS before importing it."
        )
    if "keras" in sys.modules:
        keras = sys.modules["keras"]
        if keras.__version__.startswith("2."):
            raise ImportError(
                f"tag_keras works with Keras 3. Found: Keras {keras.__version__}. "
                'Install it with: pip install "keras>=3.10".'
            )
        backend = keras.config.backend()
    else:
        backend = os.environ.get("KERAS_BACKEND") or _configured_backend()
    if backend != "tensorflow":
        raise ImportError(
            f"tag_keras works with the TensorFlow backend of Keras. Found: {backend!r}. Set "
            "KERAS_BACKEND=tensorflow in the environment before importing Keras."
        )


def _configured_backend() -> str:
    home = Path(os.path.expanduser(os.environ.get("KERAS_HOME") or "~/.keras"))
    try:
        config = json.loads((home / "keras.json").read_text(encoding="utf-8"))
        return str(config.get("backend", "tensorflow"))
    except (OSError, ValueError, AttributeError):
        return "tensorflow"


_check_keras()
_register_classes()
