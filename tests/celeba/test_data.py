"""CelebA's examples, the same in every form of its files: pixels, labels, order and batches."""

import importlib.util
import pickle

import keras
import numpy as np
import pytest
import tensorflow as tf
from celeba_files import MAKERS, SIZES, all_labels, by_the_notebook, collect, make_folder, make_jpeg

from celeba import network
from celeba.data import ATTRIBUTES, SPLITS, TASKS, CelebA

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


def flat_encoder(tasks):
    """Quickly built, and without batch normalization, which sees the images of one replica."""
    return keras.Sequential([keras.Input((16, 16, 3)), keras.layers.Flatten()])


def test_the_real_set_has_forty_attributes_of_which_the_paper_takes_nine():
    assert len(ATTRIBUTES) == 40
    # The list is sorted by name, but for this.
    assert list(ATTRIBUTES) == sorted(ATTRIBUTES)
    assert (ATTRIBUTES[0], ATTRIBUTES[20], ATTRIBUTES[-1]) == ("5_o_Clock_Shadow", "Male", "Young")
    assert len(TASKS) == 9
    assert set(TASKS) < set(ATTRIBUTES)


@pytest.mark.slow_cases
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


def test_the_object_can_be_pickled(folder):
    data = CelebA(folder, tasks=["Male"])
    data.prepare()
    assert pickle.loads(pickle.dumps(data)) == data
    assert data.tasks == ("Male",)


@pytest.mark.slow
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
