"""The demonstration: TAG on the digits beside other methods, as the flags of the script ask."""

import functools
import itertools
from typing import Any

import tensorflow as tf

import tag_keras
from digits import data, methods, network
from tag_keras import experiment
from tag_keras.comparison.method_table import compare_methods, method_of, methods_as_markdown
from tag_keras.study.flags import check_folder, output_folder
from tag_keras.utils.files import comparable, keep_settings

ENCODERS = {"conv": network.conv_encoder, "resnet": methods.small_resnet}


def run(flags: Any, steps_per_epoch: int) -> None:
    """Trains what the flags of `digits.train` ask for.

    Raises:
        ValueError: If a flag is wrong; the message names it.
    """
    # TensorFlow would warn of the many functions that many networks need.
    tf.get_logger().setLevel("ERROR")
    check_flags(flags)
    output_dir = output_folder()
    check_folder(output_dir.absolute())
    seeds = [int(seed) for seed in flags.seeds]
    encoder = flags.encoder or ("conv" if flags.method == "tag" else "resnet")
    splits = data.load(flags.num_train)
    splits["train"] = functools.partial(data.batches, splits["train"], flags.batch_size)
    options = {"learning_rate": flags.learning_rate, "steps": flags.epochs * steps_per_epoch}
    fit = {"epochs": flags.epochs, "steps_per_epoch": steps_per_epoch}
    settings = {name: flags[name].value for name in ("num_train", "batch_size", "learning_rate")}
    only_rivals = flags.method not in ("tag", "all")
    names = methods.RIVALS if flags.method == "all" else ()
    if only_rivals:
        names = ("mtl",) if flags.method == "mtl" else ("mtl", flags.method)
    rivals = {}
    for name in names:
        print(f"Training by the method {name} ...", flush=True)
        folder, tasks = output_dir / name, tuple(flags.tasks)
        keep_settings(folder, {"tasks": tasks, "seeds": seeds, **settings, **comparable(fit)})
        rivals[name] = methods.train_rival(
            name, folder, tasks, seeds, splits, processes=flags.processes, **options, **fit
        )
    if only_rivals:
        rows = list(itertools.chain(*rivals.values()))
        kinds = {name: method_of(name, results) for name, results in rivals.items()}
        print(methods_as_markdown(compare_methods(rows, kinds, baseline="mtl")))
        return
    experiment.run(
        output_dir,
        functools.partial(network.build_model, build_encoder=ENCODERS[encoder], **options),
        splits,
        flags.tasks,
        flags.num_groups,
        affinity=tag_keras.LookaheadAffinity(
            flags.every, flags.update, baseline=flags.singletons == "baseline"
        ),
        singletons=flags.singletons,
        seeds=seeds,
        settings={**settings, "encoder": encoder},
        rivals=rivals,
        processes=flags.processes,
        **fit,
    )


def check_flags(flags: Any) -> None:
    """Checks what absl cannot check.

    Raises:
        ValueError: If a flag is wrong; the message names it.
    """
    if unknown := [task for task in flags.tasks if task not in data.TASKS]:
        raise ValueError(f"--tasks: unknown {unknown}. There are: {', '.join(data.TASKS)}.")
    if len({*flags.tasks}) < len(flags.tasks):
        raise ValueError(f"--tasks should be different tasks. Received: {flags.tasks}.")
    valid = all(seed.isdecimal() and int(seed) < 2**32 for seed in flags.seeds)
    if not flags.seeds or not valid or len({*map(int, flags.seeds)}) < len(flags.seeds):
        raise ValueError(
            f"--seeds should be different whole numbers from 0 to 2**32 - 1. Received: "
            f"{flags.seeds}."
        )
    if not flags.batch_size <= flags.num_train:
        raise ValueError(f"--batch_size should be at most --num_train, {flags.num_train}.")
    if flags.encoder == "conv" and flags.method != "tag":
        raise ValueError(f"--method={flags.method} is made of residual blocks: --encoder=resnet.")
