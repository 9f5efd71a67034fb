"""The cost of a step by each method that trains one network for all tasks, beside plain steps.

    python -m benchmarks.method_cost

Plain is joint training of a `MultiTaskModel` with `resnet_encoder`. All methods have the same data,
optimizer, heads and size of the network. All is small: batches of 32 images 16x16x3, two stages of
two residual blocks with 16 and 32 channels, one dense layer per head, SGD with momentum. In a
larger network the passes weigh more, and the rest of a method less.

The steps are timed in turns, after two that trace and warm up, and the spread is over the turns.
Time is the CPU time of all threads, which other work on the machine delays least. Memory is the
peak of a separate process that makes two steps, less the peak of one that makes plain steps. It
includes the memory for tracing. Selective updates with 3 groups form groups after every batch,
which is the default, so their memory includes scikit-learn. An expert of MMoE, of which there are
8, or of CGC has all blocks; an expert of PLE and a part of cross-stitch has those of a stage. CGC
and PLE have one expert for all and one for each task. A step of AdaShare's weights comes before the
steps of its policy, as in every search.
"""

from __future__ import annotations

import concurrent.futures
import os
from collections.abc import Sequence

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np

import tag_keras
from benchmarks.measuring import (
    Step,
    peak_megabytes,
    print_costs,
    run_apart,
    step_of,
    time_in_turns,
)
from benchmarks.options import Renamed, load_lazily, make_parser, numbers

keras, tf, resnet = map(load_lazily, ("keras", "tensorflow", "tag_keras.networks.resnet"))
study_methods = load_lazily("tag_keras.study.methods")

NETWORK = {"input_shape": (16, 16, 3), "depth": (2, 2), "widths": (16, 32)}
BATCH_SIZE, CLASSES = 32, 2
LAST_SHARED = "stage2_block2_second_convolution"
GROUPS = 3
# A number of steps that is never reached.
ALWAYS = 10**9
PLAIN, SELECTIVE, POLICY = "plain", f"selective, {GROUPS} groups", "adashare, policy"
METHODS = (
    PLAIN,
    "equal",
    "uw",
    "dwa",
    "gradnorm",
    "rlw",
    "imtl_l",
    "gls",
    "db_mtl",
    "stch",
    "famo",
    "pcgrad",
    "gradvac",
    "upgrad",
    "dual_proj",
    "cagrad",
    "mgda",
    "imtl_g",
    "config",
    "aligned_mtl",
    "nash_mtl",
    "fairgrad",
    "selective, tasks alone",
    SELECTIVE,
    "mtan",
    "task routing",
    "mmoe",
    "cgc",
    "ple",
    "cross-stitch",
    "adashare, weights",
    POLICY,
)


def build_model(
    method: str, tasks: Sequence[str]
) -> tag_keras.MultiTaskModel | tag_keras.AdaShareModel:
    """A compiled model that a method trains."""
    encoders = {
        "mtan": tag_keras.mtan_encoder,
        "task routing": tag_keras.task_routing_encoder,
        "adashare, weights": tag_keras.adashare_encoder,
        POLICY: tag_keras.adashare_encoder,
        "mmoe": lambda tasks, **network: _of_experts(tag_keras.mmoe_encoder, tasks, network),
        "cgc": lambda tasks, **network: _of_experts(tag_keras.cgc_encoder, tasks, network),
        "ple": lambda tasks, **network: _of_stages(tag_keras.ple_encoder, tasks, network),
        "cross-stitch": lambda tasks, **network: _of_stages(
            tag_keras.cross_stitch_encoder, tasks, network
        ),
    }
    is_searched = method.startswith("adashare")
    model_class = tag_keras.AdaShareModel if is_searched else tag_keras.MultiTaskModel
    encoder = encoders.get(method, tag_keras.resnet_encoder)(tasks, **NETWORK)
    model = model_class(encoder, {task: keras.layers.Dense(CLASSES) for task in tasks})
    optimizer = keras.optimizers.SGD(1e-3, momentum=0.9)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(optimizer, loss, **_options(method))
    if method == SELECTIVE:
        _plant_groups(model.gradient_method)
    return model


def _of_experts(build, tasks: Sequence[str], network: dict) -> keras.Model:
    stem, stages = resnet.resnet_parts(**network)
    return build(tasks, stem, lambda: keras.Sequential([stage() for stage in stages]))


def _of_stages(build, tasks: Sequence[str], network: dict) -> keras.Model:
    return build(tasks, *resnet.resnet_parts(**network))


def _options(method: str) -> dict[str, object]:
    """Arguments of `compile` for a method."""
    selective = tag_keras.SelectiveTaskGroupUpdates
    options = {
        **{name: {} for name in (PLAIN, *METHODS[METHODS.index("mtan") :])},
        "equal": {"loss_weighting": tag_keras.EqualWeighting()},
        "selective, tasks alone": {"gradient_method": selective(warmup=ALWAYS)},
        # With such a small decay the affinities stay as they are set.
        SELECTIVE: {"gradient_method": selective(warmup=0, decay=1e-9, seed=0)},
        "adashare, weights": {"search": tag_keras.AdaShareSearch(0, ALWAYS, 1)},
        POLICY: {"search": tag_keras.AdaShareSearch(0, 1, ALWAYS)},
    }
    return (
        options[method] if method in options else study_methods.method_options(method, LAST_SHARED)
    )


def _plant_groups(method: tag_keras.SelectiveTaskGroupUpdates) -> None:
    """Sets affinities from which affinity propagation finds the groups."""
    group = np.arange(method.assignment.shape[0]) % GROUPS
    method.assignment.assign(group.astype("float32"))
    method.affinity.assign(np.where(group[:, None] == group, 1.0, -1.0).astype("float32"))


def make_batch(tasks: Sequence[str]) -> tuple:
    rng = np.random.default_rng(0)
    x = rng.uniform(size=(BATCH_SIZE, *NETWORK["input_shape"])).astype("float32")
    labels = rng.integers(0, CLASSES, size=(len(tasks), BATCH_SIZE)).astype("int32")
    return tf.constant(x), dict(zip(tasks, tf.unstack(labels), strict=True))


def make_step(method: str, num_tasks: int) -> Step:
    tasks = [f"task_{index}" for index in range(num_tasks)]
    step = step_of(build_model(method, tasks), make_batch(tasks))
    if method == POLICY:
        # A step of the weights.
        step()
    return step


def peak_apart(method: str, num_tasks: int) -> float:
    """Peak memory, in MB, of a separate process that makes two steps."""
    options = [f"--peak_of={method}", f"--num_tasks={num_tasks}"]
    return float(run_apart("benchmarks.method_cost", options))


def report(num_tasks: int, methods: Sequence[str], turns: int, seconds: float, peaks: bool) -> None:
    # With as many groups as tasks, selective updates are those of tasks alone.
    chosen = [one for one in METHODS if one in (PLAIN, *methods)]
    chosen = [one for one in chosen if one != SELECTIVE or num_tasks > GROUPS]
    steps = {method: make_step(method, num_tasks) for method in chosen}
    times, tracing = time_in_turns(steps, turns, seconds)
    ratios = {method: values / times[PLAIN] for method, values in times.items()}
    megabytes = {}
    if peaks:
        # Two at a time: memory does not depend on the speed.
        with concurrent.futures.ThreadPoolExecutor(2) as pool:
            values = list(pool.map(lambda method: peak_apart(method, num_tasks), chosen))
        megabytes = {one: value - values[0] for one, value in zip(chosen, values, strict=True)}
    print_costs(f"{num_tasks} tasks", ratios, tracing, megabytes)
    print(f"A plain step takes {1000 * np.median(times[PLAIN]):.1f} CPU ms.\n", flush=True)


def main(argv: Sequence[str] | None = None) -> None:
    parser = make_parser("benchmarks.method_cost", __doc__)
    parser.add_argument("--quick", action="store_true", help="3 tasks, short turns, no memory")
    parser.add_argument("--methods", choices=METHODS, nargs="+", default=METHODS)
    parser.add_argument("--num_tasks", type=numbers, default=[3, 9, 20])
    parser.add_argument("--tasks", action=Renamed, now="--num_tasks")
    parser.add_argument("--turns", type=int, default=7)
    parser.add_argument("--seconds", type=float, default=0.3)
    parser.add_argument("--peak_of", choices=METHODS, help="print one peak memory only, in MB")
    arguments = parser.parse_args(argv)
    keras.utils.set_random_seed(0)
    # TensorFlow would warn that one function is traced again and again.
    tf.get_logger().setLevel("ERROR")
    if arguments.peak_of:
        (num_tasks,) = arguments.num_tasks
        step = make_step(arguments.peak_of, num_tasks)
        step()
        step()
        print(peak_megabytes())
        return
    methods = arguments.methods
    if arguments.quick:
        report(3, methods, turns=3, seconds=0.05, peaks=False)
        return
    for num_tasks in arguments.num_tasks:
        report(num_tasks, methods, arguments.turns, arguments.seconds, peaks=True)


if __name__ == "__main__":
    main()
