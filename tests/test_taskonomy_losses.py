import keras
import numpy as np
import pytest
import tensorflow as tf

from taskonomy import losses


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
