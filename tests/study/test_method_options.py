"""What the papers' methods give `compile`."""

import pytest

import tag_keras
from tag_keras.study.methods import method_options


def test_every_method():
    found = {
        name: {option: type(value) for option, value in method_options(name, "last").items()}
        for name in ("mtl", "mtan", "uw", "dwa", "gradnorm", "pcgrad")
    }
    assert found == {
        "mtl": {},
        "mtan": {},
        "uw": {"loss_weighting": tag_keras.UncertaintyWeighting},
        "dwa": {"loss_weighting": tag_keras.DynamicWeightAverage},
        "gradnorm": {"loss_weighting": tag_keras.GradNorm},
        "pcgrad": {"gradient_method": tag_keras.PCGrad},
    }
    gradnorm = method_options("gradnorm", "last", 0.1, 5e-4)["loss_weighting"]
    assert (gradnorm.alpha, gradnorm.learning_rate) == (0.1, 5e-4)


def test_the_original():
    # The notebook weighs losses by V3, under PCGrad, too, whose order is always that of the tasks.
    assert method_options("uw", "last")["loss_weighting"].variant == "V2"
    assert method_options("uw", "last", original=True)["loss_weighting"].variant == "V3"
    pcgrad = method_options("pcgrad", "last", original=True)
    assert pcgrad["gradient_method"].order == "authors"
    assert pcgrad["loss_weighting"].variant == "V3"
    assert method_options("dwa", "last", original=True).keys() == {"loss_weighting"}


def test_unknown_method():
    with pytest.raises(ValueError, match=r'`method` should be "mtl", .* or "pcgrad"\.'):
        method_options("stl", "last")
