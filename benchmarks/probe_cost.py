"""What a probe costs, as ratios to a plain Keras training step.

    python -m benchmarks.probe_cost

The network is the one of TAG's CelebA notebook (Fifty et al. 2021, arXiv 2109.04617): images
64x64x3, nine tasks, SGD with momentum. The four kinds of step are timed in turns, so that whatever
slows the machine down for a while slows all of them; the spread is over the turns.
"""

import argparse
import os
import time
from collections.abc import Callable, Sequence

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np
import tensorflow as tf

import tag_keras
from celeba import network

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
    """A step of `fit` of a functional Keras model with the same layers."""
    images = keras.Input((64, 64, 3))
    model = keras.Model(images, build_model(num_tasks)(images))
    model.compile(optimizer(), {task: loss() for task in batch[1]})
    return _step_of(model, batch)


def our_step(num_tasks: int, batch: tuple, every: int) -> Callable[[], object]:
    """A step of `fit` of a MultiTaskModel; with `every=1`, always a probe."""
    model = build_model(num_tasks)
    affinity = tag_keras.LookaheadAffinity(every)
    model.compile(optimizer(), {task: loss() for task in batch[1]}, affinity=affinity)
    return _step_of(model, batch)


def _step_of(model: keras.Model, batch: tuple) -> Callable[[], object]:
    model.make_train_function()
    iterator = iter(tf.data.Dataset.from_tensors(batch).repeat())
    return lambda: model.train_function(iterator)


def original_step(num_tasks: int, batch: tuple) -> Callable[[], object]:
    """The same probe the original's way.

    One persistent tape records all; each task's gradient is taken with respect to the encoder, a
    lookahead with momentum is computed by hand, and the joint step takes a backward pass of its
    own, through encoder and heads.
    """
    model, apply, cross_entropy = build_model(num_tasks), optimizer(), loss()
    x, y = batch
    model(x)
    apply.build(model.trainable_variables)
    # In the order of the variables, the encoder's first.
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


def time_in_turns(
    steps: dict[str, Callable[[], object]], turns: int, seconds: float
) -> dict[str, np.ndarray]:
    """Seconds per step, (turns,) by kind; in a turn each kind runs for about `seconds`."""
    repeats = {}
    for name, step in steps.items():
        for _ in range(2):  # Traces and warms up.
            start = time.perf_counter()
            step()
        repeats[name] = max(1, round(seconds / (time.perf_counter() - start)))
    times = {name: np.zeros(turns) for name in steps}
    for turn in range(turns):
        for name, step in steps.items():
            start = time.perf_counter()
            for _ in range(repeats[name]):
                step()
            times[name][turn] = (time.perf_counter() - start) / repeats[name]
    return times


def report(times: dict[str, np.ndarray], baselines: Sequence[str]) -> None:
    for baseline in baselines:
        print(f"\nratio to: {baseline:24} median   lowest .. highest")
        for name, values in times.items():
            ratios = values / times[baseline]
            spread = f"{ratios.min():.3f} .. {ratios.max():.3f}"
            print(f"  {name:32} {np.median(ratios):6.3f}   {spread}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tasks", type=int, default=9)
    parser.add_argument("--batch_size", type=int, default=32)
    parser.add_argument("--turns", type=int, default=7)
    parser.add_argument("--seconds", type=float, default=4.0)
    arguments = parser.parse_args()
    rng = np.random.default_rng(0)
    names = [f"task_{index}" for index in range(arguments.tasks)]
    x = tf.constant(rng.uniform(size=(arguments.batch_size, 64, 64, 3)).astype("float32"))
    labels = rng.integers(0, 2, size=(arguments.tasks, arguments.batch_size))
    batch = (x, {task: tf.one_hot(row, 2) for task, row in zip(names, labels, strict=True)})
    keras.utils.set_random_seed(0)
    steps = {
        "plain Keras fit": plain_step(arguments.tasks, batch),
        "ours without a probe": our_step(arguments.tasks, batch, every=10**9),
        "ours with a probe": our_step(arguments.tasks, batch, every=1),
        "probe, the original's way": original_step(arguments.tasks, batch),
    }
    times = time_in_turns(steps, arguments.turns, arguments.seconds)
    report(times, ["plain Keras fit", "probe, the original's way"])


if __name__ == "__main__":
    main()
