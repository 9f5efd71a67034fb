import keras
import numpy as np
import pytest
import tensorflow as tf

import tag_keras
from taskonomy import losses
from taskonomy.domains import TASKS


def test_absolute_error_over_the_known_values():
    loss = losses.MaskedAbsoluteError()
    labels = np.array([[[[1.0], [np.nan]], [[2.0], [np.nan]]]], "float32")
    predictions = tf.constant([[[[3.0], [9.0]], [[2.5], [np.inf]]]])
    # (|1 - 3| + |2 - 2.5|) / 2
    assert float(loss(labels, predictions)) == pytest.approx(1.25)
    with tf.GradientTape() as tape:
        tape.watch(predictions)
        value = loss(labels, predictions)
    gradient = tape.gradient(value, predictions).numpy().ravel()
    np.testing.assert_allclose(gradient, [0.5, 0.0, 0.5, 0.0])
    assert float(loss(labels * np.nan, predictions)) == 0.0


def test_without_missing_labels_it_is_the_mean_absolute_error():
    rng = np.random.default_rng(0)
    labels, predictions = rng.normal(size=(2, 3, 4, 4, 3)).astype("float32")
    expected = keras.losses.MeanAbsoluteError()(labels, predictions)
    assert float(losses.MaskedAbsoluteError()(labels, predictions)) == pytest.approx(
        float(expected)
    )


def test_cross_entropy_over_the_known_pixels():
    rng = np.random.default_rng(0)
    classes = rng.integers(0, 5, size=(2, 4, 4))
    logits = rng.normal(size=(2, 4, 4, 5)).astype("float32")
    known = classes != 3
    expected = keras.losses.SparseCategoricalCrossentropy(from_logits=True)(
        classes[known], logits[known]
    )
    loss = losses.MaskedCrossEntropy(ignored=3)
    assert float(loss(classes, logits)) == pytest.approx(float(expected), rel=1e-6)
    assert float(loss(np.full_like(classes, 3), logits)) == 0.0
    assert losses.MaskedCrossEntropy.from_config(loss.get_config()).ignored == 3


def labels_and_predictions(shape=(3, 6, 5, 2), part=0.3):
    """Random values, a part of the labels NaN, and the last image without any."""
    rng = np.random.default_rng(1)
    labels, predictions = rng.normal(size=(2, *shape)).astype("float32")
    labels[rng.random(shape) < part] = np.nan
    labels[-1] = np.nan
    return labels, predictions


def shifted_error_slowly(labels, predictions, over):
    """By definition, one image, shift and pixel after the other."""
    number, height, width, channels = labels.shape
    of_images = []
    for image in range(number):
        of_shifts = []
        for row in (-1, 0, 1):
            for column in (-1, 0, 1):
                total, count = 0.0, 0
                for y in range(1, height - 1):
                    for x in range(1, width - 1):
                        for channel in range(channels):
                            label = labels[image, y, x, channel]
                            known = not np.isnan(label)
                            count += known or over == "all"
                            if known:
                                prediction = predictions[image, y + row, x + column, channel]
                                total += abs(float(label) - float(prediction))
                of_shifts.append(total / max(count, 1))
        of_images.append(min(of_shifts))
    return np.mean(of_images)


@pytest.mark.parametrize("over", ["all", "known"])
def test_the_error_at_the_best_of_nine_places_is_that_of_the_definition(over):
    labels, predictions = labels_and_predictions()
    value = losses.ShiftedAbsoluteError(over)(labels, predictions)
    assert float(value) == pytest.approx(shifted_error_slowly(labels, predictions, over), rel=1e-6)


def test_what_is_right_and_one_pixel_beside_its_place_costs_nothing():
    rng = np.random.default_rng(0)
    image = rng.normal(size=(1, 9, 9, 1)).astype("float32")
    loss = losses.ShiftedAbsoluteError()
    for row in (-1, 0, 1):
        for column in (-1, 0, 1):
            moved = np.roll(image, (row, column), (1, 2))
            assert float(loss(image, moved)) == 0.0
    assert float(loss(image, np.roll(image, 2, 1))) > 0.5
    # The shift is each image's own: of two that are moved to both sides, both cost nothing.
    two = np.concatenate([image, image])
    moved = np.concatenate([np.roll(image, 1, 1), np.roll(image, -1, 2)])
    assert float(loss(two, moved)) == 0.0


def test_over_all_values_unknown_ones_count_as_right():
    labels = np.array([[[[1.0], [np.nan]], [[2.0], [np.nan]]]], "float32")
    predictions = np.array([[[[3.0], [9.0]], [[2.5], [0.0]]]], "float32")
    # (|1 - 3| + |2 - 2.5|) / 4
    loss = losses.MaskedAbsoluteError("all")
    assert float(loss(labels, predictions)) == pytest.approx(0.625)


def test_gradients_are_finite_and_zero_where_nothing_is_known():
    labels, predictions = labels_and_predictions()
    unknown = np.isnan(labels)
    predictions[-1] = np.inf
    predictions = tf.constant(predictions)
    for loss in (
        losses.ShiftedAbsoluteError(),
        losses.ShiftedAbsoluteError("known"),
        losses.MaskedAbsoluteError("all"),
        losses.MaskedAbsoluteError(),
    ):
        with tf.GradientTape() as tape:
            tape.watch(predictions)
            value = loss(labels, predictions)
        gradient = tape.gradient(value, predictions).numpy()
        assert np.isfinite(gradient).all()
        assert (gradient[-1] == 0).all()
        assert (gradient[:-1] != 0).any()
    assert (gradient[unknown] == 0).all()


def model_of(loss):
    encoder = keras.layers.Conv2D(2, 1, kernel_initializer="ones")
    heads = {"a": keras.layers.Conv2D(2, 1, kernel_initializer="ones")}
    model = tag_keras.MultiTaskModel(encoder, heads)
    model.compile("sgd", loss)
    return model


@pytest.mark.slow
@pytest.mark.parametrize(
    "loss",
    [
        losses.ShiftedAbsoluteError(),
        losses.MaskedAbsoluteError("all"),
        losses.MaskedAbsoluteError(),
    ],
)
def test_a_multi_task_model_has_the_losses_of_whole_batches(loss):
    # In one batch, where the number of known pixels is that of the batch.
    labels, images = labels_and_predictions()
    model = model_of(loss)
    logs = model.evaluate(images, {"a": labels}, batch_size=3, return_dict=True, verbose=0)
    assert logs["a_loss"] == pytest.approx(
        float(loss(labels, model.predict(images, verbose=0)["a"]))
    )
    history = model.fit(images, {"a": labels}, batch_size=3, verbose=0).history
    assert history["a_loss"][0] == pytest.approx(logs["a_loss"])
    assert np.isfinite(model.get_weights()[0]).all()


def test_a_multi_task_model_has_the_cross_entropy_of_known_pixels():
    rng = np.random.default_rng(0)
    classes, images = rng.integers(0, 2, (3, 4, 4)), rng.normal(size=(3, 4, 4, 2)).astype("float32")
    model = model_of(losses.MaskedCrossEntropy())
    logs = model.evaluate(images, {"a": classes}, batch_size=3, return_dict=True, verbose=0)
    logits = model.predict(images, verbose=0)["a"]
    expected = keras.losses.SparseCategoricalCrossentropy(from_logits=True)(
        classes[classes != 0], logits[classes != 0]
    )
    assert logs["a_loss"] == pytest.approx(float(expected), rel=1e-6)


def test_losses_of_the_papers():
    # tstandley/taskgrouping: cross-entropy without class 0; "rotate" where there is geometry.
    names = {task: type(loss).__name__ for task, loss in losses.build_losses(TASKS).items()}
    assert names == {
        "segment_semantic": "MaskedCrossEntropy",
        "depth_zbuffer": "ShiftedAbsoluteError",
        "normal": "ShiftedAbsoluteError",
        "edge_texture": "MaskedAbsoluteError",
        "keypoints2d": "MaskedAbsoluteError",
    }
    plain = losses.build_losses(["edge_occlusion", "normal"], shifts=False, over="known")
    assert {type(loss).__name__ for loss in plain.values()} == {"MaskedAbsoluteError"}
    assert {loss.over for loss in plain.values()} == {"known"}


@pytest.mark.parametrize(
    "loss",
    [
        losses.ShiftedAbsoluteError("known"),
        losses.MaskedAbsoluteError("all"),
        losses.MaskedCrossEntropy(3),
    ],
)
def test_losses_are_saved_and_loaded(loss):
    again = keras.losses.deserialize(keras.losses.serialize(loss))
    assert type(again) is type(loss)
    assert again.get_config() == loss.get_config()


def test_errors_of_losses():
    with pytest.raises(
        ValueError, match=r'`over` should be "all" or "known"\. Received: over=.some'
    ):
        losses.MaskedAbsoluteError("some")
    with pytest.raises(ValueError, match='`over` should be "all" or "known"'):
        losses.ShiftedAbsoluteError("some")
