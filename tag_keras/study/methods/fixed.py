"""Methods that choose nothing: one network per task, or one network for all tasks."""

import dataclasses
from pathlib import Path
from typing import Any, ClassVar

import keras

from tag_keras import gradient_methods, loss_weighting
from tag_keras.gradient_methods import GradientMethod, PCGrad
from tag_keras.loss_weighting import GradNorm, LossWeighting, UncertaintyWeighting
from tag_keras.study.methods.base import Choices, Method
from tag_keras.study.networks import Choice, Group, method_network, plain_network
from tag_keras.study.study import Study
from tag_keras.utils.checks import check_choice

# Methods whose options are their defaults.
_LOSS_WEIGHTINGS: dict[str, type[LossWeighting]] = {
    "dwa": loss_weighting.DynamicWeightAverage,
    "rlw": loss_weighting.RLW,
    "imtl_l": loss_weighting.IMTLL,
    "gls": loss_weighting.GLS,
    "db_mtl": loss_weighting.DBMTL,
    "stch": loss_weighting.STCH,
    "famo": loss_weighting.FAMO,
}
_GRADIENT_METHODS: dict[str, type[GradientMethod]] = {
    "pcgrad": gradient_methods.PCGrad,
    "gradvac": gradient_methods.GradVac,
    "upgrad": gradient_methods.UPGrad,
    "dual_proj": gradient_methods.DualProj,
    "cagrad": gradient_methods.CAGrad,
    "mgda": gradient_methods.MGDA,
    "imtl_g": gradient_methods.IMTLG,
    "config": gradient_methods.ConFIG,
    "aligned_mtl": gradient_methods.AlignedMTL,
    "nash_mtl": gradient_methods.NashMTL,
    "fairgrad": gradient_methods.FairGrad,
}


class Fixed(Method):
    """A method whose networks are fixed. A subclass implements `choice`."""

    chooses: ClassVar[bool] = False

    def choice(self, tasks: Group) -> Choice:
        """The networks, and which task each of them serves."""
        raise NotImplementedError

    def choices(self, study: Study) -> Choices:
        return self.saved_choices(study.folder, study.tasks)

    def saved_choices(self, folder: Path, tasks: Group) -> Choices:
        choice = self.choice(tasks)
        return {float(len(choice.networks)): [choice]}


class SingleTasks(Fixed):
    """One network per task."""

    def choice(self, tasks: Group) -> Choice:
        networks = tuple(plain_network((task,), tasks) for task in tasks)
        return Choice(networks, {task: index for index, task in enumerate(tasks)})


@dataclasses.dataclass(frozen=True)
class OneNetwork(Fixed):
    """One network for all tasks.

    Args:
        name: Name, which the study passes to `build_model` as `method`.
        is_plain: Whether plain `fit` trains the network, so that other methods share it.
    """

    is_plain: bool = False

    def choice(self, tasks: Group) -> Choice:
        network = plain_network(tasks, tasks) if self.is_plain else method_network(self.name, tasks)
        return Choice((network,), dict.fromkeys(tasks, 0))


def method_options(
    method: str,
    shared_layer: keras.layers.Layer | str,
    alpha: float = 1.5,
    learning_rate: float = 0.025,
    original: bool = False,
) -> dict[str, Any]:
    """Arguments of `compile` for a method that trains one network for all tasks.

    Args:
        method: `"mtl"` or `"mtan"`, without arguments; a loss weighting: `"uw"`, `"gradnorm"`,
            `"dwa"`, `"rlw"`, `"imtl_l"`, `"gls"`, `"db_mtl"`, `"stch"` or `"famo"`; or a gradient
            method: `"pcgrad"`, `"gradvac"`, `"upgrad"`, `"dual_proj"`, `"cagrad"`, `"mgda"`,
            `"imtl_g"`, `"config"`, `"aligned_mtl"`, `"nash_mtl"` or `"fairgrad"`.
        shared_layer: Last shared layer, or its name; GradNorm measures at its kernel.
        alpha: Strength with which GradNorm balances the tasks.
        learning_rate: Learning rate of GradNorm's weights.
        original: Whether to do as TAG's notebook: weigh losses of uw and pcgrad by the variant V3
            of uncertainty weighting, and project in a fixed order.

    Raises:
        ValueError: If there is no such method.
    """
    weighting = UncertaintyWeighting("V3") if original else UncertaintyWeighting()
    options: dict[str, dict[str, Any]] = {
        "mtl": {},
        "mtan": {},
        "uw": {"loss_weighting": weighting},
        "gradnorm": {"loss_weighting": GradNorm(shared_layer, alpha, learning_rate)},
        **{name: {"loss_weighting": one()} for name, one in _LOSS_WEIGHTINGS.items()},
        **{name: {"gradient_method": one()} for name, one in _GRADIENT_METHODS.items()},
    }
    if original:
        options["pcgrad"] = {"gradient_method": PCGrad("authors"), "loss_weighting": weighting}
    check_choice("method", method, [*options])
    return options[method]
