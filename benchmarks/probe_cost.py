"""The cost of a probe, as ratios to a plain Keras training step.

    python -m benchmarks.probe_cost

The network is the one of TAG's CelebA notebook (Fifty et al. 2021, arXiv 2109.04617): images
64x64x3, SGD with momentum, with 3, 9, 20 and 40 tasks. The kinds of step are timed in turns, so
that a slow phase of the machine slows all of them; the spread is over the turns. Memory is the peak
of a process that makes two steps, less the peak of one that makes plain steps. The first step of
"between probes" is a probe, as in every training, so its memory and tracing include one.
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


def build_model(num_tasks: int) -> tag_keras.MultiTaskModel:
    names = [f"task_{index}" for index in range(num_tasks)]
    heads = {name: network.build_head(name) for name in names}
    return tag_keras.MultiTaskModel(network.build_encoder(), heads)


def optimizer() -> keras.optimizers.Optimizer:
    return keras.optimizers.SGD(RATE, momentum=MOMENTUM)


def loss() -> keras.losses.Loss:
    return keras.losses.CategoricalCrossentropy(from_logits=True)


def plain_step(num_tasks: int, batch: tuple) -> Callable[[], object]:
    """A training step of a functional Keras model with the same layers."""
    images = keras.Input((64, 64, 3))
    model = keras.Model(images, build_model(num_tasks)(images))
    model.compile(optimizer(), {task: loss() for task in batch[1]})
    return step_of(model, batch)


def our_step(
    num_tasks: int, batch: tuple, affinity: tag_keras.LookaheadAffinity
) -> Callable[[], object]:
    """A training step of a `MultiTaskModel`; with `every=1` it is always a probe."""
    model = build_model(num_tasks)
    model.compile(optimizer(), {task: loss() for task in batch[1]}, affinity=affinity)
    return step_of(model, batch)


def original_step(num_tasks: int, batch: tuple) -> Callable[[], object]:
    """A step with the same probe, by the original's algorithm.

    One persistent tape records all. Each task's gradient with respect to the encoder gives a
    lookahead with momentum by hand, and the joint step takes another backward pass, through encoder
    and heads.
    """
    model, apply, cross_entropy = build_model(num_tasks), optimizer(), loss()
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
TEN = "ten steps, every=10"
KINDS = {
    PLAIN: plain_step,
    "between probes": lambda *given: our_step(*given, tag_keras.LookaheadAffinity(10**9)),
    LOOKAHEAD: lambda *given: our_step(*given, tag_keras.LookaheadAffinity(1)),
    "first-order probe": lambda *given: our_step(*given, tag_keras.FirstOrderAffinity(1)),
    "cosine probe": lambda *given: our_step(*given, tag_keras.CosineAffinity(1)),
    TEN: lambda *given: ten_steps(our_step(*given, tag_keras.LookaheadAffinity(10))),
    ORIGINAL: original_step,
}


def ten_steps(step: Callable[[], object]) -> Callable[[], object]:
    def steps() -> None:
        for _ in range(10):
            step()

    return steps


def make_batch(num_tasks: int, batch_size: int) -> tuple:
    rng = np.random.default_rng(0)
    x = tf.constant(rng.uniform(size=(batch_size, 64, 64, 3)).astype("float32"))
    labels = rng.integers(0, 2, size=(num_tasks, batch_size))
    return x, {f"task_{index}": tf.one_hot(row, 2) for index, row in enumerate(labels)}


def peak_apart(kind: str, num_tasks: int, batch_size: int) -> float:
    """Peak memory, in MB, of a separate process that makes two steps."""
    options = [f"--peak_of={kind}", f"--num_tasks={num_tasks}", f"--batch_size={batch_size}"]
    return float(run_apart("benchmarks.probe_cost", options))


def report(
    num_tasks: int, times: dict[str, np.ndarray], tracing: dict[str, float], peaks: dict[str, float]
) -> None:
    ratios = {
        name: values / times[PLAIN] / (10 if name == TEN else 1) for name, values in times.items()
    }
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
    parser.add_argument("--peak_of", choices=KINDS, help="print one kind's peak memory only, in MB")
    arguments = parser.parse_args()
    keras.utils.set_random_seed(0)
    if arguments.peak_of:
        (num_tasks,) = arguments.num_tasks
        step = KINDS[arguments.peak_of](num_tasks, make_batch(num_tasks, arguments.batch_size))
        step()
        step()
        print(peak_megabytes())
        return
    for num_tasks in arguments.num_tasks:
        batch = make_batch(num_tasks, arguments.batch_size)
        # With more tasks, the graph of the original's algorithm takes minutes to trace.
        kinds = [kind for kind in KINDS if kind != ORIGINAL or num_tasks <= 9]
        steps = {kind: KINDS[kind](num_tasks, batch) for kind in kinds}
        times, tracing = time_in_turns(steps, arguments.turns, arguments.seconds)
        peaks = {kind: peak_apart(kind, num_tasks, arguments.batch_size) for kind in kinds}
        report(num_tasks, times, tracing, peaks)


if __name__ == "__main__":
    main()
