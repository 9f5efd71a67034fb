"""Scopes in which variables have other values, one inside the other."""

import contextlib
from collections.abc import Iterator
from typing import Any

import keras
from keras.src.backend.common.global_state import get_global_attribute, set_global_attribute


class InnerScope(keras.StatelessScope):  # type: ignore[misc]
    """A `keras.StatelessScope` that begins with the values of the scope around it, if there is one.

    Keras' own begins with the values that variables have outside of all scopes. Takes the arguments
    of Keras' own.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        if (outer := get_global_attribute("stateless_scope")) is not None:
            for key, value in outer.state_mapping.items():
                self.state_mapping.setdefault(key, value)


@contextlib.contextmanager
def outside_of_scopes() -> Iterator[None]:
    """Context in which variables have the values that they have outside of all scopes."""
    scope = get_global_attribute("stateless_scope")
    set_global_attribute("stateless_scope", None)
    try:
        yield
    finally:
        set_global_attribute("stateless_scope", scope)
