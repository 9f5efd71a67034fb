"""A small CelebA: the same images in every form that people have them in."""

import csv
import functools
import importlib.resources.abc
import pathlib
import sys
import zipfile
from unittest import mock

import numpy as np
import tensorflow as tf

from celeba.lists import ATTRIBUTES, SPLITS

# Files are numbered from 1 on, first those of the training images, as in CelebA.
SIZES = {"train": 12, "validation": 5, "test": 6}
NAMES = {
    "train": [f"{number:06}.jpg" for number in range(1, 13)],
    "validation": [f"{number:06}.jpg" for number in range(13, 18)],
    "test": [f"{number:06}.jpg" for number in range(18, 24)],
}
ALL_NAMES = [name for split in SPLITS for name in NAMES[split]]


@functools.cache
def make_jpeg(seed, height=218, width=178):
    """Noise on a coarse grid, enlarged: about what a photograph's file takes."""
    coarse = np.random.default_rng(seed).uniform(0, 255, (28, 23, 3))
    image = tf.cast(tf.image.resize(coarse, (height, width)), tf.uint8)
    return tf.io.encode_jpeg(image, quality=75).numpy()


def all_labels(seed=0):
    """Array (N, 40) of -1 and 1."""
    number = sum(SIZES.values())
    return np.random.default_rng(seed).choice([-1, 1], (number, len(ATTRIBUTES)))


def write_images(folder):
    folder.mkdir(parents=True)
    for number, name in enumerate(ALL_NAMES):
        (folder / name).write_bytes(make_jpeg(number))


def write_zip(path):
    """As img_align_celeba.zip: with the folder in it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("img_align_celeba/", b"")
        for number, name in enumerate(ALL_NAMES):
            archive.writestr(f"img_align_celeba/{name}", make_jpeg(number))


def write_lists(folder, attributes="list_attr_celeba.txt", partition="list_eval_partition.txt"):
    lines = [f"{len(ALL_NAMES)}", " ".join(ATTRIBUTES) + " "]
    # The published list is aligned with two spaces before positive numbers.
    for name, row in zip(ALL_NAMES, all_labels(), strict=True):
        lines.append(f"{name} {' '.join(f'{value:2}' for value in row)}")
    for path in (folder / attributes, folder / partition):
        path.parent.mkdir(parents=True, exist_ok=True)
    (folder / attributes).write_text("\n".join(lines) + "\n")
    rows = [f"{name} {i}" for i, split in enumerate(SPLITS) for name in NAMES[split]]
    (folder / partition).write_text("\n".join(rows) + "\n")


def write_csv_lists(folder):
    """As on Kaggle."""
    with open(folder / "list_attr_celeba.csv", "w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["image_id", *ATTRIBUTES])
        writer.writerows([name, *row] for name, row in zip(ALL_NAMES, all_labels(), strict=True))
    with open(folder / "list_eval_partition.csv", "w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["image_id", "partition"])
        writer.writerows([name, i] for i, split in enumerate(SPLITS) for name in NAMES[split])


def make_folder(folder):
    write_images(folder / "img_align_celeba")
    write_lists(folder)


def make_manual_zip(folder):
    write_zip(folder / "downloads" / "manual" / "img_align_celeba.zip")
    write_lists(folder / "downloads" / "manual")


def make_manual_folder(folder):
    write_images(folder / "downloads" / "manual" / "img_align_celeba")
    write_lists(folder / "downloads" / "manual")


def make_kaggle(folder):
    write_images(folder / "img_align_celeba" / "img_align_celeba")
    write_csv_lists(folder)


def make_official(folder):
    """As the folders of the official download."""
    write_zip(folder / "Img" / "img_align_celeba.zip")
    write_lists(folder, "Anno/list_attr_celeba.txt", "Eval/list_eval_partition.txt")


def make_prepared(folder):
    """As `tfds.load("celeb_a")` leaves it, made by the library itself from downloaded files."""
    import tensorflow_datasets as tfds

    downloads = folder / "downloads" / "files"
    write_zip(downloads / "img_align_celeba.zip")
    write_lists(downloads)
    points = "lefteye righteye nose leftmouth rightmouth"
    header = " ".join(f"{point}_x {point}_y" for point in points.split())
    lines = [f"{len(ALL_NAMES)}", header, *(f"{name} {' 1' * 10}" for name in ALL_NAMES)]
    (downloads / "landmarks.txt").write_text("\n".join(lines) + "\n")
    (downloads / "identity.txt").write_text("\n".join(f"{name} 1" for name in ALL_NAMES) + "\n")
    files = {
        "img_align_celeba": "img_align_celeba.zip",
        "list_eval_partition": "list_eval_partition.txt",
        "list_attr_celeba": "list_attr_celeba.txt",
        "landmarks_celeba": "landmarks.txt",
        "identity_celeba": "identity.txt",
    }
    paths = {name: pathlib.Path(downloads / file) for name, file in files.items()}
    # TensorFlow Datasets 4.9.10 needs it to write, and does not install it.
    backport = {"importlib_resources": importlib.resources}
    given = mock.patch.object(tfds.download.DownloadManager, "download", lambda self, urls: paths)
    with mock.patch.dict(sys.modules, backport), given:
        # Several files, as for the whole of CelebA.
        config = tfds.download.DownloadConfig(num_shards=3)
        builder = tfds.builder("celeb_a", data_dir=folder)
        builder.download_and_prepare(download_config=config)


def collect(data, split, batch_size=4, **options):
    """All images, and all labels (N, T)."""
    batches = list(data.batches(split, batch_size, **options).as_numpy_iterator())
    labels = [np.stack([batch[1][task] for task in data.tasks], axis=1) for batch in batches]
    return np.concatenate([batch[0] for batch in batches]), np.concatenate(labels)


@functools.cache
def by_the_notebook(file):
    """The notebook's expressions."""
    image = tf.io.decode_jpeg(file)
    return tf.image.resize(tf.image.convert_image_dtype(image, tf.float32), [64, 64]).numpy()


MAKERS = {
    "folder": make_folder,
    "manual zip": make_manual_zip,
    "manual folder": make_manual_folder,
    "kaggle": make_kaggle,
    "official": make_official,
    "prepared": make_prepared,
}
