"""Flags of the scripts: their definition. `from_flags` checks them, and makes what they ask for.

Nothing here loads TensorFlow, so that --help comes at once.
"""

import functools
import math
import tempfile
from collections.abc import Sequence
from pathlib import Path

from tag_keras.study.names import METHOD_WORDS, STRATEGIES


def define_training_flags(
    tasks: Sequence[str],
    batch_size: int,
    epochs: int,
    learning_rate: float,
    every: int,
    processes: int,
) -> None:
    """Defines the flags that all scripts have; the arguments are their defaults."""
    from absl import flags

    flags.DEFINE_string("output_dir", None, "Folder for everything that the run writes.")
    # In words, where absl would say that it must not be None.
    message = "give it: --output_dir=FOLDER, for all that the run writes"
    flags.register_validator("output_dir", bool, message)
    flags.DEFINE_list("tasks", list(tasks), "Tasks that the networks are to serve.")
    words = (
        "Networks that serve are trained once with each seed. In the papers' tables, networks to "
        "choose by have the first seed only, which stays the first in an output folder."
    )
    flags.DEFINE_list("seeds", ["0", "1", "2"], words)
    flags.DEFINE_float("learning_rate", learning_rate, "Initial learning rate.", lower_bound=0.0)
    flags.register_validator("learning_rate", math.isfinite, "it should be a finite number")
    count = functools.partial(flags.DEFINE_integer, lower_bound=1)
    count("batch_size", batch_size, "Examples in a batch.")
    count("epochs", epochs, "Epochs at most; a recipe may stop sooner.")
    words = "Measure affinities at one step in so many. TAG's code: 10 for Taskonomy, 1 for CelebA."
    count("every", every, words)
    words = (
        "Networks to train at once, each in its own process, which takes longer to start than a "
        "small network to train; 0: one after the other in this process."
    )
    flags.DEFINE_integer("processes", processes, words, lower_bound=0)


def define_flags(
    tasks: Sequence[str],
    batch_size: int,
    epochs: int,
    learning_rate: float,
    every: int,
    data_dir: str | None = None,
) -> None:
    """Defines the flags of a script of the papers' tables; the arguments are its defaults."""
    from absl import flags

    define_training_flags(tasks, batch_size, epochs, learning_rate, every, processes=1)
    flags.DEFINE_string("data_dir", data_dir, "Folder of the data set.")
    words = "; ".join(f"{name}: {words}" for name, words in METHOD_WORDS.items())
    flags.DEFINE_enum("method", "tag", [*METHOD_WORDS], f"A line of the papers' tables. {words}.")
    words = "Train what the method still lacks, then report; or only report all methods there are."
    flags.DEFINE_enum("stage", "train", ["train", "report"], words)
    words = (
        "Largest number of networks; several for a table with a column for each (splits). By "
        "default 2 to 4, at most one for each task."
    )
    flags.DEFINE_list("num_groups", [], words)
    flags.DEFINE_list(
        "budget",
        [],
        "For hoa, esa and optimal: largest sums of the costs of networks, in standard network "
        "times (Standley et al. 2020). A whole network costs 1. By default, the numbers of "
        "networks.",
    )
    count = functools.partial(flags.DEFINE_integer, lower_bound=1)
    words = "Epochs of esa's short trainings. By default a fifth of --epochs, as Standley et al."
    count("early_epochs", None, words)
    count("draws", 5, "Random choices for each number of networks.")
    words = (
        "Devices of one network: one device; all GPUs of this machine; the GPUs of several hosts "
        "in TF_CONFIG, which share the output folder; or a TPU."
    )
    flags.DEFINE_enum("strategy", "none", STRATEGIES, words)
    flags.DEFINE_bool("mixed_precision", False, "Compute in 16 bits, keep the weights in 32.")
    words = 'Train on a Ray cluster, or locally by Ray (pip install ".[cluster]").'
    flags.DEFINE_bool("cluster", False, words)
    words = "Give the figures of the released code, with its mistakes, instead of the right ones."
    flags.DEFINE_bool("reproduce_original", False, words)


def check_folder(folder: Path) -> None:
    """Checks that a folder can be made or written to, without making it."""
    there = next(path for path in (folder, *folder.parents) if path.exists())
    reason = "is no folder"
    if there.is_dir():
        try:
            # Rights do not tell, for instance of /proc or of a full disc.
            with tempfile.TemporaryFile(dir=there):
                return
        except OSError as error:
            reason = f"is not to be written to ({error.strerror})"
    raise ValueError(
        f"--output_dir should be a folder to write to. Received: {folder}, where {there} {reason}."
    )


def output_folder() -> Path:
    """The folder of --output_dir; shells leave a ~ in it to the program."""
    from absl.flags import FLAGS

    return Path(FLAGS.output_dir).expanduser()
