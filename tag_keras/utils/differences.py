"""What differs between two runs, in words."""

import json
import textwrap
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

# Stands in a description for what a run cannot know.
NOT_COMPARED = "not compared"
# Parts of a fingerprint that runs may add to: an entry that one of two lacks is no difference.
_OPEN = ("data", "networks")
_SHOWN = 5


def differences(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """Names what differs between the parts that two fingerprints have in common.

    A fingerprint has the parts `"model"`, `"data"`, `"fit"` and `"networks"`, each JSON. What only
    one version of Keras knows of a layer is not compared with another version.
    """
    versions = [one.get("model", {}).get("keras") for one in (before, now)]
    found = [
        text
        for part in before
        if part in now
        for text in _differences(before[part], now[part], (part,), versions[0] == versions[1])
    ]
    # The weights follow from the layers.
    found = [text for text in found if " of weights was " not in text] or found
    more = f"and {len(found) - _SHOWN} more differences"
    return [*found[:_SHOWN], more] if len(found) > _SHOWN else found


def merged(before: Mapping[str, Any], now: Mapping[str, Any]) -> dict[str, Any]:
    """The fingerprint of both runs, without differences between them."""
    together = {**before, **now}
    return together | {part: {**before.get(part, {}), **together[part]} for part in together}


def not_compared(value: Any, path: tuple[str, ...] = ()) -> list[str]:
    """Names of what has parts that are not compared."""
    if value == NOT_COMPARED:
        return [_named(path[:-1])]
    parts = value.items() if isinstance(value, Mapping) else ()
    return [name for key, part in parts for name in not_compared(part, (*path, key))]


def _differences(
    before: Any, now: Any, path: tuple[str, ...], is_same_keras: bool
) -> Iterator[str]:
    if isinstance(before, Mapping) and isinstance(now, Mapping):
        for name in {**before, **now}:
            inner = (*path, name)
            if name in before and name in now:
                yield from _differences(before[name], now[name], inner, is_same_keras)
            elif not _may_lack(inner, is_same_keras):
                texts = [_short(one[name]) if name in one else "absent" for one in (before, now)]
                yield f"{_named(inner)} was {texts[0]} and is {texts[1]}"
    elif path == ("model", "weights", "frozen") and _are_close(before, now):
        return
    elif before != now and path != ("model", "keras"):
        yield f"{_named(path)} was {_short(before)} and is {_short(now)}"


def _are_close(before: Any, now: Any) -> bool:
    """Whether frozen weights agree but for rounding: lists of a size and a sum, for each array."""
    try:
        old, new = np.array(before, "float64"), np.array(now, "float64")
        old, new = old.reshape(-1, 2), new.reshape(-1, 2)
        close = len(old) == len(new) and np.abs(old - new) <= 1e-4 * old[:, :1] + 1e-6
        return bool(np.all(close))
    except (TypeError, ValueError):
        return False  # Of an edited file.


def _may_lack(path: tuple[str, ...], is_same_keras: bool) -> bool:
    """Whether one of two fingerprints may lack what is at a path."""
    # Each version of Python has its own code of a function, which also tells what it reads.
    if path[-1].startswith("code of Python") or path[-1] == "variables":
        return True
    if len(path) == 2 and path[0] in _OPEN:
        return True
    return path[0] == "model" and len(path) > 3 and not is_same_keras


def _named(path: tuple[str, ...]) -> str:
    """`("model", "layers", "dense", "units")` is "units of dense"."""
    names = path[2:] if path[:2] == ("model", "layers") else path[1:]
    return " of ".join(reversed(names or path))


def _short(value: Any) -> str:
    text = value if isinstance(value, str) else json.dumps(value)
    return textwrap.shorten(text, 100, placeholder=" ...")
