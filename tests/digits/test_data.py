"""The digits as a multi-task problem, against plain loops over their pixels."""

import re

import numpy as np
import pytest
import sklearn.datasets

from digits import data

SPLITS = ("train", "validation", "test")
# By the digits 0 to 9, written down one by one.
ANSWERS = {
    "is_even": [1, 0, 1, 0, 1, 0, 1, 0, 1, 0],
    "at_least_five": [0, 0, 0, 0, 0, 1, 1, 1, 1, 1],
    "is_prime": [0, 0, 1, 1, 0, 1, 0, 1, 0, 0],
    "has_loop": [1, 0, 0, 0, 0, 0, 1, 0, 1, 1],
    "multiple_of_three": [1, 0, 0, 1, 0, 0, 1, 0, 0, 1],
}


@pytest.fixture(scope="module")
def bunch():
    return sklearn.datasets.load_digits()


@pytest.fixture(scope="module")
def splits():
    return data.load()


def joined(splits):
    """Images (1797, 8, 8) and labels (1797,) by task of all splits."""
    images = np.concatenate([splits[split][0][..., 0] for split in SPLITS])
    tasks = splits["train"][1]
    labels = {
        task: np.concatenate([splits[split][1][task][:, 0] for split in SPLITS]) for task in tasks
    }
    return images, labels


def look(image):
    """Whether it is left-heavy, and its ink, slant and height, of one image (8, 8)."""
    ink = left = sum_x = sum_y = 0.0
    for row in range(8):
        for column in range(8):
            pixel = float(image[row][column])
            ink += pixel
            left += pixel if column < 4 else 0.0
            sum_x += pixel * column
            # Upwards, so that a high digit has a large height.
            sum_y += pixel * (7 - row)
    mean_x, mean_y = sum_x / ink, sum_y / ink
    covariance = variance = 0.0
    for row in range(8):
        for column in range(8):
            pixel = float(image[row][column])
            covariance += pixel * (column - mean_x) * (7 - row - mean_y)
            variance += pixel * (7 - row - mean_y) ** 2
    return left > ink / 2, ink, covariance / variance, mean_y


def test_there_are_nine_tasks_six_to_classify_and_three_to_regress():
    assert list(data.CLASSIFICATION) == [*ANSWERS, "left_heavy"]
    assert data.REGRESSION == ("ink", "slant", "height")
    assert data.TASKS == data.CLASSIFICATION + data.REGRESSION


def test_sizes_types_and_order_of_the_splits(splits):
    assert tuple(splits) == SPLITS
    for split, number in zip(SPLITS, (300, 500, 997), strict=True):
        images, labels = splits[split]
        assert images.shape == (number, 8, 8, 1)
        assert images.dtype == np.float32
        assert tuple(labels) == data.TASKS
        assert {values.shape for values in labels.values()} == {(number, 1)}
        assert {values.dtype for values in labels.values()} == {np.dtype(np.float32)}


def test_sizes_that_are_asked_for():
    splits = data.load(num_train=2, num_validation=1794)
    assert [len(splits[split][0]) for split in SPLITS] == [2, 1794, 1]


def test_pixels_are_between_0_and_1(splits):
    images, _ = joined(splits)
    assert (images.min(), images.max()) == (0.0, 1.0)


def test_every_image_is_in_one_split_and_none_in_two(splits, bunch):
    images, _ = joined(splits)
    found = {image.tobytes() for image in images}
    assert len(found) == len(images) == 1797
    assert found == {(image / 16).astype(np.float32).tobytes() for image in bunch.images}


def test_questions_about_the_digit_are_answered_as_written_down(splits, bunch):
    images, labels = joined(splits)
    digits = {
        (image / 16).astype(np.float32).tobytes(): digit
        for image, digit in zip(bunch.images, bunch.target, strict=True)
    }
    for index, image in enumerate(images):
        digit = digits[image.tobytes()]
        for task, answers in ANSWERS.items():
            assert labels[task][index] == answers[digit], f"{task} of {digit}"


def test_what_is_seen_equals_that_of_plain_loops(splits):
    images, labels = joined(splits)
    left, *values = zip(*map(look, images), strict=True)
    np.testing.assert_array_equal(labels["left_heavy"], left)
    for task, value in zip(data.REGRESSION, np.array(values), strict=True):
        standardised = (value - value.mean()) / value.std()
        np.testing.assert_allclose(labels[task], standardised, rtol=1e-4, atol=1e-5, err_msg=task)


@pytest.mark.parametrize("task", data.REGRESSION)
def test_regression_labels_are_in_standard_deviations(splits, task):
    values = joined(splits)[1][task].astype(np.float64)
    assert values.mean() == pytest.approx(0, abs=1e-5)
    assert values.std() == pytest.approx(1, abs=1e-5)


def test_labels_of_drawings_worked_out_by_hand():
    # A full stroke that leans right, one that leans left, and a short one high up on the left.
    leans_right, leans_left, high = images = np.zeros((3, 8, 8))
    for row in range(8):
        leans_right[row, 7 - row] = leans_left[row, row] = 1.0
    high[0:2, 1] = 1.0
    labels = data.make_labels(images, np.array([7, 9, 0]))
    assert [labels[task].tolist() for task in ANSWERS] == [
        [0, 0, 1],
        [1, 1, 0],
        [1, 0, 0],
        [0, 1, 1],
        [0, 1, 1],
    ]
    # Half of the ink of both long strokes is on the left, which is not more than half.
    assert labels["left_heavy"].tolist() == [0, 0, 1]
    # Ink 8, 8 and 2: mean 6, standard deviation sqrt(8).
    np.testing.assert_allclose(labels["ink"], np.array([2, 2, -4]) / np.sqrt(8), rtol=1e-6)
    # Covariance of x and y over the variance of y: 1, -1 and 0, standard deviation sqrt(2 / 3).
    np.testing.assert_allclose(labels["slant"], np.array([1, -1, 0]) * np.sqrt(1.5), atol=1e-6)
    # Centres 0, 0 and 3 above the middle: mean 1, standard deviation sqrt(2).
    np.testing.assert_allclose(labels["height"], np.array([-1, -1, 2]) / np.sqrt(2), rtol=1e-6)


def test_every_class_is_in_every_split(splits):
    for split in SPLITS:
        for task in data.CLASSIFICATION:
            assert set(splits[split][1][task].ravel()) == {0.0, 1.0}, f"{task} in {split}"


def test_the_same_seed_gives_the_same_splits(splits):
    again = data.load()
    for split in SPLITS:
        np.testing.assert_array_equal(again[split][0], splits[split][0])
        for task in data.TASKS:
            np.testing.assert_array_equal(again[split][1][task], splits[split][1][task])


def test_another_seed_gives_other_splits_of_the_same_images(splits):
    other = data.load(seed=1)
    assert not np.array_equal(other["train"][0], splits["train"][0])
    found, wanted = ({image.tobytes() for image in joined(one)[0]} for one in (other, splits))
    assert found == wanted


def test_fewer_training_images_are_the_first_of_more(splits):
    few = data.load(num_train=20)
    np.testing.assert_array_equal(few["train"][0], splits["train"][0][:20])
    for task in data.TASKS:
        np.testing.assert_array_equal(few["train"][1][task], splits["train"][1][task][:20])


@pytest.mark.parametrize(
    ("num_train", "num_validation"), [(0, 500), (300, 0), (-1, 500), (1297, 500), (1, 1796)]
)
def test_an_empty_split_is_refused(num_train, num_validation):
    message = (
        "`num_train` and `num_validation` should leave some of the 1797 images for the test. "
        f"Received: num_train={num_train}, num_validation={num_validation}."
    )
    with pytest.raises(ValueError, match=re.escape(message)):
        data.load(num_train, num_validation)
