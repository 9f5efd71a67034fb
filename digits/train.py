"""Which questions about a handwritten digit should share a network?

Measures inter-task affinities between nine tasks on scikit-learn's digits, trains one joint network
and one network per task, selects groups by both, trains the groups, and writes a report:

    python -m digits.train --output_dir=runs/digits

The same command resumes a run that was stopped.
"""

import functools
import itertools
import os
from pathlib import Path

# TensorFlow's notices about the processor would hide what the run has to say.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import tensorflow as tf
from absl import app, flags

import tag_keras
from digits import data, methods, network
from tag_keras import experiment
from tag_keras.comparison.method_table import compare_methods, method_of, methods_as_markdown
from tag_keras.study.command import command
from tag_keras.study.flags import check_folder, require_output_dir
from tag_keras.utils.files import comparable, keep_settings

FLAGS = flags.FLAGS
ENCODERS = {"conv": network.conv_encoder, "resnet": methods.small_resnet}
STEPS_PER_EPOCH = 20


def define_flags() -> None:
    flags.DEFINE_string("output_dir", None, "Folder for everything that the run writes.")
    flags.DEFINE_enum(
        "method",
        "tag",
        ["tag", "mtl", *methods.RIVALS, "all"],
        "What to train: groups by TAG (tag); one network for all tasks, by a plain joint training "
        "(mtl) or by another method, which is compared with it; or all of these.",
    )
    flags.DEFINE_enum(
        "encoder",
        None,
        [*ENCODERS],
        "Shared layers: a few convolutions (the default for tag), or the residual blocks that all "
        "other methods have.",
    )
    flags.DEFINE_list("tasks", list(data.TASKS), "Tasks to group.")
    flags.DEFINE_integer("num_groups", 3, "Number of networks at most.", lower_bound=1)
    flags.DEFINE_list("seeds", ["0", "1", "2"], "Every network is trained once with each seed.")
    flags.DEFINE_integer("num_train", 100, "Number of training images.", lower_bound=1)
    flags.DEFINE_integer(
        "processes",
        0,
        "Number of networks to train at once, each in a process of its own. By default, this "
        "process trains all: a process takes longer to start than a network to train.",
        lower_bound=0,
    )
    flags.DEFINE_integer(
        "epochs", 20, f"Number of epochs of {STEPS_PER_EPOCH} steps.", lower_bound=1
    )
    flags.DEFINE_integer("batch_size", 25, "Number of images in a batch.", lower_bound=1)
    flags.DEFINE_float("learning_rate", 1e-3, "Learning rate of Adam.", lower_bound=0.0)
    flags.DEFINE_integer("every", 2, "Probe one training step in so many.", lower_bound=1)
    flags.DEFINE_enum(
        "update",
        "sgd",
        ["sgd", "optimizer"],
        "Step of a probe: along the gradient, or the step of Adam, which is mostly momentum and "
        "takes more probes for the same certainty.",
    )
    flags.DEFINE_enum(
        "singletons",
        "measured",
        ["measured", "baseline", "forbid"],
        "Value of a task alone: the result of its own network (measured); 0 (baseline); or none, "
        "because no task may be alone (forbid, as in the TAG paper).",
    )
    require_output_dir()


def run() -> None:
    # TensorFlow would warn of the many functions that many networks need.
    tf.get_logger().setLevel("ERROR")
    check_flags()
    check_folder(Path(FLAGS.output_dir).absolute())
    seeds = [int(seed) for seed in FLAGS.seeds]
    encoder = FLAGS.encoder or ("conv" if FLAGS.method == "tag" else "resnet")
    splits = data.load(FLAGS.num_train)
    splits["train"] = functools.partial(data.batches, splits["train"], FLAGS.batch_size)
    options = {"learning_rate": FLAGS.learning_rate, "steps": FLAGS.epochs * STEPS_PER_EPOCH}
    fit = {"epochs": FLAGS.epochs, "steps_per_epoch": STEPS_PER_EPOCH}
    settings = {name: FLAGS[name].value for name in ("num_train", "batch_size", "learning_rate")}
    only_rivals = FLAGS.method not in ("tag", "all")
    names = methods.RIVALS if FLAGS.method == "all" else ()
    if only_rivals:
        names = ("mtl",) if FLAGS.method == "mtl" else ("mtl", FLAGS.method)
    rivals = {}
    for name in names:
        print(f"Training by the method {name} ...", flush=True)
        folder, tasks = Path(FLAGS.output_dir, name), tuple(FLAGS.tasks)
        keep_settings(folder, {"tasks": tasks, "seeds": seeds, **settings, **comparable(fit)})
        rivals[name] = methods.train_rival(
            name, folder, tasks, seeds, splits, processes=FLAGS.processes, **options, **fit
        )
    if only_rivals:
        rows = list(itertools.chain(*rivals.values()))
        kinds = {name: method_of(name, results) for name, results in rivals.items()}
        print(methods_as_markdown(compare_methods(rows, kinds, baseline="mtl")))
        return
    experiment.run(
        FLAGS.output_dir,
        functools.partial(network.build_model, build_encoder=ENCODERS[encoder], **options),
        splits,
        FLAGS.tasks,
        FLAGS.num_groups,
        affinity=tag_keras.LookaheadAffinity(
            FLAGS.every, FLAGS.update, baseline=FLAGS.singletons == "baseline"
        ),
        singletons=FLAGS.singletons,
        seeds=seeds,
        settings={**settings, "encoder": encoder},
        rivals=rivals,
        processes=FLAGS.processes,
        **fit,
    )


def check_flags() -> None:
    """Checks what absl cannot check.

    Raises:
        ValueError: If a flag is wrong; the message names it.
    """
    if unknown := [task for task in FLAGS.tasks if task not in data.TASKS]:
        raise ValueError(f"--tasks: unknown {unknown}. There are: {', '.join(data.TASKS)}.")
    if not FLAGS.seeds or not all(seed.isdecimal() for seed in FLAGS.seeds):
        raise ValueError(f"--seeds should be whole numbers of at least 0. Received: {FLAGS.seeds}.")
    if not FLAGS.batch_size <= FLAGS.num_train:
        raise ValueError(f"--batch_size should be at most --num_train, {FLAGS.num_train}.")
    if FLAGS.encoder == "conv" and FLAGS.method != "tag":
        raise ValueError(f"--method={FLAGS.method} is made of residual blocks: --encoder=resnet.")


if __name__ == "__main__":
    define_flags()
    app.run(command("digits.train", run))
