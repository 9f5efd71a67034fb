"""The cost of a probe, as ratios to a plain Keras training step.

    python -m benchmarks.probe_cost
    python -m benchmarks.probe_cost --network=recommender --batch_size=128

The network is the one of TAG's CelebA notebook (Fifty et al. 2021, arXiv 2109.04617): images
64x64x3, SGD with momentum, with 3, 9, 20 and 40 tasks. The recommender has embeddings of 20 ids,
three dense layers of 512, and heads with a layer of 64. The kinds of step are timed in turns, so
that a slow phase of the machine slows all of them; the spread is over the turns. Memory is the peak
of a process that makes two steps, less the peak of one that makes plain steps. The first step of
"between probes" is a probe, as in every training, so its memory and tracing include one. A hundred
steps with the default overhead are measured for nine tasks, after the probes that set their number.
"""

from __future__ import annotations

import os
from collections.abc import Callable

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np

import tag_keras
from benchmarks.measuring import (
    Figure,
    peak_megabytes,
    print_costs,
    run_apart,
    show,
    step_of,
    time_in_turns,
)
from benchmarks.options import Renamed, load_lazily, make_parser, numbers

keras, tf, network = map(load_lazily, ("keras", "tensorflow", "celeba.network"))

RATE, MOMENTUM = 5e-4, 0.9
CELEBA, RECOMMENDER = "celeba", "recommender"
# Of the recommender: ids of an example, their number, the length of an embedding, and units.
IDS, VOCABULARY, EMBEDDING, UNITS = 20, 1000, 16, (512, 512, 512)


def build_model(num_tasks: int, name: str) -> tag_keras.MultiTaskModel:
    tasks = [f"task_{index}" for index in range(num_tasks)]
    if name == CELEBA:
        heads = {task: network.build_head(task) for task in tasks}
        return tag_keras.MultiTaskModel(network.build_encoder(), heads)
    layers = keras.layers
    inputs = keras.Input((IDS,), dtype="int32")
    x = layers.Flatten()(layers.Embedding(VOCABULARY, EMBEDDING)(inputs))
    for units in UNITS:
        x = layers.Dense(units, "relu")(x)
    heads = {task: keras.Sequential([layers.Dense(64, "relu"), layers.Dense(2)]) for task in tasks}
    return tag_keras.MultiTaskModel(keras.Model(inputs, x), heads)


def optimizer() -> keras.optimizers.Optimizer:
    return keras.optimizers.SGD(RATE, momentum=MOMENTUM)


def loss() -> keras.losses.Loss:
    return keras.losses.CategoricalCrossentropy(from_logits=True)


def plain_step(num_tasks: int, name: str, batch: tuple) -> Callable[[], object]:
    """A training step of a functional Keras model with the same layers."""
    inputs = keras.Input(batch[0].shape[1:], dtype=batch[0].dtype)
    model = keras.Model(inputs, build_model(num_tasks, name)(inputs))
    model.compile(optimizer(), {task: loss() for task in batch[1]})
    return step_of(model, batch)


def our_step(
    num_tasks: int, name: str, batch: tuple, affinity: tag_keras.LookaheadAffinity
) -> Callable[[], object]:
    """A training step of a `MultiTaskModel`; with `every=1` it is always a probe."""
    model = build_model(num_tasks, name)
    model.compile(optimizer(), {task: loss() for task in batch[1]}, affinity=affinity)
    return step_of(model, batch)


def original_step(num_tasks: int, name: str, batch: tuple) -> Callable[[], object]:
    """A step with the same probe, by the original's algorithm.

    One persistent tape records all. Each task's gradient with respect to the encoder gives a
    lookahead with momentum by hand, and the joint step takes another backward pass, through encoder
    and heads.
    """
    model, apply, cross_entropy = build_model(num_tasks, name), optimizer(), loss()
    x, y = batch
    model(x)
    apply.build(model.trainable_variables)
    # The slots are in the order of the variables, and the encoder's come first.
    slots = apply.momentums[: len(model.encoder.trainable_variables)]
    affinities = tf.Variable(tf.zeros((num_tasks, num_tasks)))

    @tf.function
    def step() -> tf.Tensor:
        state = [tf.convert_to_tensor(v) for v in model.encoder.non_trainable_variables]
        shared = model.encoder.trainable_variables
        with tf.GradientTape(persistent=True) as tape:
            predictions = model(x, training=True)
            losses = [cross_entropy(y[task], predictions[task]) for task in model.tasks]
            total = tf.add_n(losses)
            gradients = [tape.gradient(one, shared) for one in losses]
        rows = []
        for gradient in gradients:
            moved = [
                v + MOMENTUM * slot - RATE * g
                for v, slot, g in zip(shared, slots, gradient, strict=True)
            ]
            features, _ = model.encoder.stateless_call(moved, state, x, training=True)
            after = [cross_entropy(y[task], model.heads[task](features)) for task in model.tasks]
            rows.append(1 - tf.stack(after) / tf.stack(losses))
        affinities.assign_add(tf.stack(rows))
        joint = tape.gradient(total, model.trainable_variables)
        apply.apply(joint, model.trainable_variables)
        return total

    return step


PLAIN, ORIGINAL, LOOKAHEAD = "plain Keras fit", "probe, the original's way", "lookahead probe"
TEN, HUNDRED = "ten steps, every=10", "a hundred steps, overhead=0.1"
KINDS = {
    PLAIN: plain_step,
    "between probes": lambda *given: our_step(*given, tag_keras.LookaheadAffinity(10**9)),
    LOOKAHEAD: lambda *given: our_step(*given, tag_keras.LookaheadAffinity(1)),
    "first-order probe": lambda *given: our_step(*given, tag_keras.FirstOrderAffinity(1)),
    "cosine probe": lambda *given: our_step(*given, tag_keras.CosineAffinity(1)),
    "feature probe": lambda *given: our_step(*given, tag_keras.FeatureAffinity(1)),
    TEN: lambda *given: several(10, our_step(*given, tag_keras.LookaheadAffinity(10))),
    HUNDRED: lambda *given: several(100, our_step(*given, tag_keras.LookaheadAffinity())),
    ORIGINAL: original_step,
}
STEPS = {TEN: 10, HUNDRED: 100}


def several(number: int, step: Callable[[], object]) -> Callable[[], object]:
    def steps() -> None:
        for _ in range(number):
            step()

    return steps


def make_batch(num_tasks: int, name: str, batch_size: int) -> tuple:
    rng = np.random.default_rng(0)
    if name == CELEBA:
        x = tf.constant(rng.uniform(size=(batch_size, 64, 64, 3)).astype("float32"))
    else:
        x = tf.constant(rng.integers(0, VOCABULARY, size=(batch_size, IDS)).astype("int32"))
    labels = rng.integers(0, 2, size=(num_tasks, batch_size))
    return x, {f"task_{index}": tf.one_hot(row, 2) for index, row in enumerate(labels)}


def peak_apart(kind: str, num_tasks: int, name: str, batch_size: int) -> float:
    """Peak memory, in MB, of a separate process that makes two steps."""
    options = [f"--peak_of={kind}", f"--num_tasks={num_tasks}", f"--batch_size={batch_size}"]
    options.append(f"--network={name}")
    return float(run_apart("benchmarks.probe_cost", options))


def report(
    num_tasks: int, times: dict[str, np.ndarray], tracing: dict[str, float], peaks: dict[str, float]
) -> None:
    ratios = {name: values / times[PLAIN] / STEPS.get(name, 1) for name, values in times.items()}
    megabytes = {name: peak - peaks[PLAIN] for name, peak in peaks.items()}
    print_costs(f"{num_tasks} tasks", ratios, tracing, megabytes)
    if ORIGINAL in times:
        figures = [
            Figure.of(name, "CPU time, in that of the original's way", values / times[ORIGINAL])
            for name, values in times.items()
            if "probe" in name and name not in (ORIGINAL, "between probes")
        ]
        show(f"{num_tasks} tasks", figures)


def main() -> None:
    parser = make_parser("benchmarks.probe_cost", __doc__)
    parser.add_argument("--num_tasks", type=numbers, default=[3, 9, 20, 40])
    parser.add_argument("--tasks", action=Renamed, now="--num_tasks")
    parser.add_argument("--batch_size", type=int, default=32)
    parser.add_argument("--turns", type=int, default=7)
    parser.add_argument("--seconds", type=float, default=2.0)
    parser.add_argument("--network", choices=(CELEBA, RECOMMENDER), default=CELEBA)
    parser.add_argument("--kinds", nargs="+", choices=KINDS, default=[*KINDS], help="default: all")
    parser.add_argument("--peak_of", choices=KINDS, help="print one kind's peak memory only, in MB")
    arguments = parser.parse_args()
    name = arguments.network
    keras.utils.set_random_seed(0)
    if arguments.peak_of:
        (num_tasks,) = arguments.num_tasks
        batch = make_batch(num_tasks, name, arguments.batch_size)
        step = KINDS[arguments.peak_of](num_tasks, name, batch)
        step()
        step()
        print(peak_megabytes())
        return
    for num_tasks in arguments.num_tasks:
        batch = make_batch(num_tasks, name, arguments.batch_size)
        kinds = [kind for kind in KINDS if kind in (PLAIN, *arguments.kinds)]
        if num_tasks != 9:
            kinds = [kind for kind in kinds if kind != HUNDRED]
        if num_tasks > 9 or name != CELEBA:
            # With more tasks, the graph of the original's algorithm takes minutes to trace. It
            # knows no embeddings.
            kinds = [kind for kind in kinds if kind != ORIGINAL]
        steps = {kind: KINDS[kind](num_tasks, name, batch) for kind in kinds}
        times, tracing = time_in_turns(steps, arguments.turns, arguments.seconds)
        peaks = {kind: peak_apart(kind, num_tasks, name, arguments.batch_size) for kind in kinds}
        report(num_tasks, times, tracing, peaks)


if __name__ == "__main__":
    main()
