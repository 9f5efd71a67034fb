"""Which variables of a network for some tasks are which of the network for all tasks."""

from collections.abc import Iterator, Mapping
from typing import Any

import keras
import tensorflow as tf

from tag_keras.backend.optimizers import slots_by_variable
from tag_keras.model import MultiTaskModel
from tag_keras.sweep.descriptions import describe
from tag_keras.sweep.fingerprint import of_part
from tag_keras.sweep.stack.functional import matched_layers
from tag_keras.sweep.stack.refusals import NotStackedError
from tag_keras.utils.differences import differences

Pairs = list[tuple[keras.Variable, keras.Variable]]


def match(whole: MultiTaskModel, part: MultiTaskModel) -> Pairs:
    """Pairs of variables: of the model for all tasks, and of a model for some of these.

    Raises:
        NotStackedError: If the encoder or a head has another configuration than that in `whole`, or
            if a task has another loss, metric or optimizer.
    """
    if isinstance(getattr(part.encoder, "output", None), Mapping):
        layers = matched_layers(whole.encoder, part.encoder, part.tasks)
    else:
        _compare("the encoder", of_part(whole.encoder), of_part(part.encoder), part)
        layers = [(whole.encoder, part.encoder)]
    for task in part.tasks:
        one, other = whole.heads[task], part.heads[task]
        _compare(f"the head {task!r}", of_part(one), of_part(other), part)
        layers.append((one, other))
    pairs = [
        pair for one, other in layers for pair in zip(one.variables, other.variables, strict=True)
    ]
    matched = {id(other) for _, other in pairs}
    if any(id(one) not in matched for one in (*part.encoder.variables, *part.trainable_variables)):
        raise NotStackedError("the encoder has outputs that no task uses")
    _compare("the optimizer", _optimizer_of(whole), _optimizer_of(part), part)
    for task in part.tasks:
        _compare(f"the training of {task!r}", _task_of(whole, task), _task_of(part, task), part)
    _check_probes(whole, part)
    return pairs


def _check_probes(whole: MultiTaskModel, part: MultiTaskModel) -> None:
    """Checks that both models measure the same affinities, or none."""
    measures = [model.measures_affinity for model in (whole, part)]
    if not any(measures):
        return
    if not all(measures):
        raise NotStackedError("only some of the networks measure affinities")
    if part.tasks != whole.tasks:
        raise NotStackedError("networks that measure affinities have heads in different orders")
    one, other = whole.probe_step().estimator, part.probe_step().estimator
    settings = [{type(each).__name__: each.settings()} for each in (one, other)]
    _compare("the estimator", settings[0], settings[1], part)
    # Arrays are in the settings, by their checksum.
    if (
        isinstance(one.target_data(), tf.data.Dataset)
        and one.target_data() is not other.target_data()
    ):
        raise NotStackedError("each network has a held-out dataset of its own")


def _compare(what: str, one: Any, other: Any, part: MultiTaskModel) -> None:
    if one != other:
        found = "; ".join(differences({"model": one}, {"model": other}))
        raise NotStackedError(f"{what} of the network for {', '.join(part.tasks)} differs: {found}")


def _optimizer_of(model: MultiTaskModel) -> Any:
    described = describe(model.optimizer)
    # A rate without a schedule is a variable, which each network has for itself.
    if isinstance(described, dict) and isinstance(described.get("learning_rate"), float):
        return {**described, "learning_rate": 0.0}
    return described


def _task_of(model: MultiTaskModel, task: str) -> Any:
    given = {"loss": model.loss, **vars(model._metrics_given)}
    return {
        name: describe(value.get(task) if isinstance(value, Mapping) else value)
        for name, value in given.items()
    }


def slots(whole: MultiTaskModel, part: MultiTaskModel, pairs: Pairs) -> Iterator[Any]:
    """Pairs of the optimizers' variables, of the model for all tasks and of one for some."""
    place = {id(one): index for index, one in enumerate(whole.trainable_variables)}
    mine = {id(other): place.get(id(one)) for one, other in pairs}
    known = slots_by_variable(whole.optimizer)
    for (kind, index), variable in slots_by_variable(part.optimizer).items():
        if index is not None:
            index = mine[id(part.trainable_variables[index])]
        yield known[kind, index], variable
