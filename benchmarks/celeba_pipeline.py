"""Images per CPU second of CelebA's input pipeline, beside that of TAG's notebook.

    python -m benchmarks.celeba_pipeline

The notebook (Fifty et al. 2021, arXiv 2109.04617) decodes, converts and resizes every image in
every epoch, and shuffles them through a buffer of the whole set. Ours decodes once, and then reads
exact pixels from the disc or holds rounded ones in memory. The images are synthetic: JPEG files of
218 x 178 pixels and about 7,100 bytes, like CelebA's. A turn is one epoch of each pipeline, one
after the other, and the spread is over the turns. Time is the CPU time of all threads, which other
work on the machine delays least. The first two epochs of each pipeline warm up.

Memory is the peak of a process that reads all splits twice: with a few images, and with as many as
CelebA has, all black. Pixels on the disc come through the cache of the operating system, which
takes free memory and belongs to no process.
"""

from __future__ import annotations

import contextlib
import os
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np

from benchmarks.measuring import (
    Figure,
    Step,
    peak_megabytes,
    run_apart,
    show,
    time_in_turns,
)
from benchmarks.options import load_lazily, make_parser
from celeba.lists import ATTRIBUTES, TASKS
from tag_keras.utils import files

tf, celeba_data = map(load_lazily, ("tensorflow", "celeba.data"))

NOTEBOOK, ON_DISC, IN_MEMORY = "the notebook's way", "ours, on disc", "ours, in memory"
PIXELS = {ON_DISC: "float32", IN_MEMORY: "uint8"}
CELEBA = {"train": 162_770, "validation": 19_867, "test": 19_962}
# Number of different images; all others are links to these.
_DIFFERENT = 500


def make_files(folder: Path, number: int) -> None:
    """Writes the files of CelebA, with `number` training images and one of each other split."""
    images = folder / "img_align_celeba"
    images.mkdir(parents=True)
    names = [f"{index + 1:06}.jpg" for index in range(number + 2)]
    for index, name in enumerate(names):
        if index < _DIFFERENT:
            (images / name).write_bytes(make_jpeg(index))
        else:
            os.link(images / names[index % _DIFFERENT], images / name)
    labels = np.random.default_rng(0).choice([-1, 1], (len(names), len(ATTRIBUTES)))
    rows = [" ".join([name, *map(str, row)]) for name, row in zip(names, labels, strict=True)]
    (folder / "list_attr_celeba.txt").write_text(
        "\n".join([str(len(names)), " ".join(ATTRIBUTES), *rows])
    )
    splits = [*[0] * number, 1, 2]
    (folder / "list_eval_partition.txt").write_text(
        "\n".join(f"{name} {split}" for name, split in zip(names, splits, strict=True))
    )


def make_jpeg(seed: int) -> bytes:
    """An image of coarse noise, enlarged, with a little fine noise on it."""
    random = np.random.default_rng(seed)
    image = tf.image.resize(random.uniform(0, 255, (28, 23, 3)), (218, 178), method="bicubic")
    image = tf.clip_by_value(image + random.normal(0, 3, image.shape), 0, 255)
    return bytes(tf.io.encode_jpeg(tf.cast(image, tf.uint8), quality=75).numpy())


def write_records(folder: Path, path: Path) -> None:
    """Writes the training images as TensorFlow Datasets keeps them."""
    lines = (folder / "list_attr_celeba.txt").read_text().splitlines()[2:-2]
    with tf.io.TFRecordWriter(str(path)) as writer:
        for name, *row in map(str.split, lines):
            image = (folder / "img_align_celeba" / name).read_bytes()
            features = {"image": tf.train.Feature(bytes_list=tf.train.BytesList(value=[image]))}
            for attribute, value in zip(ATTRIBUTES, row, strict=True):
                yes = tf.train.Int64List(value=[int(value == "1")])
                features[attribute] = tf.train.Feature(int64_list=yes)
            example = tf.train.Example(features=tf.train.Features(feature=features))
            writer.write(example.SerializeToString())


def notebook_batches(records: Path, number: int, batch_size: int) -> tf.data.Dataset:
    """The notebook's pipeline. The first `map` stands for TensorFlow Datasets."""
    features = {name: tf.io.FixedLenFeature((), tf.int64) for name in ATTRIBUTES}
    features["image"] = tf.io.FixedLenFeature((), tf.string)

    def decode(record: tf.Tensor) -> tuple[dict[str, tf.Tensor], tf.Tensor]:
        example = tf.io.parse_single_example(record, features)
        return example, tf.io.decode_image(example.pop("image"), 3, expand_animations=False)

    def resize(
        labels: dict[str, tf.Tensor], image: tf.Tensor
    ) -> tuple[dict[str, tf.Tensor], tf.Tensor]:
        image = tf.ensure_shape(image, (218, 178, 3))
        return labels, tf.image.resize(tf.image.convert_image_dtype(image, tf.float32), [64, 64])

    dataset = tf.data.TFRecordDataset(str(records))
    dataset = dataset.map(decode, num_parallel_calls=tf.data.AUTOTUNE).prefetch(tf.data.AUTOTUNE)
    shuffled = dataset.map(resize).shuffle(number, seed=0, reshuffle_each_iteration=True)
    return shuffled.batch(batch_size)


def epoch_of(dataset: tf.data.Dataset) -> Step:
    def epoch() -> int:
        return sum(1 for _ in dataset)

    return epoch


def our_batches(folder: Path, kind: str, batch_size: int, split: str = "train") -> tf.data.Dataset:
    # What it says while it decodes is no result.
    with contextlib.redirect_stdout(sys.stderr):
        data = celeba_data.CelebA(folder, tasks=TASKS, in_memory=kind == IN_MEMORY)
        return data.batches(split, batch_size, shuffle=True)


def enlarge(folder: Path, kind: str) -> None:
    """Enlarges the decoded images of a folder to the number of CelebA's, with black ones."""
    our_batches(folder, kind, 1)
    (index,) = (folder / "tag_keras_cache").glob(f"celeba-64-{PIXELS[kind]}-*/index.json")
    files.write_json(index, {"numbers": CELEBA, "unreadable": {split: [] for split in CELEBA}})
    for split, number in CELEBA.items():
        image_bytes = 64 * 64 * 3 * np.dtype(PIXELS[kind]).itemsize
        os.truncate(index.with_name(f"{split}.pixels"), number * image_bytes)
        os.truncate(index.with_name(f"{split}.labels"), number * len(ATTRIBUTES))


def peak_apart(folder: Path, kind: str, batch_size: int) -> float:
    """Peak memory, in MB, of a process of its own that reads all splits twice."""
    options = [f"--peak_of={kind}", f"--folder={folder}", f"--batch_size={batch_size}"]
    return float(run_apart("benchmarks.celeba_pipeline", options).split()[-1])


def report_speed(times: dict[str, np.ndarray], number: int) -> None:
    figures = []
    for name, seconds in times.items():
        figures.append(Figure.of(name, "images per CPU second", number / seconds))
        ratios = times[NOTEBOOK] / seconds
        figures.append(Figure.of(name, "in those of the notebook", ratios))
    show(f"{number:,} images a turn", figures)


def report_memory(folder: Path, batch_size: int) -> None:
    figures = []
    for kind in PIXELS:
        make_files(folder / kind, 1000)
        our_batches(folder / kind, kind, batch_size)
        few = peak_apart(folder / kind, kind, batch_size) / 1024
        enlarge(folder / kind, kind)
        whole = peak_apart(folder / kind, kind, batch_size) / 1024
        values = {"few images": few, "all of CelebA": whole, "difference": whole - few}
        figures += [Figure.of(kind, f"{name}, GiB", value) for name, value in values.items()]
    show("peak of a process", figures)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = make_parser("benchmarks.celeba_pipeline", __doc__)
    parser.add_argument("--images", type=int, default=20_000)
    parser.add_argument("--batch_size", type=int, default=256)
    parser.add_argument("--turns", type=int, default=5)
    parser.add_argument(
        "--peak_of", choices=PIXELS, help="print one kind's peak memory only, in MB"
    )
    parser.add_argument("--folder", type=Path, help="of the images whose peak is measured")
    options = parser.parse_args(arguments)
    if options.peak_of:
        for split in (*CELEBA, *CELEBA):
            epoch_of(our_batches(options.folder, options.peak_of, options.batch_size, split))()
        print(peak_megabytes())
        return
    with tempfile.TemporaryDirectory() as temporary:
        measure(Path(temporary), options.images, options.batch_size, options.turns)


def measure(folder: Path, number: int, batch_size: int, turns: int) -> None:
    make_files(folder / "images", number)
    write_records(folder / "images", folder / "records")
    mean = (folder / "records").stat().st_size / number
    print(f"{number:,} images, {mean:,.0f} bytes each with their labels.\n")
    batches = {NOTEBOOK: notebook_batches(folder / "records", number, batch_size)}
    batches |= {kind: our_batches(folder / "images", kind, batch_size) for kind in PIXELS}
    steps = {name: epoch_of(dataset) for name, dataset in batches.items()}
    times, _ = time_in_turns(steps, turns, seconds=0)
    report_speed(times, number)
    report_memory(folder, batch_size)


if __name__ == "__main__":
    main()
