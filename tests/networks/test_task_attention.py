import keras
import numpy as np
import pytest

import tag_keras


def features(channels, seed=0, size=(2, 4, 4)):
    rng = np.random.default_rng(seed)
    return rng.normal(size=(*size, channels)).astype("float32")


def count(layer):
    return sum(int(np.prod(variable.shape)) for variable in layer.trainable_variables)


# Two 1x1 convolutions with biases, from i to m to o channels, and two batch normalizations:
# i*m + m + 2m + m*o + o + 2o. With (256, 128, 128), 49,920 (MTAN's SegNet, second block).
@pytest.mark.parametrize(
    ("inputs", "width", "parameters"),
    [
        ([128, 128, 128], None, 49_920),
        ([256, 128], None, 49_920),
        ([64, 64], None, 8_576),
        ([64, 128], 32, 64 * 32 + 3 * 32 + 32 * 128 + 3 * 128),
    ],
)
def test_parameters(inputs, width, parameters):
    layer = tag_keras.TaskAttention(width)
    output = layer([features(channels) for channels in inputs])
    assert output.shape == (2, 4, 4, inputs[1])
    assert count(layer) == parameters


def test_a_mask_that_does_not_look_at_anything():
    # MTAN, eq. 2: a second normalization with gamma = 0 and beta = b gives sigmoid(b) * p.
    u, p, previous = features(5, 0), features(3, 1), features(4, 2)
    layer = tag_keras.TaskAttention()
    layer([u, p, previous])
    beta = np.array([-2.0, 0.0, 1.0], "float32")
    layer.second.normalization.gamma.assign(np.zeros(3))
    layer.second.normalization.beta.assign(beta)
    for training in (False, True):
        np.testing.assert_allclose(
            layer([u, p, previous], training=training), p / (1 + np.exp(-beta)), rtol=1e-6
        )


def test_the_mask_is_between_0_and_1_and_differs_by_channel_and_pixel():
    u, p = 3 * features(5), np.ones((2, 4, 4, 3), "float32")
    # Wide, so that no ReLU leaves a pixel with nothing.
    mask = np.array(tag_keras.TaskAttention(32)([u, p], training=True))
    assert (mask > 0).all()
    assert (mask < 1).all()
    assert len(np.unique(mask)) == mask.size


def test_the_mask_does_not_look_at_p():
    u, p, previous = features(5, 0), features(3, 1), features(4, 2)
    layer = tag_keras.TaskAttention()
    output = np.array(layer([u, p, previous]))
    np.testing.assert_allclose(layer([u, 2 * p, previous]), 2 * output, rtol=1e-6)
    np.testing.assert_array_equal(layer([u, 0 * p, previous]), 0 * p)
    for others in ([u + 1, p, previous], [u, p, previous + 1]):
        assert np.abs(layer(others) - output).max() > 1e-4


def test_the_mask_equals_its_formula():
    # With 1x1 convolutions, each pixel is a matrix product; with its initial statistics, 0 and 1,
    # a normalization divides by sqrt(1 + 1e-5).
    u, p, previous = features(5, 0), features(3, 1), features(4, 2)
    layer = tag_keras.TaskAttention(width=2)
    output = layer([u, p, previous])
    first, second = (one.convolution.kernel.numpy()[0, 0] for one in (layer.first, layer.second))
    hidden = np.maximum(np.concatenate([u, previous], -1) @ first / np.sqrt(1 + 1e-5), 0)
    expected = p / (1 + np.exp(-hidden @ second / np.sqrt(1 + 1e-5)))
    np.testing.assert_allclose(output, expected, rtol=1e-4, atol=1e-6)


def test_attention_is_saved_and_loaded(tmp_path):
    inputs = [keras.Input((4, 4, channels)) for channels in (5, 3, 4)]
    model = keras.Model(inputs, tag_keras.TaskAttention(2)(inputs))
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    x = [features(5, 0), features(3, 1), features(4, 2)]
    np.testing.assert_array_equal(model(x), loaded(x))


def test_inputs_that_do_not_fit_are_errors():
    u = features(5)
    message = r"The inputs of `TaskAttention` should be \[u, p\] or \[u, p, previous\]"
    with pytest.raises(ValueError, match=message):
        tag_keras.TaskAttention()([u])
    with pytest.raises(ValueError, match="should have the same height and width"):
        tag_keras.TaskAttention()([u, features(3, size=(2, 4, 2))])
    with pytest.raises(ValueError, match=r"`width` should be at least 1\. Received: width=0"):
        tag_keras.TaskAttention(0)
