"""Taskonomy as a multi-task problem: batches of images, and labels by task."""

import dataclasses
import functools
import sys
from collections.abc import Sequence
from pathlib import Path

import tensorflow as tf

from tag_keras.utils.checks import check, check_choice, check_count
from taskonomy import pipeline
from taskonomy.buildings import SPLITS, Buildings, building_lists
from taskonomy.domains import TASKS, domains_of, task_names
from taskonomy.index import Index, fingerprint, is_outdated, make_index
from taskonomy.index_file import index_path, load_index, made_alone, names_path, save_index
from taskonomy.layouts import Layout, find_layout
from taskonomy.scan import Verify

# How many names are printed; a file beside the index has all of them.
_NAMED = 5


@dataclasses.dataclass(frozen=True)
class Taskonomy:
    """Taskonomy (Zamir et al. 2018, arXiv 1804.08328), as TAG and Standley et al. use it.

    It finds the files in all common layouts of folders. The object holds only options, so it can
    go to another process. Files that are cut off or damaged do not stop a training: samples that
    are incomplete or cannot be read are left out and named. So no image gets the labels of another
    one, as happens in the original. Damage that shows only in training, when a whole file is read,
    makes a black image without labels.

    Args:
        data_dir: Folder of the data, in one of `layouts.LAYOUTS`.
        tasks: Tasks, as letters (`"sdntk"`) or names. Defaults to the five of the papers.
        buildings: `"original"` for the buildings of TAG; `"tiny"`, `"medium"`, `"full"` or
            `"fullplus"` for Taskonomy's subsets; the path of a csv file with the columns id, train,
            val and test; or names by split.
        cache_dir: Folder for the index of samples. Defaults to `.tag_keras` in `data_dir`.
        image_size: Height and width of images and labels, in pixels.
        augment: Whether half of the images of shuffled batches are mirrored, as in the original.
        min_crop: With `augment`, the smallest side of the squares that are cropped, as a fraction
            of the images' side; 1 for no crop, as in the original.
        evaluation_limit: Number of images of each building to evaluate on, the first ones in the
            order of the names; `None` for all.
        verify: `"ends"` to let `prepare` look at the ends of files, which finds those that are cut
            off; `"contents"` to decode whole files, which finds all damage before any training.
        layout: One of `layouts.LAYOUTS`, for a folder with several. Defaults to the layout with the
            most buildings.

    Raises:
        ValueError: If a task does not exist, or if an option is out of range.

    Example:

    ```python
    data = Taskonomy("taskonomy", tasks="sdn", buildings="tiny")
    data.prepare()
    print(data.sizes)
    for images, labels in data.batches("train", 96, shuffle=True):
        print(images.shape, labels["normal"].shape)  # (96, 256, 256, 3), twice
    ```
    """

    data_dir: str | Path
    tasks: tuple[str, ...] = TASKS
    buildings: Buildings = "original"
    cache_dir: str | Path | None = None
    image_size: int = 256
    augment: bool = True
    min_crop: float = 1.0
    evaluation_limit: int | None = 1000
    verify: Verify = "ends"
    layout: str | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "tasks", task_names(self.tasks))
        check_count("image_size", self.image_size)
        if self.evaluation_limit is not None:
            check_count("evaluation_limit", self.evaluation_limit)
        check(0 < self.min_crop <= 1, "`min_crop` should be in (0, 1]", min_crop=self.min_crop)
        check_choice("verify", self.verify, ("ends", "contents"))

    def prepare(self) -> None:
        """Looks for the samples if that was not done before, and prints what there is.

        It looks again if files were added or removed, or if a file that could not be read has been
        repaired.

        Raises:
            FileNotFoundError: If there are no data, or no list of buildings.
            ValueError: If a domain is missing, or if a split has no complete sample.
        """
        layout, path, index = self._find(look_again=True)
        lists = building_lists(self.buildings)
        print(f"{self.data_dir} has folders {layout.pattern}.")
        if layout.others:
            print(f"Not used, because it has no more buildings: {', '.join(layout.others)}.")
        for split, names in lists.items():
            found = len({*names} & {*layout.buildings})
            print(f"{split}: {len(index.samples[split])} images, {found}/{len(names)} buildings.")
        for kind in ("incomplete", "unreadable"):
            problems = [str(problem) for problem in getattr(index, kind)]
            shown = "; ".join(problems[:_NAMED]) + ("; ..." if len(problems) > _NAMED else "")
            print(f"Left out as {kind}: {len(problems)}{shown and f': {shown}'}.")
        if len(index.incomplete + index.unreadable) > _NAMED:
            print(f"All of them: {names_path(path)}.")
        for split, names in lists.items():
            self._check_split(split, names, layout, index)

    @property
    def sizes(self) -> dict[str, int]:
        """Number of images by split."""
        return {split: len(samples) for split, samples in self._find()[-1].samples.items()}

    @property
    def fingerprint(self) -> str:
        """Short hash of the names of the samples, by split.

        It does not depend on the folder, the layout, or the contents of the files.
        """
        layout, _, index = self._find()
        return fingerprint(index, layout)

    def batches(self, split: str, batch_size: int, shuffle: bool = False) -> tf.data.Dataset:
        """Batches of images and labels.

        Args:
            split: `"train"`, `"validation"` or `"test"`.
            batch_size: Number of images in a batch.
            shuffle: Whether to draw the order anew in every pass. Shuffled images are augmented if
                `augment` is set, and a last batch that is smaller is left out.

        Returns:
            Data set of images (B, H, W, 3) in [0, 1], and labels by task: int32 classes (B, H, W)
            with 0 for a missing label, or float32 values (B, H, W, C) with NaN for a missing one.

        Raises:
            ValueError: If there is no such split, no image, or less than one batch to shuffle.
        """
        check(split in SPLITS, f"`split` should be one of {', '.join(SPLITS)}", split=split)
        check_count("batch_size", batch_size)
        index = self._find()[-1]
        number, least = len(index.samples[split]), batch_size if shuffle else 1
        check(
            number >= least,
            f"The split {split!r} of the buildings {self.buildings!r} has {number} images in "
            f"{self.data_dir}, and should have at least {least}",
            batch_size=batch_size,
        )
        domains = domains_of(self.tasks)
        augmented = shuffle and self.augment
        numbers = tf.data.Dataset.range(number)
        if shuffle:
            numbers = numbers.shuffle(number, reshuffle_each_iteration=True)
        seeds = tf.data.Dataset.random(rerandomize_each_iteration=True).batch(2)

        def to_sample(contents: tf.Tensor, seed: tf.Tensor) -> object:
            seed = seed if augmented else None
            return pipeline.decode(
                contents, domains, self.tasks, self.image_size, seed, self.min_crop
            )

        auto = tf.data.AUTOTUNE
        read = pipeline.make_reader(index, split, domains)
        contents = numbers.map(read, num_parallel_calls=auto)
        samples = tf.data.Dataset.zip(contents, seeds).map(to_sample, num_parallel_calls=auto)
        return samples.batch(batch_size, drop_remainder=shuffle).prefetch(auto)

    def _find(self, look_again: bool = False) -> tuple[Layout, Path, Index]:
        """The layout of the data, the file of the index, and the index; makes it if needed."""
        domains = domains_of(self.tasks)
        lists = building_lists(self.buildings)
        layout = find_layout(self.data_dir, domains, self.layout)
        asked = [name for names in lists.values() for name in names]
        if not {*asked} & {*layout.buildings}:
            raise ValueError(
                f"{self.data_dir} has none of the {len(asked)} buildings of {self.buildings!r}, "
                f"such as {', '.join(asked[:_NAMED])}. It has {len(layout.buildings)}, such as "
                f"{', '.join(layout.buildings[:_NAMED])}: choose among the lists, or give names by "
                "split."
            )
        limits = {split: None if split == "train" else self.evaluation_limit for split in SPLITS}
        settings = {"domains": domains, "lists": lists, "limits": limits, "verify": self.verify}
        folder = Path(self.data_dir, ".tag_keras") if self.cache_dir is None else self.cache_dir
        path = index_path(Path(folder).expanduser(), layout, settings)
        if not self._is_there(path, look_again):
            with made_alone(path):
                # Meanwhile another process may have replaced the file.
                _load.cache_clear()
                if not self._is_there(path, look_again):
                    where = f"{len(layout.buildings)} buildings in {self.data_dir}"
                    print(f"Looking for complete samples of {where}, once.", file=sys.stderr)
                    index = make_index(layout, domains, lists, limits, self.verify)
                    _check_any(self.data_dir, index)
                    save_index(index, path)
                    _load.cache_clear()
        return layout, path, _load(path)

    def _is_there(self, path: Path, look_again: bool) -> bool:
        """Whether an index is there, and with `look_again` not outdated."""
        return path.exists() and not (look_again and is_outdated(_load(path), self.verify))

    def _check_split(self, split: str, names: Sequence[str], layout: Layout, index: Index) -> None:
        """Checks that a split has samples, out of the buildings with these names."""
        if len(index.samples[split]):
            return
        found = [name for name in names if name in layout.buildings]
        raise ValueError(
            f"The split {split!r} of the buildings {self.buildings!r} has no image in "
            f"{self.data_dir}: of the {len(names)} asked for ({_few(names)}) there are "
            f"{len(found)} ({_few(found)}), of all buildings {len(layout.buildings)} "
            f"({_few(layout.buildings)}). Get the files of one of them, or give other buildings."
        )


@functools.lru_cache(maxsize=4)
def _load(path: Path) -> Index:
    return load_index(path)


def _check_any(data_dir: str | Path, index: Index) -> None:
    """Checks that there is a complete sample."""
    if any(map(len, index.samples.values())):
        return
    shown = "; ".join(index.problems[:_NAMED])
    raise ValueError(
        f"{data_dir} has no image with readable files of all domains: {len(index.incomplete)} are "
        f"incomplete, {len(index.unreadable)} files cannot be read: {shown}."
    )


def _few(names: Sequence[str]) -> str:
    return (", ".join(names[:_NAMED]) or "none") + (", ..." if len(names) > _NAMED else "")
