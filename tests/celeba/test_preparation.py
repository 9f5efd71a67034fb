"""CelebA decoded once: what is kept, what is done anew, and what is left out."""

import errno
import fcntl
import os
import shutil

import celeba_files
import forks
import numpy as np
import pytest
import tensorflow as tf
from celeba_files import (
    ALL_NAMES,
    NAMES,
    all_labels,
    by_the_notebook,
    collect,
    make_folder,
    make_jpeg,
    write_lists,
)

from celeba import cache, preparation
from celeba.data import ATTRIBUTES, SPLITS, CelebA

UNREADABLE = {split: [] for split in SPLITS}


@pytest.fixture
def folder(tmp_path):
    make_folder(tmp_path)
    return tmp_path


def test_the_whole_of_celeba_takes_so_many_bytes():
    numbers = {"train": 162_770, "validation": 19_867, "test": 19_962}
    sizes = {
        kind: cache.Cache(None, 64, kind, numbers, UNREADABLE).bytes
        for kind in ("float32", "uint8")
    }
    assert sum(numbers.values()) == 202_599
    # Pixels and forty labels of a byte.
    assert sizes["float32"] == 202_599 * (64 * 64 * 3 * 4 + 40) == 9_966_250_008
    assert sizes["uint8"] == 202_599 * (64 * 64 * 3 + 40) == 2_497_640_472 < 3 * 2**30


def test_unreadable_images_are_left_out_and_named(folder, capsys):
    images = folder / "img_align_celeba"
    whole = collect(CelebA(folder, cache_dir=folder / "whole"), "train")
    (images / "000003.jpg").write_bytes((images / "000003.jpg").read_bytes()[:2000])
    (images / "000018.jpg").write_bytes(b"")
    data = CelebA(folder)
    assert data.prepare() == {"train": ["000003.jpg"], "validation": [], "test": ["000018.jpg"]}
    told = "2 images cannot be read and are left out: 000003.jpg, 000018.jpg"
    assert told in capsys.readouterr().out
    assert data.sizes == {"train": 11, "validation": 5, "test": 5}
    left = [index for index in range(12) if index != 2]
    for found, wanted in zip(collect(data, "train"), whole, strict=True):
        np.testing.assert_array_equal(found, wanted[left])
    # The same ones the next time, and rounded.
    assert data.prepare() == CelebA(folder, in_memory=True).prepare()
    assert capsys.readouterr().out.count(told) == 2


def test_an_image_cut_off_in_an_archive_is_left_out(tmp_path):
    celeba_files.make_manual_zip(tmp_path)
    path = tmp_path / "downloads" / "manual" / "img_align_celeba.zip"
    content = bytearray(path.read_bytes())
    # A bit of the pixels of the first image.
    content[2000] ^= 255
    path.write_bytes(content)
    assert CelebA(tmp_path).prepare()["train"] == ["000001.jpg"]


def test_the_second_time_nothing_is_decoded(folder, capsys, monkeypatch):
    CelebA(folder).prepare()
    assert "Decoding 23 images" in capsys.readouterr().out
    monkeypatch.setattr(preparation, "decode_all", None)
    # Any tasks use the same.
    data = CelebA(folder, tasks=("Young", "Bald"))
    data.prepare()
    assert capsys.readouterr().out == ""
    labels = all_labels()[:12] > 0
    columns = [ATTRIBUTES.index("Young"), ATTRIBUTES.index("Bald")]
    np.testing.assert_array_equal(collect(data, "train")[1], labels[:, columns])


def test_an_interrupted_decoding_goes_on_where_it_stopped(folder, monkeypatch):
    monkeypatch.setattr(preparation, "_STRIDE", 4)
    decoded, decode_all = [], preparation.decode_all

    def until(last):
        def some(examples, decode):
            for example, *rest in decode_all(examples, decode):
                if example.name == last:
                    raise KeyboardInterrupt
                decoded.append(example.name)
                yield example, *rest

        return some

    data = CelebA(folder)
    for last in ("000007.jpg", "000020.jpg"):
        monkeypatch.setattr(preparation, "decode_all", until(last))
        with pytest.raises(KeyboardInterrupt):
            data.prepare()
        assert not list((folder / "tag_keras_cache").glob("celeba-*"))
    monkeypatch.setattr(preparation, "decode_all", until(None))
    data.prepare()
    # Of what was decoded, that since the last multiple of four images is done again.
    done = ALL_NAMES
    assert decoded == [*done[:6], *done[4:19], *done[17:]]
    monkeypatch.undo()
    for split in SPLITS:
        wanted = collect(CelebA(folder, cache_dir=folder / "other"), split)[0]
        np.testing.assert_array_equal(collect(data, split)[0], wanted)
    (whole,) = (folder / "tag_keras_cache").glob("celeba-*")
    assert sorted(path.name for path in whole.iterdir()) == sorted(
        ["index.json", *(f"{split}.{kind}" for split in SPLITS for kind in ("labels", "pixels"))]
    )


@pytest.mark.parametrize("damage", ["cut off", "no index", "bad index", "huge", "beyond"])
def test_a_damaged_cache_is_made_anew(folder, capsys, damage):
    data = CelebA(folder)
    wanted = collect(data, "validation")[0]
    (whole,) = (folder / "tag_keras_cache").glob("celeba-*")
    if damage == "cut off":
        os.truncate(whole / "validation.pixels", 5 * 64 * 64 * 3 * 4 - 1)
        with pytest.raises(tf.errors.UnknownError, match=r"validation\.pixels is cut off"):
            collect(data, "validation")
    elif damage == "no index":
        (whole / "index.json").unlink()
    else:
        text = (whole / "index.json").read_text()
        # A number that JSON reads as infinity, and an image left out beyond the last one.
        huge, beyond = text.replace("12", "1e400"), text.replace("[]", '[[99, "x"]]')
        text = {"bad index": "{", "huge": huge, "beyond": beyond}[damage]
        (whole / "index.json").write_text(text)
    data.prepare()
    assert f"{whole} is damaged, and made anew." in capsys.readouterr().out
    np.testing.assert_array_equal(collect(data, "validation")[0], wanted)


def test_a_cache_of_other_files_is_not_used(folder):
    data = CelebA(folder)
    before = collect(data, "train")
    changed = folder / "img_align_celeba" / "000002.jpg"
    changed.write_bytes(make_jpeg(99))
    data.prepare()
    images, labels = collect(data, "train")
    np.testing.assert_array_equal(images[1], by_the_notebook(make_jpeg(99)))
    np.testing.assert_array_equal(np.delete(images, 1, 0), np.delete(before[0], 1, 0))
    # Other labels, too.
    path = folder / "list_attr_celeba.txt"
    lines = path.read_text().splitlines()
    lines[2] = " ".join(["000001.jpg", *["1"] * 40])
    path.write_text("\n".join(lines))
    data.prepare()
    assert collect(data, "train")[1].tolist() == [[1] * 9, *labels[1:].tolist()]


def test_the_fingerprint_is_that_of_the_files(folder, tmp_path_factory, monkeypatch):
    # In the same files, with the same times, whatever is made of them.
    other = tmp_path_factory.mktemp("other")
    shutil.copytree(folder, other, dirs_exist_ok=True)
    data = CelebA(folder, image_size=8)
    first = data.fingerprint
    assert (len(first), int(first, 16) >= 0) == (12, True)
    assert CelebA(other, tasks=("Male",), image_size=8, in_memory=True).fingerprint == first
    with monkeypatch.context() as patch:
        # Files are looked for once, by `prepare`.
        patch.setattr("celeba.data.find_source", None)
        assert data.fingerprint == first
    # Nor do files count that systems leave in folders.
    (folder / "img_align_celeba" / ".DS_Store").write_bytes(b"x")
    data.prepare()
    assert data.fingerprint == first
    path = folder / "list_attr_celeba.txt"
    lines = path.read_text().splitlines()
    lines[2] = " ".join(["000001.jpg", *["1"] * 40])
    path.write_text("\n".join(lines))
    data.prepare()
    second = data.fingerprint
    (folder / "img_align_celeba" / "000002.jpg").write_bytes(make_jpeg(99))
    data.prepare()
    assert len({first, second, data.fingerprint}) == 3


def test_another_image_size_is_another_cache(folder):
    assert collect(CelebA(folder, image_size=32), "test")[0].shape == (6, 32, 32, 3)
    assert collect(CelebA(folder, image_size=8), "test")[0].shape == (6, 8, 8, 3)


def test_a_full_disc_leaves_nothing_and_says_how_much_is_needed(folder, monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    needed = 23 * (64 * 64 * 3 * 4 + 40)
    wanted = rf"as float32 take {needed:,} bytes in .*tag_keras_cache, where [\d,]+ are free"
    # Before the work, and in the midst of it where room cannot be reserved.
    for name in ("posix_fallocate", "pwrite"):
        monkeypatch.setattr(os, name, full)
        if name == "pwrite":
            monkeypatch.delattr(os, "posix_fallocate")
        with pytest.raises(OSError, match=wanted) as error:
            CelebA(folder).prepare()
        assert error.value.errno == errno.ENOSPC
        monkeypatch.undo()
        left = [path for path in (folder / "tag_keras_cache").iterdir() if path.is_dir()]
        assert left == []
    # Less was written than was given.
    monkeypatch.setattr(os, "pwrite", lambda descriptor, values, offset: len(values) - 1)
    with pytest.raises(OSError, match=wanted):
        CelebA(folder).prepare()


def test_a_folder_that_cannot_be_written_is_told(folder):
    path = folder / "list_attr_celeba.txt"
    with pytest.raises(OSError, match=r"cannot be written to .*txt/cache\. Give another cache_dir"):
        CelebA(folder, cache_dir=path / "cache").prepare()


def test_a_disc_without_locks_is_told(folder, monkeypatch):
    def none(*_):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", none)
    with pytest.raises(
        OSError, match=r"tag_keras_cache/.* cannot be locked, .* Give another folde"
    ):
        CelebA(folder).prepare()


def test_images_of_several_sizes_are_not_celeba(folder):
    (folder / "img_align_celeba" / "000014.jpg").write_bytes(make_jpeg(0, 300, 200))
    with pytest.raises(
        ValueError, match=r"Received: 000014\.jpg with 300 x 200 after others with 218 x 178"
    ):
        CelebA(folder).prepare()
    assert not [path for path in (folder / "tag_keras_cache").iterdir() if path.is_dir()]


def test_images_of_another_size_will_do(tmp_path):
    (tmp_path / "img_align_celeba").mkdir()
    write_lists(tmp_path)
    for name in ALL_NAMES:
        (tmp_path / "img_align_celeba" / name).write_bytes(make_jpeg(int(name[:6]), 128, 128))
    images, _ = collect(CelebA(tmp_path), "test")
    np.testing.assert_array_equal(images[0], by_the_notebook(make_jpeg(18, 128, 128)))


def test_nothing_readable_is_an_error(folder):
    for name in NAMES["test"]:
        (folder / "img_align_celeba" / name).write_bytes(b"nothing")
    with pytest.raises(ValueError, match=r"None of the 6 images of the split 'test' in .* can be"):
        CelebA(folder).prepare()


def _sum_of(data):
    return float(sum(images.numpy().sum() for images, _ in data.batches("train", 4)))


@pytest.mark.slow
def test_of_two_processes_one_decodes(folder):
    data = CelebA(folder, tasks=("Male",))
    with forks.pool(2) as pool:
        found = pool.map(_sum_of, [data, data])
    assert found == [pytest.approx(_sum_of(data))] * 2
