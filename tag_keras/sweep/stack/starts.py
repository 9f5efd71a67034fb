"""The weights that a network would begin with from another seed, without building it again."""

import itertools
import random
from collections.abc import Iterator
from typing import Any

import keras
import numpy as np

from tag_keras.backend.layers import layers_in, own_variables
from tag_keras.sweep.stack.matching import Pairs

# Building draws no more seeds than this.
_MOST_DRAWS = 10_000


class Draws:
    """The seeds that initialisers and random layers drew while a model was built.

    `keras.utils.set_random_seed` sets the generator that they draw from. A layer that is built from
    another seed draws as many numbers in the same order, so what each drew follows from the seed.

    `are_whole` is false if more depends on the seed, as if a function of NumPy was called.

    Args:
        model: Model that was just built after `keras.utils.set_random_seed(seed)`.
        seed: The seed.
    """

    def __init__(self, model: keras.Model, seed: int) -> None:
        self._numbers = _numbers_drawn(seed)
        place = {number: index for index, number in enumerate(self._numbers or ())}
        self._found: dict[int, tuple[Any, int]] = {}
        for layer in layers_in(model):
            initializers = [
                one
                for one in vars(layer).values()
                if isinstance(one, keras.initializers.Initializer)
                and type(one).__module__.startswith("keras.")
            ]
            for variable in own_variables(layer):
                value = keras.ops.convert_to_numpy(variable)
                for one in initializers:
                    drawn = getattr(one, "seed", None)
                    if drawn in place and np.array_equal(_tried(one, variable), value):
                        self._found[id(variable)] = one, place[drawn]
                        break
                if _is_seed(variable) and int(value[0]) in place:
                    self._found[id(variable)] = None, place[int(value[0])]
        # A frozen weight that begins at random is part of the description of its network.
        frozen = [one for one in model.non_trainable_variables if not _is_seed(one)]
        self.are_whole = self._numbers is not None and not any(
            id(one) in self._found for one in frozen
        )

    def value(self, variable: keras.Variable, seed: int) -> Any:
        """What a variable begins with, from another seed; `None` if it does not depend on it."""
        if id(variable) not in self._found:
            return None
        initializer, index = self._found[id(variable)]
        number = next(itertools.islice(_draws(seed), index, None))
        if initializer is None:
            return np.array([number, 0], keras.ops.convert_to_numpy(variable).dtype)
        config = {**initializer.get_config(), "seed": number}
        return _values(type(initializer).from_config(config), variable)

    def tell(self, other: keras.Model, pairs: Pairs, seed: int) -> bool:
        """Whether this tells what a model of the same tasks begins with, built from another seed.

        Args:
            other: That model.
            pairs: Pairs of variables, of this model and of `other`.
            seed: That seed.
        """
        if not self.are_whole:
            return False
        for own, one in pairs:
            value = self.value(own, seed)
            value = keras.ops.convert_to_numpy(own) if value is None else value
            if not np.array_equal(value, keras.ops.convert_to_numpy(one)):
                return False
        return True


def _draws(seed: int) -> Iterator[int]:
    """The seeds that Keras draws, in their order, after `keras.utils.set_random_seed(seed)`."""
    generator = random.Random(seed)
    while True:
        yield generator.randint(1, int(1e9))


def _numbers_drawn(seed: int) -> list[int] | None:
    """The seeds drawn since `set_random_seed(seed)`; `None` if other numbers were drawn, too."""
    state = np.random.get_state(legacy=False)["state"]
    fresh = np.random.RandomState(seed).get_state(legacy=False)["state"]
    if state["pos"] != fresh["pos"] or not np.array_equal(state["key"], fresh["key"]):
        return None
    numbers: list[int] = []
    generator, now = random.Random(seed), random.getstate()
    while generator.getstate() != now:
        if len(numbers) == _MOST_DRAWS:
            return None
        numbers.append(generator.randint(1, int(1e9)))
    return numbers


def _is_seed(variable: keras.Variable) -> bool:
    return "seed_generator_state" in variable.path


def _tried(initializer: Any, variable: keras.Variable) -> Any:
    """Values of an initialiser that may be the one of another variable; `None` if it refuses."""
    try:
        return _values(initializer, variable)
    except ValueError:
        return None


def _values(initializer: Any, variable: keras.Variable) -> Any:
    return keras.ops.convert_to_numpy(initializer(variable.shape, dtype=variable.dtype))
