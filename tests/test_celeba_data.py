import errno
import functools
import importlib.util
import multiprocessing
import os
import pickle
import shutil
import sys

import celeba_files
import keras
import numpy as np
import pytest
import tensorflow as tf
from celeba_files import (
    ALL_NAMES,
    MAKERS,
    NAMES,
    SIZES,
    all_labels,
    make_folder,
    make_jpeg,
    write_lists,
)

from celeba import cache, network, preparation
from celeba.data import ATTRIBUTES, SPLITS, TASKS, CelebA
from celeba.finding import find_source

UNREADABLE = {split: [] for split in SPLITS}


@pytest.fixture(scope="module")
def forms(tmp_path_factory):
    """A folder for each form of the same small CelebA that can be made here."""
    there = importlib.util.find_spec("tensorflow_datasets") is not None
    names = [name for name in MAKERS if there or name != "prepared"]
    folders = {name: tmp_path_factory.mktemp(name.replace(" ", "_")) for name in names}
    for name, folder in folders.items():
        MAKERS[name](folder)
    return folders


@pytest.fixture
def prepared(forms):
    pytest.importorskip("tensorflow_datasets")
    return forms["prepared"]


@pytest.fixture
def folder(tmp_path):
    make_folder(tmp_path)
    return tmp_path


def collect(data, split, batch_size=4, **options):
    """All images, and all labels (N, T)."""
    batches = list(data.batches(split, batch_size, **options).as_numpy_iterator())
    labels = [np.stack([batch[1][task] for task in data.tasks], axis=1) for batch in batches]
    return np.concatenate([batch[0] for batch in batches]), np.concatenate(labels)


def flat_encoder(tasks):
    """Quickly built, and without batch normalization, which sees the images of one replica."""
    return keras.Sequential([keras.Input((16, 16, 3)), keras.layers.Flatten()])


@functools.cache
def by_the_notebook(file):
    """The notebook's expressions."""
    image = tf.io.decode_jpeg(file)
    return tf.image.resize(tf.image.convert_image_dtype(image, tf.float32), [64, 64]).numpy()


def test_the_real_set_has_forty_attributes_of_which_the_paper_takes_nine():
    assert len(ATTRIBUTES) == 40
    # The list is sorted by name, but for this.
    assert list(ATTRIBUTES) == sorted(ATTRIBUTES)
    assert (ATTRIBUTES[0], ATTRIBUTES[20], ATTRIBUTES[-1]) == ("5_o_Clock_Shadow", "Male", "Young")
    assert len(TASKS) == 9
    assert set(TASKS) < set(ATTRIBUTES)


@pytest.mark.parametrize("form", MAKERS)
def test_every_form_gives_the_pixels_of_the_notebook_and_the_same_labels(forms, form):
    if form not in forms:
        pytest.skip("needs tensorflow-datasets")
    data = CelebA(forms[form], tasks=ATTRIBUTES)
    assert data.prepare() == UNREADABLE
    assert data.sizes == SIZES
    number = 0
    for split in SPLITS:
        images, labels = collect(data, split)
        wanted = [by_the_notebook(make_jpeg(number + i)) for i in range(SIZES[split])]
        # Exactly.
        np.testing.assert_array_equal(images, np.stack(wanted))
        assert (images.dtype, labels.dtype) == (np.float32, np.int32)
        assert 0 <= images.min() < images.max() <= 1
        np.testing.assert_array_equal(labels, all_labels()[number : number + SIZES[split]] > 0)
        number += SIZES[split]


def test_prepared_files_hold_what_the_notebook_reads(prepared):
    tfds = pytest.importorskip("tensorflow_datasets")
    builder = tfds.builder_from_directory(str(prepared / "celeb_a" / "2.1.0"))
    assert builder.info.splits["train"].num_shards == 3
    read = [
        (example["attributes"], tf.image.convert_image_dtype(example["image"], tf.float32))
        for example in builder.as_dataset(split="train")
    ]
    images, labels = collect(CelebA(prepared), "train")
    # In another order, but the same pairs.
    found = {image.tobytes(): tuple(row) for image, row in zip(images, labels, strict=True)}
    wanted = {
        tf.image.resize(image, [64, 64]).numpy().tobytes(): tuple(
            int(attributes[task]) for task in TASKS
        )
        for attributes, image in read
    }
    assert found == wanted


def test_a_shuffled_epoch_is_the_same_with_every_form(forms):
    epochs = {}
    for form, folder in forms.items():
        data = CelebA(folder, tasks=("Goatee", "Male"))
        keras.utils.set_random_seed(3)
        epochs[form] = collect(data, "train", 5, shuffle=True)
    images, labels = epochs.pop("folder")
    for form, epoch in epochs.items():
        np.testing.assert_array_equal(epoch[0], images, err_msg=form)
        np.testing.assert_array_equal(epoch[1], labels, err_msg=form)


def test_the_order_of_an_epoch_follows_from_the_global_seed(folder):
    data = CelebA(folder, image_size=8)
    orders = []
    for seed in (0, 0, 1):
        keras.utils.set_random_seed(seed)
        batches = data.batches("train", 5, shuffle=True)
        epochs = [[batch[0].numpy() for batch in batches] for _ in range(2)]
        assert [len(batch) for batch in epochs[0]] == [5, 5, 2]
        orders.append([np.concatenate(epoch) for epoch in epochs])
    np.testing.assert_array_equal(orders[0], orders[1])
    assert not np.array_equal(orders[0][0], orders[0][1])
    assert not np.array_equal(orders[0][0], orders[2][0])
    # Each example once.
    unshuffled = collect(data, "train")[0]
    for epoch in orders[0]:
        assert sorted(image.tobytes() for image in epoch) == sorted(
            image.tobytes() for image in unshuffled
        )
    assert int(data.batches("train", 5).cardinality()) == 3


def test_in_memory_the_pixels_are_rounded(folder):
    exact, _ = collect(CelebA(folder), "test")
    rounded, _ = collect(CelebA(folder, in_memory=True), "test")
    assert rounded.dtype == np.float32
    np.testing.assert_allclose(rounded, np.round(exact * 255) / 255, rtol=1e-6)
    assert np.abs(rounded - exact).max() <= 0.5 / 255 + 1e-6


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


@pytest.mark.parametrize("damage", ["cut off", "no index", "bad index"])
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
        (whole / "index.json").write_text("{")
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


def test_the_object_can_be_pickled(folder):
    data = CelebA(folder, tasks=["Male"])
    data.prepare()
    assert pickle.loads(pickle.dumps(data)) == data
    assert data.tasks == ("Male",)


@pytest.mark.slow
def test_of_two_processes_one_decodes(folder):
    data = CelebA(folder, tasks=("Male",))
    with multiprocessing.get_context("spawn").Pool(2) as pool:
        found = pool.map(_sum_of, [data, data])
    assert found == [pytest.approx(_sum_of(data))] * 2


def test_two_replicas_train_as_one(folder, two_replicas):
    data = CelebA(folder, tasks=("Male",), image_size=16)

    def fit():
        keras.utils.set_random_seed(0)
        model = network.build_model(data.tasks, 0.01, flat_encoder)
        return model, model.fit(data.batches("train", 4), shuffle=False, verbose=0).history

    _, alone = fit()
    with two_replicas.scope():
        model, together = fit()
        # Shuffled, a data set that is shared out among replicas has an order of its own.
        rounded = CelebA(folder, tasks=data.tasks, image_size=16, in_memory=True)
        model.fit(rounded.batches("train", 4, shuffle=True), shuffle=False, verbose=0)
    assert {"Male_loss", "Male_accuracy"} < {*alone}
    for name in alone:
        np.testing.assert_allclose(together[name], alone[name], rtol=1e-4, err_msg=name)


def test_names_that_do_not_exist_are_told_with_close_ones():
    with pytest.raises(ValueError, match=r"CelebA, such as Mustache\. Received: task='Moustache'"):
        CelebA(".", tasks=("Male", "Moustache"))
    with pytest.raises(
        ValueError, match=r"such as 5_o_Clock_Shadow, Arched_.*, Young\. Received: task='xyz'"
    ):
        CelebA(".", tasks=("xyz",))
    with pytest.raises(ValueError, match=r"such as No_Beard\. Received: task='no beard'"):
        CelebA(".", tasks=("no beard",))
    with pytest.raises(ValueError, match="should be unique"):
        CelebA(".", tasks=("Male", "Male"))


@pytest.mark.parametrize("size", [0, 7, 179])
def test_senseless_image_sizes_are_refused(size):
    with pytest.raises(ValueError, match=f"`image_size` should be .* image_size={size}"):
        CelebA(".", image_size=size)


def test_arguments_of_batches_are_checked(folder):
    data = CelebA(folder)
    with pytest.raises(ValueError, match=r"should be one of \('train', .*split='valid'"):
        data.batches("valid", 4)
    with pytest.raises(ValueError, match="`batch_size` should be at least 1"):
        data.batches("train", 0)


def test_no_data_is_told_with_what_was_looked_for(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"nowhere is no folder\. CelebA is at https"):
        CelebA(tmp_path / "nowhere").prepare()
    with pytest.raises(FileNotFoundError) as error:
        CelebA(tmp_path).prepare()
    for part in (
        f"{tmp_path} does not hold the whole of CelebA",
        "Missing: img_align_celeba/ or img_align_celeba.zip, list_attr_celeba.txt or .csv, "
        "list_eval_partition.txt or .csv; found: nothing",
        "downloads/manual",
        "https://mmlab.ie.cuhk.edu.hk/projects/CelebA.html",
        "jessicali9530/celeba-dataset",
        "TensorFlow Datasets",
    ):
        assert part in str(error.value)
    # Nothing was made.
    assert list(tmp_path.iterdir()) == []


def test_a_missing_list_is_told(folder):
    (folder / "list_eval_partition.txt").unlink()
    with pytest.raises(
        FileNotFoundError, match=r"Missing: list_eval_partition\.txt or \.csv; found: .*attr_celeba"
    ):
        CelebA(folder).prepare()


def test_missing_images_are_told(folder):
    for name in ("000002.jpg", "000020.jpg"):
        (folder / "img_align_celeba" / name).unlink()
    with pytest.raises(
        FileNotFoundError, match=r"lacks 2 of the 23 images that .*: 000002\.jpg, 000020\.jpg\."
    ):
        CelebA(folder).prepare()
    assert not (folder / "tag_keras_cache").exists()


def test_an_archive_that_is_cut_off_is_told(tmp_path):
    celeba_files.make_manual_zip(tmp_path)
    path = tmp_path / "downloads" / "manual" / "img_align_celeba.zip"
    os.truncate(path, path.stat().st_size // 2)
    with pytest.raises(ValueError, match=r"img_align_celeba\.zip is cut off, or no zip file"):
        CelebA(tmp_path).prepare()


@pytest.mark.parametrize(
    ("file", "old", "new", "message"),
    [
        ("attr", "23\n", "24\n", "as many rows as its first line says, 24. Received: 23 rows"),
        ("attr", " Bald ", " Balt ", r"40 attributes in its header. Received: 40 names, '5_o_"),
        (
            "attr",
            "000001.jpg",
            "000001.jpg 1",
            r"txt, line 3, should have a file name and 40 times",
        ),
        ("attr", "000001.jpg", "1.jpg", r"partition\.txt names 000001\.jpg, which .*attr_celeba"),
        ("eval", "000001.jpg 0", "000001.jpg 3", "txt, line 1, should have a file name and 0, 1"),
        ("eval", ".jpg 2", ".jpg 1", r"images of all splits\. Without any: \['test'\]"),
        ("eval", None, "", "is empty"),
        ("attr", None, "\n\n", "is empty"),
    ],
)
def test_lists_that_are_wrong_are_told(folder, file, old, new, message):
    (path,) = folder.glob(f"list_{file}*")
    path.write_text(new if old is None else path.read_text().replace(old, new))
    with pytest.raises(ValueError, match=message):
        CelebA(folder).prepare()


def test_prepared_files_without_a_split_are_told(prepared, tmp_path):
    shutil.copytree(prepared / "celeb_a", tmp_path / "celeb_a")
    info = tmp_path / "celeb_a" / "2.1.0" / "dataset_info.json"
    info.write_text(info.read_text().replace('"validation"', '"other"'))
    with pytest.raises(ValueError, match=r"examples of all splits. Without any: \['validation'\]"):
        CelebA(tmp_path).prepare()


def test_without_the_library_prepared_files_are_left_alone(prepared, tmp_path, monkeypatch, capsys):
    shutil.copytree(prepared / "celeb_a", tmp_path / "celeb_a")
    monkeypatch.setitem(sys.modules, "tensorflow_datasets", None)
    with pytest.raises(FileNotFoundError, match="does not hold the whole of CelebA"):
        find_source(tmp_path)
    assert "takes `pip install tensorflow-datasets`" in capsys.readouterr().out
    make_folder(tmp_path)
    assert find_source(tmp_path).sizes == SIZES
