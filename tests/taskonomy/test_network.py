"""Networks of Taskonomy: parameters, counted layer by layer, and training on small files."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from parameters import count, draw_nothing
from taskonomy_files import SPLITS, make_files, write

import tag_keras
from taskonomy import network, xception
from taskonomy.data import Taskonomy
from taskonomy.domains import TASKS
from taskonomy.xception_mtan import mtan_encoder

SMALL = (4, 6, 8, 10, 12)


def encoder_parameters(widths):
    """Trainable parameters, from the table of layers; a normalization has two by channel."""
    first, second, a, b, c = widths

    def separable(inputs, outputs):
        return 9 * inputs + inputs * outputs + 2 * outputs

    def halving(inputs, outputs):
        shortcut = inputs * outputs + 2 * outputs
        # The convolution of 2x2 that halves has a bias.
        last = 4 * outputs * outputs + outputs
        return shortcut + separable(inputs, outputs) + separable(outputs, outputs) + last

    two = 27 * first + 2 * first + 9 * first * second + 2 * second
    blocks = halving(second, a) + halving(a, b) + halving(b, c) + 8 * 3 * separable(c, c)
    return two + blocks, separable(c, 512)


def decoder_parameters(widths, channels):
    """Trainable parameters; every convolution has a bias."""
    total, inputs = 0, 512
    for number, width in enumerate(widths):
        total += 4 * inputs * width + width + 2 * width
        if number < 3:
            total += 9 * width * width + width + 2 * width
        inputs = width
    return total + 9 * inputs * channels + channels


# No published number: from the layers and widths of tstandley/taskgrouping and TAG's patch of it.
@pytest.mark.parametrize(
    ("width", "encoder", "top"),
    [("full", 16_467_296, 380_312), ("half", 8_237_416, 267_776), ("wide", 36_901_812, 569_956)],
)
def test_parameters_of_the_encoders(monkeypatch, width, encoder, top):
    draw_nothing(monkeypatch)
    assert encoder_parameters(xception.WIDTHS[width]) == (encoder, top)
    assert count(xception.xception_encoder(32, xception.WIDTHS[width])) == encoder + top


def test_the_full_encoder_has_the_multiplications_that_standley_gives(monkeypatch):
    draw_nothing(monkeypatch)
    # "Large (6.4 billion multiply-adds)" in the slides of Standley et al. 2020, at 256x256 pixels.
    total = 0
    for layer in xception.xception_encoder(256).layers:
        pixels = int(np.prod(layer.output.shape[1:3]))
        if isinstance(layer, keras.layers.Conv2D):
            total += pixels * int(np.prod(layer.kernel.shape))
        elif isinstance(layer, keras.layers.SeparableConv2D):
            total += pixels * sum(int(np.prod(kernel.shape)) for kernel in layer.weights)
    assert round(total / 1e9, 1) == 6.4


def test_the_shortcut_takes_every_other_pixel():
    x = keras.Input((8, 8, 3))
    model = keras.Model(x, xception.xception_block(x, 1, SMALL))
    shapes = {type(layer).__name__: layer.output.shape for layer in model.layers}
    assert shapes["MaxPooling2D"] == (None, 4, 4, 3)
    pixels = np.random.default_rng(0).normal(size=(1, 8, 8, 3)).astype("float32")
    (pooling,) = (one for one in model.layers if isinstance(one, keras.layers.MaxPooling2D))
    np.testing.assert_array_equal(pooling(pixels), pixels[:, ::2, ::2])


@pytest.mark.parametrize("decoder", ["small", "large"])
@pytest.mark.parametrize("channels", [1, 3, 18])
def test_parameters_of_the_decoders(monkeypatch, decoder, channels):
    draw_nothing(monkeypatch)
    model = xception.xception_decoder(channels, "one", 32, xception.DECODERS[decoder])
    assert count(model) == decoder_parameters(xception.DECODERS[decoder], channels)


def test_the_layers_are_those_of_the_original():
    model = xception.xception_encoder(64, SMALL)
    shapes = [layer.output.shape[1:] for layer in model.layers if layer.name.startswith("block")]
    assert shapes == [(16, 16, 8), (8, 8, 10), (4, 4, 12), *[(4, 4, 12)] * 8]
    assert model.output.shape == (None, 4, 4, 512)
    kinds = [type(layer).__name__ for layer in model.layers]
    # Two, and two times in each of three blocks: a shortcut, and what halves.
    assert kinds.count("Conv2D") == 2 + 3 * 2
    assert kinds.count("SeparableConv2D") == 3 * 2 + 8 * 3
    # After the two convolutions; one in the first block, two in the next two; and the last.
    assert kinds.count("ReLU") == 2 + 1 + 2 * 2 + 8 * 3 + 1


@pytest.mark.slow
def test_kernels_start_with_the_deviations_of_the_original():
    # sqrt(2 / (size * size * channels of the output)), also for convolutions by channel.
    keras.utils.set_random_seed(0)
    model = xception.xception_encoder(32, (32, 64, 64, 64, 256))
    layer = [one for one in model.layers if isinstance(one, keras.layers.SeparableConv2D)][-1]
    depthwise, pointwise = (weight.numpy() for weight in layer.weights)
    assert depthwise.std() == pytest.approx(np.sqrt(2 / (9 * 256)), rel=0.1)
    assert pointwise.std() == pytest.approx(np.sqrt(2 / 256), rel=0.05)
    first = model.layers[2].kernel.numpy()
    assert first.std() == pytest.approx(np.sqrt(2 / (9 * 32)), rel=0.1)
    # Uniform in +-1 / sqrt(4 * channels of the output).
    upward = xception.xception_decoder(1, "one", 32).layers[1].kernel.numpy()
    assert np.abs(upward).max() == pytest.approx(1 / np.sqrt(4 * 128), rel=0.01)
    assert upward.std() == pytest.approx(1 / np.sqrt(4 * 128 * 3), rel=0.05)


def test_the_first_convolution_is_padded_on_both_sides():
    # An image with one bright pixel in the corner, and kernels that are 1 in their middle only:
    # the output's corner sees it, as with PyTorch's padding of 1.
    model = xception.xception_encoder(32, SMALL)
    convolution = model.layers[2]
    kernel = np.zeros(convolution.kernel.shape, "float32")
    kernel[1, 1] = 1.0
    convolution.kernel.assign(kernel)
    image = np.zeros((1, 32, 32, 3), "float32")
    image[0, 0, 0] = 1.0
    output = keras.Model(model.input, convolution.output)(image).numpy()
    assert output.shape == (1, 16, 16, 4)
    assert (output[0, 0, 0] == 3.0).all()
    assert output.sum() == 12.0


def small_encoder(tasks):
    # Four blocks instead of eleven: every kind is among them.
    return xception.xception_encoder(32, SMALL, num_blocks=4)


@pytest.fixture
def small_decoders(monkeypatch):
    monkeypatch.setitem(xception.DECODERS, "small", (8, 8, 4, 4))


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    root = write(tmp_path_factory.mktemp("taskonomy"), make_files(), "{building}/{domain}")
    return Taskonomy(root, buildings=SPLITS, image_size=32)


@pytest.mark.slow
def test_a_model_is_trained_evaluated_saved_and_loaded(small_decoders, data, tmp_path):
    tasks = ("segment_semantic", "normal")
    # Few steps are made sooner than a graph of them.
    model = network.build_model(tasks, image_size=32, build_encoder=small_encoder, run_eagerly=True)
    train = data.batches("train", 2, shuffle=True).take(1)
    before = [variable.numpy() for variable in model.encoder.trainable_variables]
    history = model.fit(train, shuffle=False, verbose=0).history
    after = [variable.numpy() for variable in model.encoder.trainable_variables]
    assert all((one != other).any() for one, other in zip(before, after, strict=True))
    assert all(np.isfinite(values).all() for values in history.values())
    images, labels = next(iter(data.batches("test", 3)))
    logs = model.evaluate(images, labels, batch_size=3, return_dict=True, verbose=0)
    path = tmp_path / "model.keras"
    model.save(path)
    again = keras.models.load_model(path)
    again.run_eagerly = True
    assert again.evaluate(images, labels, batch_size=3, return_dict=True, verbose=0) == logs
    assert again.optimizer.penalty == 1e-4


@pytest.mark.slow
def test_all_tasks_have_outputs_of_their_channels(small_decoders):
    model = network.build_model(TASKS, image_size=32, build_encoder=small_encoder)
    assert model.tasks == TASKS
    outputs = model(keras.Input((32, 32, 3)))
    shapes = {task: output.shape[1:] for task, output in outputs.items()}
    assert shapes["segment_semantic"] == (32, 32, 18)
    assert shapes["normal"] == (32, 32, 3)
    assert {shapes[task] for task in TASKS[1:] if task != "normal"} == {(32, 32, 1)}


@pytest.mark.slow
def test_affinities_of_all_tasks_are_measured_in_training(monkeypatch, data):
    # One block and decoders of two steps: five tasks have many layers, which the probes run often.
    monkeypatch.setattr(xception, "FACTOR", 4)
    monkeypatch.setattr(xception, "FEATURES", 8)
    monkeypatch.setitem(xception.DECODERS, "small", (8, 4))
    model = network.build_model(
        TASKS,
        image_size=32,
        build_encoder=lambda tasks: xception.xception_encoder(32, SMALL, num_blocks=1),
        affinity=tag_keras.LookaheadAffinity(every=1),
        run_eagerly=True,
    )
    train = data.batches("train", 2, shuffle=True).take(1)
    validation = data.batches("validation", 2)
    history = model.fit(train, validation_data=validation, shuffle=False, verbose=0).history
    assert {f"val_{task}_loss" for task in TASKS} < {*history}
    assert all(np.isfinite(values).all() for values in history.values())
    affinity = model.get_affinity()
    assert affinity.tasks == TASKS
    assert np.isfinite(affinity.mean).all()


@pytest.mark.slow
def test_the_original_divides_the_encoders_gradients(small_decoders, monkeypatch):
    monkeypatch.setitem(xception.WIDTHS, "half", SMALL)
    scales = []

    def encoder_of(image_size, widths, gradient_scale):
        scales.append(gradient_scale)
        return xception_encoder(image_size, widths, gradient_scale, num_blocks=3)

    xception_encoder = xception.xception_encoder
    monkeypatch.setattr(xception, "xception_encoder", encoder_of)

    def gradients(**options):
        keras.utils.set_random_seed(0)
        model = network.build_model("dk", width="half", image_size=32, **options)
        images = tf.constant(np.random.default_rng(0).random((2, 32, 32, 3)), "float32")
        with tf.GradientTape() as tape:
            outputs = model(images, training=False)
            loss = tf.add_n([tf.reduce_mean(output**2) for output in outputs.values()])
        encoder, heads = model.encoder.trainable_variables, model.heads["keypoints2d"]
        return float(loss), tape.gradient(loss, [encoder, heads.trainable_variables])

    loss, (encoder, head) = gradients()
    loss_scaled, (encoder_scaled, head_scaled) = gradients(reproduce_original=True)
    assert scales == [1.0, pytest.approx(1 / np.sqrt(2))]
    assert loss_scaled == pytest.approx(loss, rel=1e-5)
    for one, other in zip(encoder, encoder_scaled, strict=True):
        np.testing.assert_allclose(one / np.sqrt(2), other, rtol=1e-3, atol=1e-6)
    for one, other in zip(head, head_scaled, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-3, atol=1e-6)


def test_the_scaling_of_gradients_is_saved_and_loaded():
    layer = xception.GradientScale(0.5)
    again = keras.layers.deserialize(keras.layers.serialize(layer))
    assert again.scale == 0.5


@pytest.mark.slow
def test_mtan(small_decoders, tmp_path):
    def build_encoder(tasks):
        return mtan_encoder(tasks, 32, SMALL)

    model = network.build_model("nk", image_size=32, build_encoder=build_encoder)
    # Five modules of attention for each task.
    kinds = [type(layer).__name__ for layer in model.encoder.layers]
    assert kinds.count("TaskAttention") == 10
    images = np.random.default_rng(0).random((1, 32, 32, 3)).astype("float32")
    with tf.GradientTape() as tape:
        features = model.encoder(images, training=True)
        loss = tf.reduce_sum(features["normal"] ** 2)
    assert {task: tuple(one.shape) for task, one in features.items()} == dict.fromkeys(
        model.tasks, (1, 2, 2, 512)
    )
    variables = model.encoder.trainable_variables
    reached = [gradient is not None for gradient in tape.gradient(loss, variables)]
    # The normals' features depend on all but the attention of the other task.
    others = len(variables) - sum(reached)
    modules = [one for one in model.encoder.layers if type(one).__name__ == "TaskAttention"]
    assert others == sum(len(one.trainable_variables) for one in modules) // 2
    model.encoder.save(tmp_path / "encoder.keras")
    again = keras.models.load_model(tmp_path / "encoder.keras")
    expected = model.encoder(images, training=False)["normal"]
    np.testing.assert_array_equal(again(images, training=False)["normal"], expected)


def test_errors():
    with pytest.raises(ValueError, match="`image_size` should be divisible by 16, because the enc"):
        network.build_model("dn", image_size=40)
    with pytest.raises(ValueError, match="`width` should be one of full, half, wide"):
        network.build_model("dn", width="double")
    with pytest.raises(ValueError, match="`decoder` should be one of small, large"):
        network.build_model("dn", decoder="tiny")
    with pytest.raises(ValueError, match="`tasks` should be some of Taskonomy's"):
        network.build_model(["depth"])
    with pytest.raises(ValueError, match="`reproduce_original` should be False with a `build_enc"):
        network.build_model("dn", reproduce_original=True, build_encoder=small_encoder)
    with pytest.raises(ValueError, match="`widths` should be five numbers of channels"):
        xception.xception_encoder(32, (1, 2, 3))
