"""What the papers' methods give `compile`."""

import pytest

import tag_keras
from tag_keras.study.methods import METHODS, method_options
from tag_keras.study.methods.fixed import OneNetwork


def test_every_method():
    found = {
        name: {option: type(value) for option, value in method_options(name, "last").items()}
        for name, method in METHODS.items()
        if isinstance(method, OneNetwork)
    }
    assert found == {
        "mtl": {},
        "mtan": {},
        "uw": {"loss_weighting": tag_keras.UncertaintyWeighting},
        "dwa": {"loss_weighting": tag_keras.DynamicWeightAverage},
        "gradnorm": {"loss_weighting": tag_keras.GradNorm},
        "rlw": {"loss_weighting": tag_keras.RLW},
        "imtl_l": {"loss_weighting": tag_keras.IMTLL},
        "gls": {"loss_weighting": tag_keras.GLS},
        "db_mtl": {"loss_weighting": tag_keras.DBMTL},
        "stch": {"loss_weighting": tag_keras.STCH},
        "famo": {"loss_weighting": tag_keras.FAMO},
        "pcgrad": {"gradient_method": tag_keras.PCGrad},
        "gradvac": {"gradient_method": tag_keras.GradVac},
        "upgrad": {"gradient_method": tag_keras.UPGrad},
        "dual_proj": {"gradient_method": tag_keras.DualProj},
        "cagrad": {"gradient_method": tag_keras.CAGrad},
        "mgda": {"gradient_method": tag_keras.MGDA},
        "imtl_g": {"gradient_method": tag_keras.IMTLG},
        "config": {"gradient_method": tag_keras.ConFIG},
        "aligned_mtl": {"gradient_method": tag_keras.AlignedMTL},
        "nash_mtl": {"gradient_method": tag_keras.NashMTL},
        "fairgrad": {"gradient_method": tag_keras.FairGrad},
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
    with pytest.raises(ValueError, match=r'`method` should be "mtl", .* or "fairgrad"\.'):
        method_options("stl", "last")
