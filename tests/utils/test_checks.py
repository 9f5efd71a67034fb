"""Options of the wrong type or size: one sentence that names the option, before any work."""

import functools
import json
import re

import numpy as np
import pytest
import tensorflow as tf

import tag_keras
from tag_keras.networks.task_routing.layer import routing_mask
from tag_keras.utils import checks

NAN, INF = float("nan"), float("inf")
NO_NUMBERS = [None, "1", NAN, INF, -INF, True, [1], (1, "b"), 1j, np.ones(2), np.bool_(True)]
NO_WHOLES = [*NO_NUMBERS, 1.5, 2.0, np.float32(2), -1]
NO_WORDS = [None, 1, True, ["top"], "x", np.array(["V1", "V2"])]
SMALL = {"input_shape": (8, 8, 3), "depth": (2,), "widths": (4,)}
SHAPES = [None, "x", 3, (8, 8), (8, 8, 3, 1), (8, 8, None), (8, 0, 3), (8, 8.0, 3), (8, True, 3)]


def of_tasks(function, **kwargs):
    return functools.partial(function, **{"tasks": ["a", "b"], **kwargs})


ENCODERS = {
    name: of_tasks(getattr(tag_keras, f"{name}_encoder"), **SMALL)
    for name in ("resnet", "mtan", "task_routing", "adashare")
}
SEGNETS = [
    of_tasks(function, tasks={"a": 1}, input_shape=(8, 8, 3), widths=(4,))
    for function in (tag_keras.segnet, tag_keras.mtan_segnet)
]
ROUTED = [
    functools.partial(tag_keras.routed_resnet, num_tasks=2, **SMALL),
    functools.partial(tag_keras.routed_vgg11, num_tasks=2, input_shape=(32, 32, 3)),
]
gradnorm = functools.partial(tag_keras.GradNorm, "shared")
routing = functools.partial(tag_keras.TaskRouting, num_tasks=2)
policy = of_tasks(tag_keras.AdaSharePolicy, num_blocks=2)
ESTIMATORS = [
    tag_keras.LookaheadAffinity,
    tag_keras.FirstOrderAffinity,
    tag_keras.CosineAffinity,
    tag_keras.FeatureAffinity,
]
search, selective = tag_keras.AdaShareSearch, tag_keras.SelectiveTaskGroupUpdates
# What it belongs to, and its name.
NUMBERS = [
    (tag_keras.DynamicWeightAverage, "temperature"),
    (gradnorm, "alpha"),
    (gradnorm, "learning_rate"),
    (tag_keras.UPGrad, "ridge"),
    (selective, "decay"),
    (selective, "preference"),
    (policy, "temperature"),
    (ENCODERS["adashare"], "temperature"),
    *((search, name) for name in ("sparsity", "sharing", "temperature", "temperature_decay")),
    *((build, "sigma") for build in (ENCODERS["task_routing"], *ROUTED)),
    (routing, "sigma"),
    *((kind, "overhead") for kind in ESTIMATORS),
]
WHOLES = [
    (tag_keras.PCGrad, "seed"),
    *((selective, name) for name in ("warmup", "regroup_every", "seed")),
    *((search, name) for name in ("warm_up", "weight_steps", "policy_steps", "curriculum_speed")),
    *((kind, "every") for kind in ESTIMATORS),
    *((policy, name) for name in ("num_blocks", "seed")),
    (ENCODERS["adashare"], "seed"),
    *((build, "seed") for build in (ENCODERS["task_routing"], *ROUTED)),
    *((routing, name) for name in ("num_tasks", "seed")),
    *(
        (functools.partial(tag_keras.TaskDense, num_tasks=2), name)
        for name in ("num_tasks", "units")
    ),
    (tag_keras.TaskAttention, "width"),
    *((functools.partial(tag_keras.ResidualBlock, filters=2), n) for n in ("filters", "strides")),
]
WORDS = [
    (tag_keras.UncertaintyWeighting, "variant"),
    (tag_keras.PCGrad, "order"),
    (search, "sharing_weight"),
    *((kind, "update") for kind in ESTIMATORS[:2]),
    (routing, "mode"),
    (routing, "data_format"),
]
MAY_BE_NONE = {"every", "preference", "seed", "width", "data_format"}


def assert_refused(build, name, values):
    for value in values:
        if value is None and name in MAY_BE_NONE:
            continue
        with pytest.raises(ValueError, match=rf"`{name}` should .*\. Received: {name}="):
            build(**{name: value})


@pytest.mark.parametrize(("build", "name"), NUMBERS)
def test_what_is_no_finite_number_is_refused(build, name):
    assert_refused(build, name, NO_NUMBERS)


@pytest.mark.parametrize(("build", "name"), WHOLES)
def test_what_is_no_whole_number_is_refused(build, name):
    assert_refused(build, name, NO_WHOLES)


@pytest.mark.parametrize(("build", "name"), WORDS)
def test_what_is_none_of_the_words_is_refused(build, name):
    assert_refused(build, name, NO_WORDS)


@pytest.mark.parametrize("build", [*ENCODERS.values(), *ROUTED, *SEGNETS])
def test_shapes_of_no_images_are_refused(build):
    assert_refused(build, "input_shape", SHAPES)


@pytest.mark.parametrize("build", [*ENCODERS.values(), *ROUTED, *SEGNETS])
def test_what_is_no_list_of_widths_is_refused(build):
    assert_refused(build, "widths", [None, 4, "x", (), 2.5])


@pytest.mark.parametrize("build", [*ENCODERS.values(), ROUTED[0]])
def test_what_is_no_depth_is_refused(build):
    assert_refused(build, "depth", [None, "x", (), 2.5, True, np.int64(50)])


@pytest.mark.parametrize("build", ENCODERS.values())
def test_a_word_is_no_list_of_tasks(build):
    assert_refused(build, "tasks", ["ab", None, 3])


@pytest.mark.parametrize("kind", [tag_keras.RoutedEncoder, tag_keras.TaskRoutingModel])
def test_a_word_is_no_list_of_tasks_for_a_trunk(kind):
    assert_refused(functools.partial(kind, None), "tasks", ["ab", None, 3])


@pytest.mark.parametrize("clip", [("a", "b"), (NAN, 2), (0.5, INF), (True, True), np.ones(2), "ab"])
def test_what_is_no_pair_of_limits_is_refused(clip):
    assert_refused(gradnorm, "clip", [clip])


def test_numbers_of_numpy_are_as_good_as_those_of_python():
    half, two = np.float32(0.5), np.int64(2)
    for one in (
        tag_keras.DynamicWeightAverage(two),
        tag_keras.GradNorm("shared", alpha=half, learning_rate=half, clip=(half, two)),
        tag_keras.PCGrad(seed=two),
        tag_keras.UPGrad(ridge=half),
        selective(decay=half, preference=half, warmup=two, regroup_every=two, seed=two),
        search(two, two, two, half, half, "top", half, half, two),
        *(kind(every=two) for kind in ESTIMATORS),
        tag_keras.TaskRouting(two, half, seed=two),
        tag_keras.TaskDense(two, two),
        tag_keras.TaskAttention(two),
        tag_keras.ResidualBlock(two, two),
        of_tasks(tag_keras.AdaSharePolicy, num_blocks=two, temperature=half, seed=two)(),
    ):
        config = one.get_config()
        assert json.loads(json.dumps(config)) == config
        assert type(one).from_config(config).get_config() == config
    assert tag_keras.LookaheadAffinity(every=two) == tag_keras.LookaheadAffinity(every=2)
    build = ENCODERS["resnet"]
    of_numpy = build(input_shape=(*[np.int64(8)] * 2, two), depth=np.array([2]), widths=[two])
    assert of_numpy.count_params() == build(input_shape=(8, 8, 2), widths=(2,)).count_params()
    assert build(input_shape=(None, None, 3)).input_shape == (None, None, None, 3)


@pytest.mark.parametrize(
    ("value", "number", "whole"),
    [
        (3, True, True),
        (-3.5, True, False),
        (np.int8(-3), True, True),
        (np.float16(0.5), True, False),
        # An integer that is larger than any float.
        (10**400, False, True),
        *((value, False, False) for value in NO_NUMBERS),
    ],
)
def test_what_counts_as_a_number(value, number, whole):
    assert checks.is_number(value) is number
    assert checks.is_whole(value) is whole


def test_what_the_checks_return():
    found = checks.check_number("x", np.float32(0.5), "a number")
    assert (found, type(found)) == (0.5, float)
    for function in (checks.check_whole, checks.check_count):
        found = function("x", np.int64(3))
        assert (found, type(found)) == (3, int)
    assert checks.check_counts("x", np.array([1, 2])) == [1, 2]
    assert checks.check_seed(np.int64(2**62)) == 2**62
    with pytest.raises(ValueError, match=r"`seed` should be below 2 \*\* 63\. Received: seed="):
        checks.check_seed(2**63)
    message = re.escape('`x` should be "a", "b" or "c". Received: x=\'d\'.')
    with pytest.raises(ValueError, match=message):
        checks.check_choice("x", "d", ("a", "b", "c"))
    with pytest.raises(ValueError, match=r"`x` should be a bool\. Received: x=1\."):
        checks.check_bool("x", 1)


def test_input_shapes_keep_what_is_unknown():
    assert checks.check_input_shape([np.int64(8), None, 3]) == (8, None, 3)


def test_seeds_of_functions():
    dataset = tf.data.Dataset.from_tensors((1.0, 2.0))
    for name, value in (("seed", "x"), ("seed", -1), ("rerandomize_each_iteration", 1)):
        with pytest.raises(ValueError, match=rf"`{name}` should be .* Received: {name}="):
            tag_keras.merge_datasets({"a": dataset}, **{name: value})
    with pytest.raises(ValueError, match=r"`seed` should be an integer from 0 on\. Received: .*1"):
        routing_mask(2, 8, seed=-1)
