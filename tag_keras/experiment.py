"""The whole flow in one call: measure, select, train, compare and report.

Each stage writes its file whole or not at all, and is skipped if its file is there.
"""

import dataclasses
import functools
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from tag_keras.affinity import Affinity
from tag_keras.comparison.comparison import losses_as_text
from tag_keras.comparison.conclusion import progress
from tag_keras.comparison.guard import serve_measured
from tag_keras.comparison.method_table import (
    compare_methods,
    grouping_methods,
    method_of,
    methods_as_markdown,
)
from tag_keras.comparison.serving import Serving, serving_as_text
from tag_keras.decision.common_examples import few_common_examples, share_of_common_examples
from tag_keras.decision.decision import check_probability
from tag_keras.decision.group_losses import estimate_group_losses
from tag_keras.estimators.base import AffinityEstimator, check_estimator
from tag_keras.grouped_model import GroupedModel
from tag_keras.model import MultiTaskModel
from tag_keras.results import JOINT, MEASURES, Row, group_name, load_sweep_results, single_name
from tag_keras.selection.anchoring import Singletons, check_affinity, check_options, selection_rule
from tag_keras.selection.grouping import Grouping
from tag_keras.selection.groups import select_groups
from tag_keras.study.budget import Budget, check_budget, spend
from tag_keras.study.environment import keep_environment
from tag_keras.study.parts import with_parts
from tag_keras.study.study import Study
from tag_keras.sweep.console import is_quiet
from tag_keras.sweep.fingerprint import of_run
from tag_keras.sweep.inputs import check_build_model
from tag_keras.sweep.job import delete_unusable
from tag_keras.sweep.network import Data, Network, load_network, save_network
from tag_keras.sweep.runners import visible_gpus
from tag_keras.utils import files
from tag_keras.utils.checks import check, check_whole
from tag_keras.utils.files import comparable, keep_settings
from tag_keras.utils.tasks import check_task_names

# Groups that one training chooses differ from those of the next: the mean of several says more.
_MEASURING = 3


class BuildMeasuredModel(Protocol):
    """Returns a compiled model for a tuple of tasks; with `affinity`, one that measures."""

    def __call__(
        self, tasks: tuple[str, ...], affinity: AffinityEstimator | None = None
    ) -> MultiTaskModel: ...


def run(
    output_dir: str | os.PathLike[str],
    build_model: BuildMeasuredModel,
    data: Mapping[str, Data],
    tasks: Sequence[str],
    num_groups: int,
    affinity: AffinityEstimator,
    singletons: Singletons = "measured",
    seeds: Sequence[int] = (0, 1, 2),
    budget: Budget | None = None,
    probability: float = 0.8,
    settings: Mapping[str, Any] | None = None,
    rivals: Mapping[str, Sequence[Row]] | None = None,
    processes: int = 0,
    **fit: Any,
) -> GroupedModel:
    """Measures affinities, trains yardsticks, selects groups, trains them, and reports.

    The yardsticks are one joint network and one network per task. They tell the selection what
    tasks gain from sharing. Then `decide_groups` decides, by the losses of all networks that were
    trained, which of them serve: groups only with evidence, else the better yardstick. Every choice
    is made on the split `"validation"`; `"test"` is only reported. The same call resumes a
    run that was stopped, and makes damaged files of networks anew.

    The folder keeps, in settings.json, a fingerprint of the compiled model, the data and the
    callbacks; another one is refused, and the message names what differs. The values that datasets
    and functions give, and weights that train from other than random values, are not compared.

    Args:
        output_dir: Folder for affinity.json, groups.json, results.json, grouped.keras, served.json
            (the networks that grouped.keras consists of, and why), environment.json (date,
            versions, device), report.html, with a budget plan.json and, in networks/, every
            trained network. Until all networks are trained, report.html says what is missing.
        build_model: Returns a compiled model for a tuple of tasks, with the keyword `affinity`. It
            makes all that a training changes anew at each call, which a second call for each
            network checks. Layers that are frozen or adapted may be made once outside.
        data: `"train"`, `"validation"` and `"test"`, each a dataset, `(x, y)`,
            `(x, y, sample_weight)`, or a function that returns one of these. If `"validation"` is
            arrays, networks are evaluated on each fifth of it, too, in the order of the examples,
            so that intervals and probabilities count that other examples would give other gains.
        tasks: Names of the tasks.
        num_groups: Largest number of groups. One network per task may serve whatever it is.
        affinity: Estimator that measures the affinities.
        singletons: Value of a task alone. `"measured"`, for up to 15 tasks: the result of its own
            network, by affinities that `anchor_affinity` has corrected. By the affinities as
            measured, as in `select_groups`: `"baseline"`, 0; or `"forbid"`, no task may be alone,
            as in the TAG paper.
        seeds: Every network is trained once with each seed. Affinities are the mean over the first
            three. With one seed, a yardstick serves: what is noise is not known.
        budget: Number of trainings, of one network with one seed each, besides those that
            measure. By default, the yardsticks and the groups take what they need. Half of what a
            larger budget leaves is for other groups that may be better, of up to 15 tasks, the rest
            for further seeds of the networks that the decision is between; once that is firm,
            nothing more is trained. `"all"` trains every group of up to 12 tasks with each seed.
            The same folder goes on with a larger budget.
        probability: Least probability of a gain for which more networks serve, as in
            `decide_groups`. The networks in a folder can be decided about anew with another one.
        settings: Further settings that tell this run from another in the same folder, such as the
            version of a dataset.
        rivals: Results of other methods, with the same tasks and seeds, for the report to compare:
            rows by name of the method, which is also the name of its network.
        processes: Number of processes that train networks at once; 0, which notebooks need, trains
            in this process. Networks that are made of the same parts are trained in one graph; a
            line says why if others are trained one by one.
        **fit: Arguments of `fit`. Callbacks that monitor a validation loss or metric get
            `data["validation"]` after each epoch, unless there is `validation_data`. Each network
            gets copies of the callbacks, so that those you gave record nothing; or give a function,
            `callbacks=lambda network: [...]`, which returns the callbacks of a network
            (`network.name`, `.tasks`, `.seed`). Without `verbose`, one line shows the progress of
            each stage, and the results follow; 1 or 2 adds Keras' lines for each network, and 0
            shows only what you may have to look after, such as damaged files that are made anew.

    Returns:
        The deployable model: the networks that were decided for, each with the seed of the least
        validation loss over the tasks that it serves.

    Raises:
        ValueError: If there is no seed or one twice, if the budget is below what the yardsticks and
            the groups take, if `affinity` is no estimator, if `data` lacks
            `"train"` or `"validation"` or labels, if `build_model` or `callbacks` cannot be used
            (with `processes`, what only a call of `build_model` shows is a `SweepError`), if there
            are too many tasks for `singletons`, if a pair of tasks was never measured, if the
            folder has a damaged file or belongs to a run with another model, other data, callbacks
            or settings, or if another run is at work in it.
        SweepError: If networks could not be trained; the message lists them.
    """
    # Jinja, which it needs, is an optional dependency.
    from tag_keras.report.report import other_groups, write_report

    folder, tasks, seeds = Path(output_dir), check_task_names(list(tasks)), _checked_seeds(seeds)
    check_estimator(affinity)
    if missing := [split for split in ("train", "validation") if split not in data]:
        raise ValueError(
            '`data` should hold "train" and "validation", which choices are made by, and '
            f'"test", which is reported. Missing: {missing}. Received: {sorted(data)}.'
        )
    check_options(tasks, num_groups, singletons)
    budget = check_budget(budget, tasks, num_groups, len(seeds))
    check_probability(probability)
    given = {"tasks": tasks, "num_groups": num_groups, "singletons": singletons, "seeds": seeds}
    given |= {"affinity": type(affinity).__name__, **affinity.settings(), **comparable(fit)}
    check_build_model(build_model, "affinity")
    estimators = {MEASURES: affinity}
    study = Study(folder, tasks, build_model, data, fit, estimators, seeds, processes=processes)
    # How gains differ between parts of the data tells how far they would on other examples.
    study = dataclasses.replace(study, data=with_parts(data, tasks, "validation"))
    if not processes and not (folder / "affinity.json").exists():
        study.try_out(Network(MEASURES, tasks, role=MEASURES))
    with files.alone(folder, is_quiet(fit)):
        fingerprint = of_run(
            build_model, tasks, seeds[0], data, fit, visible_gpus() if processes else ()
        )
        settings = {**given, **(settings or {})}
        keep_settings(folder, settings, fingerprint)
        environments = keep_environment(folder)
        measured = _measure(study)
        if few := _few_common(data["train"], tasks):
            study.say(few)
        if not (folder / "groups.json").exists():
            check_affinity(measured, singletons)
        yardsticks = [Network(JOINT, tasks, role="joint")]
        yardsticks += [Network(single_name(task), (task,), role="single") for task in tasks]
        rows = _train(study, yardsticks)
        # Those that a budget added would change what the groups were selected by.
        first = [row for row in rows if row.seed in seeds]
        rule = selection_rule(measured, first, singletons)
        grouping = _select(study, num_groups, rows, **rule)
        others = other_groups(grouping=grouping, num_groups=num_groups, **rule)
        if singletons == "measured":
            others["anchored"] = rule["affinity"]
        others |= {"settings": settings, "environments": environments}
        report = functools.partial(write_report, folder / "report.html", measured, grouping)
        if progress(grouping, rows, seeds):
            # For those who look before the end, and in case that it does not come.
            report(rows, **others)
        groups = [
            Network(group_name(index), group, role="group", index=index)
            for index, group in enumerate(grouping.groups)
        ]
        grouped = None
        # Again if networks were damaged: trained anew, they may come out otherwise.
        while grouped is None:
            # Together with the yardsticks, so that a group equal to one of them is not trained
            # again.
            rows = _train(study, [*yardsticks, *groups])
            if budget is not None:
                rows = spend(study, [*yardsticks, *groups], num_groups, budget, probability)
            estimate = estimate_group_losses(rows)
            serving = serve_measured(rows, estimate, num_groups, probability)
            grouped = _put_together(study, serving)
            if grouped is None:
                _train_served(study, serving, rows)
        study.say(losses_as_text(grouping, rows, serving))
        study.say(serving_as_text(serving))
        if rivals:
            methods = grouping_methods(grouping, by_yardsticks=singletons == "measured")
            methods |= {name: method_of(name, results) for name, results in rivals.items()}
            every = [*rows, *(row for results in rivals.values() for row in results)]
            others["methods"] = compare_methods(every, methods, baseline="mtl")
            study.say(methods_as_markdown(others["methods"]))
        report(rows, serving=serving, estimate=estimate, **others)
        study.say(f"Report: {folder / 'report.html'}")
        return grouped


def _few_common(train: Data, tasks: Sequence[str]) -> str:
    """A sentence on tasks that have few examples in common, as far as arrays tell."""
    if not isinstance(train, tuple | list) or not isinstance(train[1], Mapping):
        return ""
    labels = {task: train[1][task] for task in tasks}
    weights = train[2] if len(train) > 2 else None
    return few_common_examples(list(tasks), share_of_common_examples(labels, weights))


def _train(study: Study, networks: Sequence[Network]) -> list[Row]:
    """Trains the networks that are not there yet, and returns all rows in the folder."""
    study.train(networks, study.seeds)
    return load_sweep_results(study.folder)


def _train_served(study: Study, serving: Serving, rows: Sequence[Row]) -> None:
    """Trains the networks that serve and are not there, also those of a budget that is gone."""
    roles = {row.network: (row.role, row.index) for row in rows}
    for (name, seed), group in zip(serving.networks, serving.grouping.groups, strict=True):
        role, index = roles[name]
        study.train([Network(name, group, role=role, index=index)], [seed])


def _checked_seeds(seeds: Sequence[int]) -> tuple[int, ...]:
    is_list = isinstance(seeds, Iterable) and not isinstance(seeds, str)
    check(is_list, "`seeds` should be a list of whole numbers, such as (0, 1, 2)", seeds=seeds)
    checked = tuple(check_whole("seeds", seed) for seed in seeds)
    if not checked or len(set(checked)) < len(checked):
        raise ValueError(f"`seeds` should be different numbers. Received: seeds={list(checked)}.")
    return checked


def _measure(study: Study) -> Affinity:
    path = study.folder / "affinity.json"
    network, seeds = Network(MEASURES, study.tasks, role=MEASURES), study.seeds[:_MEASURING]
    if not path.exists() or study.has_lost_rows(network, seeds):
        study.train([network], seeds, saves=False)
    if not path.exists():
        runs = [study.affinity_of(network, seed) for seed in seeds]
        (Affinity.combine(runs) if len(runs) > 1 else runs[0]).save(path)
    affinity = Affinity.load(path)
    if affinity.tasks != study.tasks:
        raise ValueError(
            f"{path} has the tasks {list(affinity.tasks)}, this run {list(study.tasks)}. Delete "
            "it, and the same call makes it anew."
        )
    return affinity


def _select(study: Study, num_groups: int, rows: Sequence[Row], **rule: Any) -> Grouping:
    path = study.folder / "groups.json"
    if not path.exists():
        select_groups(num_groups=num_groups, **rule).save(path)
    grouping = Grouping.load(path)
    trained = {row.network: row.tasks for row in rows if row.role == "group"}
    wrong = ""
    if grouping.tasks != study.tasks:
        wrong = f"has the tasks {list(grouping.tasks)}, this run {list(study.tasks)}"
    elif len(grouping.groups) > num_groups:
        wrong = f"has {len(grouping.groups)} groups, this run at most {num_groups}"
    for index, group in enumerate(grouping.groups):
        if not wrong and (before := trained.get(group_name(index), group)) != group:
            wrong = f"has the group {list(group)}, and its network was trained on {list(before)}"
    if wrong:
        raise ValueError(
            f"{path} {wrong}. Delete {path.name}, and the same call selects the groups anew."
        )
    study.say(f"Groups: {'; '.join(', '.join(group) for group in grouping.groups)}")
    return grouping


def _put_together(study: Study, serving: Serving) -> GroupedModel | None:
    """Makes grouped.keras, or loads it; None if networks for it have to be trained again."""
    folder = study.folder
    path, record = folder / "grouped.keras", folder / "served.json"
    grouped: GroupedModel
    try:
        served = Serving.load(record) if path.exists() and record.exists() else None
    except ValueError as error:
        # As of a version before, which is nothing to look after.
        study.say(f"{path} is put together anew: {error}")
        served = None
    try:
        # Without its record, it may be of other networks.
        if served is not None and served == serving:
            if served.checksum not in ("", files.checksum(path)):
                raise ValueError(f"it is not the file that {record} is about.")
            grouped = load_network(path)
            return grouped
    except ValueError as error:
        print(f"{path} is put together anew: {error}", flush=True)
    record.unlink(missing_ok=True)
    networks = [
        Network(name, tasks, seed)
        for (name, seed), tasks in zip(serving.networks, serving.grouping.groups, strict=True)
    ]
    if [network for network in networks if delete_unusable(folder, network)]:
        return None
    models = [load_network(folder / "networks" / network.file) for network in networks]
    save_network(GroupedModel(models, serving.grouping), path)
    dataclasses.replace(serving, checksum=files.checksum(path)).save(record)
    grouped = load_network(path)
    return grouped
