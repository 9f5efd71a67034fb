"""What a run is given: functions that build, data, and callbacks, checked before any work."""

import copy
import inspect
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import keras

from tag_keras.backend.epochs import Epochs
from tag_keras.backend.steps import build_for
from tag_keras.utils.labelled_data import check_data

# Copies of these would write to one and the same place.
_WRITERS = (
    keras.callbacks.BackupAndRestore,
    keras.callbacks.CSVLogger,
    keras.callbacks.ModelCheckpoint,
    keras.callbacks.TensorBoard,
)
_FUNCTION = "Give a function of the network: `callbacks=lambda network: [...]`."


def check_build_model(build_model: Any, *keywords: str) -> None:
    """Checks that it can be called with a tuple of tasks and these keywords, without a call."""
    if isinstance(build_model, keras.layers.Layer) or not callable(build_model):
        raise ValueError(
            "`build_model` should be a function that makes a compiled model for a tuple of tasks. "
            f"Received: {type(build_model).__name__}."
        )
    try:
        signature = inspect.signature(build_model)
    except (TypeError, ValueError):  # Not every callable has one.
        return
    try:
        signature.bind((), **dict.fromkeys(keywords))
    except TypeError as error:
        wanted = "".join(f", {keyword}=None" for keyword in keywords)
        raise ValueError(
            f"`build_model` should take these arguments: (tasks{wanted}). Received: a function of "
            f"{signature} ({error})."
        ) from None


def check_model(model: Any, tasks: Sequence[str]) -> None:
    """Checks what `build_model` has made for `tasks`."""
    if not (isinstance(model, keras.Model) and hasattr(model, "tasks")):
        remedy = "Does it lack a `return`?" if model is None else ""
        if isinstance(model, keras.Model):
            remedy = "MultiTaskModel.from_functional makes one of a Functional model."
        raise ValueError(
            f"`build_model` should return a compiled MultiTaskModel. Received for {list(tasks)}: "
            f"{type(model).__name__}. {remedy}".rstrip()
        )
    if not model.compiled:
        raise ValueError(
            "`build_model` should return a model that is compiled. Received: one that is not, for "
            f"the tasks {list(tasks)}. Call its `compile` before the `return`."
        )
    if set(model.tasks) != set(tasks):
        raise ValueError(
            f"`build_model` should give a model for the tasks {list(tasks)}. "
            f"Received: a model for {list(model.tasks)}."
        )


def check_on_arrays(model: Any, data: Any, batch_size: int | None) -> None:
    """Builds a model for the first batch of arrays, as a training begins, and checks its encoder.

    What only a reading would tell, and what fails otherwise, is left to the training.

    Raises:
        ValueError: If the model, as it is built, does not fit the arrays, or lacks shared
            variables.
    """
    if not isinstance(data, tuple | list):
        return
    size = batch_size or 32
    try:
        first = keras.tree.map_structure(lambda one: one if one is None else one[:size], [*data])
        parts = dict(zip(("x", "y", "sample_weight"), first, strict=False))
        build_for(model, next(Epochs(parts, size).batches()))
    except ValueError:
        raise
    except Exception:
        return
    model.check_encoder()


def check_datasets(datasets: Mapping[str, Any], tasks: Sequence[str]) -> None:
    """Checks arrays and datasets, by their names in messages. None is no data."""
    for name, data in datasets.items():
        if isinstance(data, Iterator):
            raise ValueError(
                f"{name}: An iterator would be used up by the first network. Give a function that "
                "returns it."
            )
        if data is not None:
            check_data(name, data, tasks)


def arguments(name: str, data: Any, tasks: Sequence[str]) -> dict[str, Any]:
    """The arguments of `fit` or `evaluate` for data, which a function may return.

    Raises:
        ValueError: If they lack labels of `tasks`, for instance.
    """
    check_datasets({name: data}, tasks)
    if callable(data):
        data = data()
        # It may be an iterator, which the next call returns anew.
        check_data(name, data, tasks)
    arrays = data if isinstance(data, tuple | list) else [data]
    return dict(zip(("x", "y", "sample_weight"), arrays, strict=False))


def splits_of(data: Mapping[str, Any], tasks: Sequence[str]) -> dict[str, dict[str, Any]]:
    """The arguments of `evaluate` for each split, as `arguments` gives them."""
    return {
        split: arguments(f"The split {split!r}", one, tasks)
        for split, one in data.items()
        if split != "train"
    }


def can_shuffle(dataset: Any) -> bool:
    """Whether Keras can shuffle the batches of a dataset, as by default `fit` does where it can."""
    # An endless one has no number.
    is_listed = isinstance(dataset, keras.utils.PyDataset)
    return is_listed and getattr(dataset, "num_batches", None) is not None


def check_callbacks(callbacks: Any) -> None:
    """Checks that each network can get copies of these callbacks, unless they are a function."""
    for callback in listed(callbacks):
        name = type(callback).__name__
        if isinstance(callback, _WRITERS):
            raise ValueError(
                f"`callbacks` has a {name}. Each network has a copy, and all copies would write to "
                f"the same place. {_FUNCTION} Put its name and seed into the path."
            )
        try:
            copy.deepcopy(callback)
        except Exception as error:
            raise ValueError(
                f"`callbacks` has a {name}, which cannot be copied for each network ({error}). "
                f"{_FUNCTION}"
            ) from None


def callbacks_of(callbacks: Any, network: Any) -> Any:
    """The callbacks of a network: those that a function of it returns, or copies."""
    if callable(callbacks):
        return callbacks(network)
    # Callbacks such as EarlyStopping would remember the network before.
    return copy.deepcopy(callbacks)


def validation_of_fit(fit: Mapping[str, Any], validation: Any, tasks: Sequence[str]) -> Any:
    """What `fit` evaluates on: its own argument, or `validation` if a callback monitors that."""
    data = fit.get("validation_data")
    monitors = [str(getattr(one, "monitor", "")) for one in listed(fit.get("callbacks"))]
    is_watched = any(name.startswith("val_") for name in monitors)
    if data is None and is_watched and not fit.get("validation_split"):
        data = validation
    if callable(data):
        data = data()
        check_data("The validation data", data, tasks)
    return data


def listed(callbacks: Any) -> list[Any]:
    """Callbacks in a list; none of those that only a function of a network returns."""
    if callable(callbacks):
        return []
    listed = getattr(callbacks, "callbacks", callbacks)
    return [one for one in keras.tree.flatten(listed) if one is not None]
