"""Describes arrays, functions and objects as JSON that is the same for the same content.

It holds no addresses and no numbers that a process counts up, so that two processes can compare.
"""

import dis
import functools
import hashlib
import json
import math
import re
import sys
import sysconfig
import types
import warnings
from collections.abc import Iterable, Mapping
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from tag_keras.utils.checks import is_number, is_whole
from tag_keras.utils.differences import NOT_COMPARED
from tag_keras.utils.files import short_hash
from tag_keras.utils.text import unused

# Each version of Python has its own code of a function.
_CODE = f"code of Python {sys.version_info.major}.{sys.version_info.minor}"
_FUNCTIONS = (types.FunctionType, types.MethodType, types.BuiltinFunctionType, type, np.ufunc)
# Attributes of a callback that say where it writes to, perhaps with the time in their name.
_PLACES = re.compile("path|dir|file|url|root")
_OWN = ("keras", "tensorflow", "numpy", "tag_keras")
_PLACES_OF_LIBRARIES = tuple(
    sysconfig.get_path(name) for name in ("stdlib", "platstdlib", "purelib", "platlib")
)
_LONGEST = 300
# Classes whose subclasses have attributes of Keras beside those of the user.
_KERAS = (keras.Model, keras.layers.Layer, keras.losses.Loss, keras.callbacks.Callback)


class Names:
    """Names of the layers in a model that do not depend on the models built before.

    Keras puts the class and a number, "dense_3", in place of a name that is not given, and counts
    on from model to model. Here the numbers go by the order of `layers`. Where a configuration
    names a layer, it is "dense": by chance, a layer made earlier may have the same number.
    """

    def __init__(self, layers: Iterable[Any]) -> None:
        layers = list(layers)
        self.of: dict[int, str] = {}
        self.words: dict[str, str] = {}
        for layer in layers:
            plain = _without_number(layer)
            if plain == layer.name:
                # Parts of a layer may be named after it.
                owners = [name for name in self.words if plain.startswith(f"{name}_")]
                owner = max(owners, key=len, default="")
                plain = self.words.get(owner, "") + plain.removeprefix(owner)
            self.of[id(layer)] = unused(plain, self.of.values())
            self.words[layer.name] = plain
        self.layers = {(type(one).__name__, one.name): self.words[one.name] for one in layers}


NO_NAMES = Names([])


def _without_number(layer: Any) -> str:
    """The name, without the number behind the class: "dense" of "dense_3"."""
    base, kind = re.sub(r"_\d+$", "", layer.name), type(layer).__name__
    by_keras = base.replace("_", "").lower().endswith(kind.replace("_", "").lower())
    return base if by_keras else str(layer.name)


def describe(value: Any, names: Names = NO_NAMES) -> Any:
    """Describes any value; `names` are those of the layers that it may name."""
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, str):
        return value if len(value) <= _LONGEST else f"{len(value)} letters {short_hash(value)}"
    if isinstance(value, float | np.floating):
        return _number(float(value))
    if is_whole(value):
        return int(value)
    if isinstance(value, Mapping):
        return {str(key): describe(one, names) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return _of_list([describe(one, names) for one in value])
    if isinstance(value, set | frozenset):
        return sorted(map(repr, value))
    if isinstance(value, tf.data.Dataset):
        size = int(value.cardinality())
        return {"class": "Dataset", "elements": str(value.element_spec), "batches": size}
    if isinstance(value, keras.utils.PyDataset):
        try:
            batches = value.num_batches
        except NotImplementedError:
            batches = None
        return {"class": type(value).__qualname__, "batches": batches}
    if isinstance(value, functools.partial):
        parts = {"function": describe(value.func), "arguments": describe(value.args)}
        return {**parts, **describe(value.keywords)}
    if isinstance(value, _FUNCTIONS):
        return _of_function(value, set())
    if hasattr(value, "__array__"):
        try:
            return describe_array(value)
        except Exception:
            return type(value).__qualname__  # A symbolic tensor has no values.
    return describe_object(value, names)


def _number(value: float) -> Any:
    if not math.isfinite(value):
        return str(value)
    # Keras holds a learning rate of 0.1 as 0.10000000149011612.
    single = np.float32(value)
    return float(str(single)) if float(single) == value else value


def _of_list(values: list[Any]) -> Any:
    text = json.dumps(values)
    return values if len(text) <= _LONGEST else f"{len(values)} values {short_hash(text)}"


def describe_array(value: Any) -> str:
    """Type, shape, and a hash of the content."""
    array = np.asarray(value)
    if array.dtype.hasobject:
        # The buffer holds addresses.
        content: Any = repr(array.tolist()).encode()
    else:
        content = np.ascontiguousarray(array).reshape(-1).view(np.uint8)
    return f"{array.dtype} {array.shape} {hashlib.blake2b(content, digest_size=8).hexdigest()}"


def describe_object(value: Any, names: Names = NO_NAMES) -> dict[str, Any]:
    """Class and configuration, or the public attributes; and the code of a class of the user."""
    kind = type(value)
    is_own = not _is_of_library(kind)
    config = config_of(value)
    attributes = vars(value) if hasattr(value, "__dict__") else {}
    described: dict[str, Any] = {"class": kind.__qualname__}
    if config is None or is_own:
        described |= {
            name: describe(one)
            for name, one in attributes.items()
            if _is_plain(one) and not (name.startswith("_") or _PLACES.search(name))
        }
        for base in _KERAS:
            if isinstance(value, base):
                described = {
                    name: described[name] for name in described if name not in _set_by(base)
                }
    for name, one in attributes.items():
        # Keras puts a function of its own in place of the method `build`.
        if isinstance(one, types.FunctionType) and not (name[0] == "_" or hasattr(kind, name)):
            (config or {}).pop(name, None)
            described[name] = describe(one)
    described |= {name: plain(one, names) for name, one in (config or {}).items()}
    if is_own:
        described[_CODE] = _code_of_class(kind, set())
        if config is None and hasattr(value, "get_config"):
            described["configuration"] = NOT_COMPARED
    return {name: one for name, one in described.items() if name != "name" and one is not None}


@functools.cache
def _set_by(base: Any) -> frozenset[str]:
    """Attributes that Keras itself sets; another version may set others."""
    return frozenset(vars(base()))


def config_of(value: Any) -> dict[str, Any] | None:
    """The configuration of an object of Keras, if it has one."""
    if isinstance(value, type) or not hasattr(value, "get_config"):
        return None
    with warnings.catch_warnings():
        # Keras warns of lambdas.
        warnings.simplefilter("ignore")
        try:
            return dict(value.get_config())
        except Exception:
            return None  # Of any type: it is the user's.


def plain(config: Any, names: Names) -> Any:
    """A configuration of Keras in few words; a layer that has a name of its own is that name."""
    if isinstance(config, Mapping) and "class_name" in config and "config" in config:
        kind, inner = config["class_name"], config["config"]
        if kind == "__keras_tensor__":
            return plain(inner["keras_history"], names)
        if kind == "__lambda__":
            return "lambda"
        if not isinstance(inner, Mapping):
            return plain(inner, names)
        if (kind, inner.get("name")) in names.layers:
            return names.layers[kind, inner["name"]]
        if kind.endswith("DTypePolicy"):
            return inner.get("name")
        parts = {name: plain(one, names) for name, one in inner.items() if name != "name"}
        parts = {name: one for name, one in parts.items() if one is not None}
        return {"class": kind, **parts} if parts else kind
    if isinstance(config, Mapping):
        return {str(name): plain(one, names) for name, one in config.items()}
    if isinstance(config, list | tuple):
        return _of_list([plain(one, names) for one in config])
    if isinstance(config, str):
        config = names.words.get(config, config)
    return describe(config)


def _is_plain(value: Any) -> bool:
    if isinstance(value, Mapping):
        return all(map(_is_plain, value.values()))
    if isinstance(value, list | tuple):
        return all(map(_is_plain, value))
    is_constant = value is None or isinstance(value, bool | str | float) or is_number(value)
    return is_constant or isinstance(value, np.ndarray | types.FunctionType)


def _of_function(function: Any, seen: set[Any]) -> Any:
    name = getattr(function, "__qualname__", None) or getattr(function, "__name__", "")
    if _is_of_library(function):
        return name
    if isinstance(function, type):
        return {"class": name, _CODE: _code_of_class(function, seen)}
    function = getattr(function, "__func__", function)
    if not isinstance(function, types.FunctionType):
        return name
    read: dict[str, Any] = {}
    described = {"function": name, _CODE: _code_of_function(function, seen, read)}
    return described | ({"variables": read} if read else {})


def _code_of_class(kind: type, seen: set[Any]) -> str:
    if kind in seen:
        return kind.__qualname__
    seen.add(kind)
    members = [vars(one) for one in kind.__mro__ if not _is_of_library(one)]
    parts = []
    for name, member in [pair for one in members for pair in one.items()]:
        member = getattr(member, "__func__", getattr(member, "fget", member))
        if isinstance(member, types.FunctionType):
            read: dict[str, Any] = {}
            parts.append([name, _code_of_function(member, seen, read)])
            parts.append([name, json.dumps(read)])
        elif not name.startswith("__") and _is_plain(member):
            parts.append([name, json.dumps(describe(member))])
    return short_hash(json.dumps(parts))


def _code_of_function(function: types.FunctionType, seen: set[Any], read: dict[str, Any]) -> str:
    """Hash of the code, and of the user's functions and classes that it calls.

    The constants outside of them that they read go to `read`, by name.
    """
    if function in seen:
        return function.__qualname__
    seen.add(function)
    code = function.__code__
    cells = zip(code.co_freevars, function.__closure__ or (), strict=True)
    used = [(name, _content(cell)) for name, cell in cells]
    variables = function.__globals__
    used += [(name, variables.get(name)) for name in _globals_of(code)]
    parts = [_text_of_code(code, function.__doc__), json.dumps(describe(function.__defaults__))]
    parts.append(json.dumps(describe(function.__kwdefaults__)))
    for name, value in used:
        if isinstance(value, types.FunctionType) and not _is_of_library(value):
            parts.append(f"{name} {_code_of_function(value, seen, read)}")
        elif isinstance(value, types.FunctionType | type):
            parts.append(f"{name} {json.dumps(_of_function(value, seen))}")
        elif _is_constant(value):
            parts.append(name)
            read[unused(name, read)] = describe(value)
    return short_hash("\n".join(parts))


def _content(cell: Any) -> Any:
    try:
        return cell.cell_contents
    except ValueError:
        return None  # It is empty.


def _is_constant(value: Any) -> bool:
    """Whether it is a number, a text or arrays; a list or dict of others may be added to."""
    if isinstance(value, tuple):
        return all(map(_is_constant, value))
    if isinstance(value, Mapping | list):
        parts = [*(value.values() if isinstance(value, Mapping) else value)]
        return bool(parts) and all(map(_is_array, parts))
    return isinstance(value, bool | int | float | str | np.ndarray | np.number)


def _is_array(value: Any) -> bool:
    is_nested = isinstance(value, Mapping | list | tuple)
    return isinstance(value, np.ndarray) or (is_nested and bool(value) and _is_constant(value))


def _globals_of(code: types.CodeType) -> list[str]:
    """Names of the global variables that a code reads and does not set."""
    read, written = set(), set()
    for step in dis.get_instructions(code):
        if step.opname == "LOAD_GLOBAL":
            read.add(step.argval)
        elif step.opname in ("STORE_GLOBAL", "DELETE_GLOBAL"):
            written.add(step.argval)
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            read.update(_globals_of(constant))
    return sorted(read - written)


def _text_of_code(code: types.CodeType, text: str | None = None) -> str:
    """What a code does, without its place in a file and the description `text` of its function."""
    constants = []
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            constants.append(_text_of_code(constant))
        elif isinstance(constant, frozenset):
            constants.append(repr(sorted(map(repr, constant))))
        elif text is None or constant != text:
            constants.append(repr(constant))
    return f"{code.co_code.hex()} {code.co_names} {constants}"


def _is_of_library(value: Any) -> bool:
    """Whether a class or function comes with Python or a package, whose version is not compared."""
    module = getattr(value, "__module__", None)
    if module is None or module == "builtins" or module.partition(".")[0] in _OWN:
        return True
    file = getattr(sys.modules.get(module), "__file__", None)
    return file is not None and file.startswith(_PLACES_OF_LIBRARIES)
