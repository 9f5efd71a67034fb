"""Random edits of files, by seed: of bytes, and of the values in JSON."""

import copy
import json

# What an editor, a bug or a person with bad intentions may leave in place of a value.
VALUES = [
    *(None, True, False, 0, -1, 1, 3, 0.5, -0.5, 2**63, 10**12, 10**400),
    *(1e308, -1e308, 1e-320, float("nan"), float("inf")),
    *("", "x", "a", "b", "\ud800", "0", "é" * 300, "../a", "float16", "builtins"),
    *([], {}, [[]], [1, 2], ["a"], ["a", "a"], {"a": 1}, {"a": "a"}, [None], [[1, "a"]]),
]


def edit_bytes(data, random):
    """Bytes with one to four of them changed, cut out or put in between."""
    data = bytearray(data)
    for _ in range(random.choice([1, 1, 2, 4])):
        place, kind = random.randrange(len(data)), random.random()
        if kind < 0.5:
            data[place] ^= 1 << random.randrange(8)
        elif kind < 0.7:
            data[place : place + 8] = random.randbytes(8)
        elif kind < 0.8:
            del data[place : place + random.randrange(1, 1 + len(data) // 2)]
        elif kind < 0.9:
            data[place:place] = random.randbytes(random.randrange(1, 20))
        else:
            data[place:place] = random.choice(
                [b"9" * 5000, b"\xef\xbb\xbf", b"[" * 9999, b"\t", b","]
            )
        data = data or bytearray(b"x")
    return bytes(data)


def edit_json(value, random, values=VALUES):
    """JSON in which one or two values are replaced, left out, doubled or changed with others."""
    value = copy.deepcopy(value)
    for _ in range(random.choice([1, 1, 1, 2])):
        places = [place for place in _places(value) if place]
        if not places:
            break
        *path, last = random.choice(places)
        inner, kind = _at(value, path), random.random()
        if kind < 0.1:
            del inner[last]
        elif kind < 0.2 and isinstance(inner, list):
            inner.insert(last, copy.deepcopy(inner[last]))
        elif kind < 0.35:
            inner[last] = copy.deepcopy(_at(value, random.choice(places)))
        elif kind < 0.4 and isinstance(inner, dict):
            inner[random.choice(["x", "a", "\ud800"])] = inner.pop(last)
        else:
            inner[last] = copy.deepcopy(random.choice(values))
    return value


def edit_text(data, random):
    """A JSON file, edited by its bytes or by its values."""
    if random.random() < 0.3:
        return edit_bytes(data, random)
    return json.dumps(edit_json(json.loads(data), random), indent=1).encode()


def _places(value, path=()):
    yield path
    items = value.items() if isinstance(value, dict) else ()
    for key, inner in enumerate(value) if isinstance(value, list) else items:
        yield from _places(inner, (*path, key))


def _at(value, path):
    for key in path:
        value = value[key]
    return value
