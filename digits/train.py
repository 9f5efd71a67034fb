"""Which questions about a handwritten digit should share a network?

Measures inter-task affinities between nine tasks on scikit-learn's digits, trains one joint network
and one network per task, selects groups by both, trains the groups, and writes a report:

    python -m digits.train --output_dir=runs/digits

The same command resumes a run that was stopped. An epoch has 20 steps.
"""

import os

# TensorFlow's notices about the processor would hide what the run has to say.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

from absl import app, flags

from digits import names
from tag_keras.study import flags as study_flags
from tag_keras.study.command import command

FLAGS = flags.FLAGS
STEPS_PER_EPOCH = 20


def define_flags() -> None:
    # This process trains all networks, unless told otherwise: they are small.
    study_flags.define_training_flags(
        names.TASKS, batch_size=25, epochs=20, learning_rate=1e-3, every=6, processes=0
    )
    # So that --help shows them.
    flags.adopt_module_key_flags(study_flags)
    flags.DEFINE_enum(
        "method",
        "tag",
        ["tag", "mtl", *names.RIVALS, "all"],
        "What to train: groups by TAG (tag); one network for all tasks, by a plain joint training "
        "(mtl) or by another method, which is compared with it; or all of these.",
    )
    flags.DEFINE_enum(
        "encoder",
        None,
        [*names.ENCODERS],
        "Shared layers: a few convolutions (the default for tag), or the residual blocks that all "
        "other methods have.",
    )
    flags.DEFINE_integer("num_groups", 3, "Largest number of networks.", lower_bound=1)
    flags.DEFINE_integer("num_train", 100, "Number of training images.", lower_bound=1)
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


def run() -> None:
    # Not at the top: it loads TensorFlow, which --help does without.
    from digits import demonstration

    demonstration.run(FLAGS, STEPS_PER_EPOCH)


if __name__ == "__main__":
    define_flags()
    app.run(command("digits.train", run))
