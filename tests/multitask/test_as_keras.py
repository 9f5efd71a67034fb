"""The same random models, losses, metrics and weights as a plain Keras model, log by log."""

import keras
import numpy as np
import pytest

import tag_keras

NUM = 8  # Examples.


class OwnCall(keras.losses.Loss):
    """A loss whose `__call__` does something else than its `call`."""

    def call(self, y_true, y_pred):
        return keras.ops.mean(keras.ops.abs(y_true - y_pred), -1)

    def __call__(self, y_true, y_pred, sample_weight=None):
        return 3 * super().__call__(y_true, y_pred, sample_weight) + 1


class OnlyCall(keras.losses.Loss):
    """A loss that has no `call`."""

    def __call__(self, y_true, y_pred, sample_weight=None):
        return keras.ops.mean((y_true - y_pred) ** 4)


class Scale(keras.losses.Loss):
    """A loss with a state that moves in training and in evaluation."""

    def __init__(self):
        super().__init__()
        self.scale = keras.Variable(1.0, trainable=False)

    def call(self, y_true, y_pred):
        errors = keras.ops.mean((y_true - y_pred) ** 2, -1)
        self.scale.assign(0.9 * self.scale + 0.1 * keras.ops.mean(errors))
        return errors / self.scale


class ByClass(keras.losses.Loss):
    """A loss of the user's that leaves the reduction to Keras."""

    def call(self, y_true, y_pred):
        return keras.ops.mean(keras.ops.logaddexp(y_true - y_pred, 0.0), -1)


class Largest(keras.metrics.Metric):
    """A metric of the user's, with weights."""

    def __init__(self):
        super().__init__(name="largest")
        self.largest = self.add_variable((), "zeros")

    def update_state(self, y_true, y_pred, sample_weight=None):
        self.largest.assign(keras.ops.maximum(self.largest, keras.ops.max(y_pred)))

    def result(self):
        return self.largest + 0.0


def cubic(y_true, y_pred):
    return keras.ops.mean(keras.ops.abs(y_true - y_pred) ** 3, -1)


def of_batch(y_true, y_pred):
    return keras.ops.max(keras.ops.abs(y_true - y_pred))


def lastStep(y_true, y_pred):
    return keras.ops.mean(keras.ops.abs(y_true[:, -1] - y_pred[:, -1]), -1)


def reduced(loss, **options):
    """Makes a loss with one of the reductions."""
    reductions = ("sum_over_batch_size", "sum", "mean_with_sample_weight")
    return [lambda one=one: loss(reduction=one, **options) for one in reductions]


def lazily(*given):
    return [lambda one=one: one for one in given]


# Keras cannot weigh it.
(OF_BATCH,) = lazily(of_batch)
L, M = keras.losses, keras.metrics
ERRORS = [
    *lazily("mse", "mae", "huber", "log_cosh", "mean_squared_logarithmic_error", cubic, of_batch),
    *reduced(L.MeanSquaredError),
    *reduced(L.Huber, delta=0.3),
    OwnCall,
    OnlyCall,
    Scale,
    ByClass,
]
DISTANCES = [
    *lazily("mse", "mae", cubic),
    OF_BATCH,
    *(lambda one=one: one() for one in (M.RootMeanSquaredError, M.MeanAbsoluteError, Largest)),
]
CHANCES = [
    *lazily("binary_crossentropy", "hinge", "poisson"),
    *reduced(L.BinaryCrossentropy, label_smoothing=0.1),
    *reduced(L.BinaryFocalCrossentropy),
    OwnCall,
]
HITS = [
    *lazily("accuracy", "binary_accuracy", "mae"),
    lambda: M.AUC(thresholds=[0.3, 0.6], name="auc"),
    lambda: M.Precision(name="precision"),
    lambda: M.Recall(name="recall"),
    lambda: M.BinaryAccuracy(threshold=0.4),
]
# By kind of head: units, activation, losses, metrics.
KINDS = {
    "value": (1, None, ERRORS, DISTANCES),
    "vector": (
        3,
        None,
        [*ERRORS, L.CosineSimilarity],
        [*DISTANCES, M.R2Score, M.CosineSimilarity],
    ),
    "chance": (1, "sigmoid", CHANCES, HITS),
    "labels": (
        4,
        "sigmoid",
        CHANCES,
        [
            *HITS[1:],
            lambda: M.AUC(thresholds=[0.3, 0.6], multi_label=True, num_labels=4, name="by_label"),
            lambda: M.Precision(class_id=2, name="of_class"),
            lambda: M.F1Score(threshold=0.5),
        ],
    ),
    "class": (
        3,
        "softmax",
        [
            *lazily("sparse_categorical_crossentropy", "crossentropy"),
            L.SparseCategoricalCrossentropy,
        ],
        [*lazily("accuracy"), lambda: M.SparseTopKCategoricalAccuracy(k=2)],
    ),
    "one-hot": (
        3,
        "softmax",
        [
            *lazily("categorical_crossentropy", "kl_divergence", "crossentropy"),
            *reduced(L.CategoricalCrossentropy, label_smoothing=0.2),
            L.CategoricalFocalCrossentropy,
        ],
        [*lazily("accuracy", "categorical_crossentropy"), M.F1Score, HITS[3]],
    ),
    "series": (
        2,
        None,
        [*lazily("mse", "mae", cubic, lastStep), L.Huber],
        [*DISTANCES[:4], *lazily(lastStep)],
    ),
}


def draw_labels(rng, kind):
    if kind == "class":
        return rng.integers(3, size=(NUM, 1) if rng.random() < 0.5 else NUM)
    if kind == "one-hot":
        return np.eye(3, dtype="float32")[rng.integers(3, size=NUM)]
    if kind in ("chance", "labels"):
        size = (NUM, KINDS[kind][0])
        return rng.integers(2, size=size).astype(rng.choice(["float32", "int32"]))
    shape = {"series": (NUM, 6, 2), "vector": (NUM, 3)}.get(kind)
    shape = shape or ((NUM, 1) if rng.random() < 0.5 else (NUM,))
    return np.abs(rng.normal(size=shape)).astype("float32")


def deal(options, kind, index):
    """Each option of a kind of head comes once in so many cases, in an order of the kind's own."""
    rng = np.random.default_rng([*kind.encode(), index // len(options)])
    return options[rng.permutation(len(options))[index % len(options)]]


def draw_case(seed):
    """A random model as a function, arguments of `compile` as a function, and data."""
    rng = np.random.default_rng(seed)
    # Every other case has weights. Keras multiplies values (B, 6) of a series by weights (B,) along
    # the wrong axis.
    is_weighted = seed % 2 == 1
    left_out = {"series"} if is_weighted else set()
    if seed >= 20:
        # All of their losses have come.
        left_out |= {"series", "class"}
    kinds = rng.permutation([kind for kind in KINDS if kind not in left_out])
    tasks = {f"t{index}": kind for index, kind in enumerate(kinds)}
    is_deep, regularizer = rng.random() < 0.5, rng.choice([None, "l2"])

    def network():
        keras.utils.set_random_seed(seed)
        inputs = keras.Input((6, 4))
        trunk = keras.layers.Dense(5, "tanh", kernel_regularizer=regularizer)(inputs)
        if is_deep:
            trunk = keras.layers.BatchNormalization()(trunk)
        features = keras.layers.Flatten()(trunk)
        outputs = {}
        for task, kind in tasks.items():
            units, activation = KINDS[kind][:2]
            head = keras.layers.Dense(units, activation)
            outputs[task] = head(trunk if kind == "series" else features)
        return keras.Model(inputs, outputs)

    def some(options):
        number = min(len(options), rng.integers(0, 3))
        return list(rng.choice(np.array(options, object), size=number, replace=False))

    losses = {task: deal(KINDS[kind][2], kind, seed // 2) for task, kind in tasks.items()}
    metrics = {task: some(KINDS[kind][3]) for task, kind in tasks.items()}
    weighted = {
        task: [one for one in some(KINDS[kind][3]) if one is not OF_BATCH]
        for task, kind in tasks.items()
    }
    factors = {task: float(rng.uniform(0.2, 3)) for task in tasks} if rng.random() < 0.5 else None

    def options():
        def make(lists):
            return {task: [one() for one in several] for task, several in lists.items()}

        return {
            "loss": {task: make() for task, make in losses.items()},
            "metrics": make(metrics),
            "weighted_metrics": make(weighted),
            "loss_weights": factors,
        }

    x = rng.normal(size=(NUM, 6, 4)).astype("float32")
    y = {task: draw_labels(rng, kind) for task, kind in tasks.items()}
    weights = None
    if is_weighted:
        weights = {task: rng.uniform(0.2, 2, size=NUM).astype("float32") for task in tasks}
    return network, options, (x, y, weights)


def logs_of(model, options, data, batches):
    """Logs of a step with each of the batches, which are slices, and of a test of all examples."""
    model.compile(keras.optimizers.SGD(0.02), run_eagerly=True, **options)

    def part(rows):
        x, y, weights = keras.tree.map_structure(
            lambda one: None if one is None else one[rows], data
        )
        return {"x": x, "y": y, "sample_weight": weights, "return_dict": True}

    for rows in batches:
        logs = model.train_on_batch(**part(rows))
    model.reset_metrics()
    tested = model.test_on_batch(**part(slice(NUM)))
    return {**logs, **{f"tested {name}": value for name, value in tested.items()}}


@pytest.mark.parametrize(
    "seeds",
    [
        range(4),
        # Vectors have the most losses: 18, each without and with weights.
        *(pytest.param(range(at, at + 8), marks=pytest.mark.slow) for at in range(4, 36, 8)),
    ],
    ids=lambda seeds: f"{seeds[0]}-{seeds[-1]}",
)
def test_logs_are_those_of_keras(seeds):
    for seed in seeds:
        network, options, data = draw_case(seed)
        # What is added up over batches of two sizes, in two cases of eight.
        batches = (slice(0, 5), slice(5, NUM))[: 1 + (seed % 8 < 2)]
        model = network()
        start = model.get_weights()
        expected = logs_of(model, options(), data, batches)
        model.set_weights(start)
        twin = tag_keras.MultiTaskModel.from_functional(model)
        found = logs_of(twin, options(), data, batches)
        assert {*found} == {*expected}, seed
        for name, values in expected.items():
            close = {"rtol": 1e-5, "atol": 1e-5, "err_msg": f"seed {seed}: {name}"}
            np.testing.assert_allclose(found[name], values, **close)
