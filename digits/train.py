"""Which questions about a handwritten digit should share a network?

Measures inter-task affinities between nine tasks on scikit-learn's digits, selects groups, trains
them beside one joint network and one network per task, and writes a report:

    python -m digits.train --output_dir=runs/digits

A run that was stopped goes on when the same command is given again.
"""

import functools
import os

# TensorFlow's notices about the processor would hide what the run has to say.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import tensorflow as tf
from absl import app, flags

import tag_keras
from digits import data, network
from tag_keras import experiment

FLAGS = flags.FLAGS
STEPS_PER_EPOCH = 20


def define_flags() -> None:
    flags.DEFINE_string("output_dir", None, "Folder for everything that the run writes.")
    flags.DEFINE_list("tasks", list(data.TASKS), "Tasks to group.")
    flags.DEFINE_integer("num_groups", 3, "Number of networks at most.", lower_bound=1)
    flags.DEFINE_list("seeds", ["0", "1", "2"], "Every network is trained once with each seed.")
    flags.DEFINE_integer("num_train", 100, "Number of training images.", lower_bound=1)
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
        "Step of a probe: along the gradient alone, or the one that Adam would make, which is "
        "mostly momentum and takes more probes for the same certainty.",
    )
    flags.DEFINE_enum(
        "singletons",
        "baseline",
        ["baseline", "forbid"],
        "Whether a task may be alone: with a score of 0, or never as in the TAG paper.",
    )
    flags.mark_flag_as_required("output_dir")


def main(argv: list[str]) -> None:
    if len(argv) > 1:
        raise app.UsageError(f"Unknown arguments: {argv[1:]}")
    # It would warn of the many functions that many networks need.
    tf.get_logger().setLevel("ERROR")
    try:
        run()
    except (ValueError, OSError) as error:
        raise SystemExit(f"digits.train: {error}") from error


def run() -> None:
    if unknown := [task for task in FLAGS.tasks if task not in data.TASKS]:
        raise ValueError(f"--tasks: unknown {unknown}. There are: {', '.join(data.TASKS)}.")
    if not all(seed.isdecimal() for seed in FLAGS.seeds):
        raise ValueError(f"--seeds should be whole numbers of at least 0. Received: {FLAGS.seeds}.")
    if not FLAGS.batch_size <= FLAGS.num_train:
        raise ValueError(f"--batch_size should be at most --num_train, {FLAGS.num_train}.")
    build_model = functools.partial(
        network.build_model,
        learning_rate=FLAGS.learning_rate,
        steps=FLAGS.epochs * STEPS_PER_EPOCH,
    )
    splits = data.load(FLAGS.num_train)
    splits["train"] = functools.partial(data.batches, splits["train"], FLAGS.batch_size)
    experiment.run(
        FLAGS.output_dir,
        build_model,
        splits,
        FLAGS.tasks,
        FLAGS.num_groups,
        affinity=tag_keras.LookaheadAffinity(
            FLAGS.every, FLAGS.update, baseline=FLAGS.singletons == "baseline"
        ),
        singletons=FLAGS.singletons,
        seeds=[int(seed) for seed in FLAGS.seeds],
        settings={name: FLAGS[name].value for name in ("num_train", "batch_size", "learning_rate")},
        epochs=FLAGS.epochs,
        steps_per_epoch=STEPS_PER_EPOCH,
        verbose=0,
    )


if __name__ == "__main__":
    define_flags()
    app.run(main)
