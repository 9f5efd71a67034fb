"""Task Affinity Groupings for Keras: which of my tasks should share a network?"""

import importlib
import json
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tag_keras.adashare import AdaShareModel
    from tag_keras.adashare_layer import AdaShareEncoder
    from tag_keras.adashare_network import task_network
    from tag_keras.adashare_policy import AdaSharePolicy
    from tag_keras.adashare_search import AdaShareSearch
    from tag_keras.affinity import Affinity
    from tag_keras.anchoring import anchor_affinity
    from tag_keras.datasets import merge_datasets
    from tag_keras.dynamic_weights import DynamicWeightAverage
    from tag_keras.early_stopping import EarlyStopping
    from tag_keras.encoders import (
        adashare_encoder,
        mtan_encoder,
        resnet_encoder,
        task_routing_encoder,
    )
    from tag_keras.estimators import CosineAffinity, FirstOrderAffinity, LookaheadAffinity
    from tag_keras.gradient_methods import GradientMethod, PCGrad, UPGrad
    from tag_keras.gradnorm import GradNorm
    from tag_keras.group_selection import select_groups, selection_frontier
    from tag_keras.grouping import Grouping
    from tag_keras.guard import guard_groups
    from tag_keras.model import GroupedModel, MultiTaskModel
    from tag_keras.mtan import mtan_segnet
    from tag_keras.network_cost import NetworkCost, measure_cost
    from tag_keras.network_table import NetworkTable
    from tag_keras.network_yardsticks import random_networks
    from tag_keras.report import write_report
    from tag_keras.resnet import ResidualBlock
    from tag_keras.routed_encoder import RoutedEncoder
    from tag_keras.routed_networks import routed_resnet, routed_vgg11
    from tag_keras.segnet_network import segnet
    from tag_keras.selective_updates import SelectiveTaskGroupUpdates
    from tag_keras.serving import Serving
    from tag_keras.stability import GroupingStability, grouping_stability
    from tag_keras.table_selection import NetworkSelection, select_networks
    from tag_keras.task_attention import TaskAttention
    from tag_keras.task_dense import TaskDense
    from tag_keras.task_routing import TaskRouting
    from tag_keras.task_routing_model import TaskRoutingModel
    from tag_keras.training import load_network, train_groups
    from tag_keras.uncertainty_weighting import UncertaintyWeighting
    from tag_keras.weighting import EqualWeighting, LossWeighting

__version__ = "0.1.0"

__all__ = [
    "AdaShareEncoder",
    "AdaShareModel",
    "AdaSharePolicy",
    "AdaShareSearch",
    "Affinity",
    "CosineAffinity",
    "DynamicWeightAverage",
    "EarlyStopping",
    "EqualWeighting",
    "FirstOrderAffinity",
    "GradNorm",
    "GradientMethod",
    "GroupedModel",
    "Grouping",
    "GroupingStability",
    "LookaheadAffinity",
    "LossWeighting",
    "MultiTaskModel",
    "NetworkCost",
    "NetworkSelection",
    "NetworkTable",
    "PCGrad",
    "ResidualBlock",
    "RoutedEncoder",
    "SelectiveTaskGroupUpdates",
    "Serving",
    "TaskAttention",
    "TaskDense",
    "TaskRouting",
    "TaskRoutingModel",
    "UPGrad",
    "UncertaintyWeighting",
    "adashare_encoder",
    "anchor_affinity",
    "grouping_stability",
    "guard_groups",
    "load_network",
    "measure_cost",
    "merge_datasets",
    "mtan_encoder",
    "mtan_segnet",
    "random_networks",
    "resnet_encoder",
    "routed_resnet",
    "routed_vgg11",
    "segnet",
    "select_groups",
    "select_networks",
    "selection_frontier",
    "task_network",
    "task_routing_encoder",
    "train_groups",
    "write_report",
]

# Modules load at first use, so that selecting networks never loads TensorFlow.
_MODULES = {
    "AdaShareEncoder": "adashare_layer",
    "AdaShareModel": "adashare",
    "AdaSharePolicy": "adashare_policy",
    "AdaShareSearch": "adashare_search",
    "Affinity": "affinity",
    "CosineAffinity": "estimators",
    "DynamicWeightAverage": "dynamic_weights",
    "EarlyStopping": "early_stopping",
    "EqualWeighting": "weighting",
    "FirstOrderAffinity": "estimators",
    "GradNorm": "gradnorm",
    "GradientMethod": "gradient_methods",
    "GroupedModel": "model",
    "Grouping": "grouping",
    "GroupingStability": "stability",
    "LookaheadAffinity": "estimators",
    "LossWeighting": "weighting",
    "MultiTaskModel": "model",
    "NetworkCost": "network_cost",
    "NetworkSelection": "table_selection",
    "NetworkTable": "network_table",
    "PCGrad": "gradient_methods",
    "ResidualBlock": "resnet",
    "RoutedEncoder": "routed_encoder",
    "SelectiveTaskGroupUpdates": "selective_updates",
    "Serving": "serving",
    "TaskAttention": "task_attention",
    "TaskDense": "task_dense",
    "TaskRouting": "task_routing",
    "TaskRoutingModel": "task_routing_model",
    "UPGrad": "gradient_methods",
    "UncertaintyWeighting": "uncertainty_weighting",
    "adashare_encoder": "encoders",
    "anchor_affinity": "anchoring",
    "grouping_stability": "stability",
    "guard_groups": "guard",
    "load_network": "training",
    "measure_cost": "network_cost",
    "merge_datasets": "datasets",
    "mtan_encoder": "encoders",
    "mtan_segnet": "mtan",
    "random_networks": "network_yardsticks",
    "resnet_encoder": "encoders",
    "routed_resnet": "routed_networks",
    "routed_vgg11": "routed_networks",
    "segnet": "segnet_network",
    "select_groups": "group_selection",
    "select_networks": "table_selection",
    "selection_frontier": "group_selection",
    "task_network": "adashare_network",
    "task_routing_encoder": "encoders",
    "train_groups": "training",
    "write_report": "report",
}


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module 'tag_keras' has no attribute {name!r}")
    value = getattr(importlib.import_module(f"tag_keras.{_MODULES[name]}"), name)
    _register_classes()
    return value


def __dir__() -> list[str]:
    return sorted([*globals(), *_MODULES])


def _register_classes() -> None:
    """Makes the classes of saved models known to Keras, if Keras and TensorFlow are loaded."""
    if {"keras", "tensorflow"} <= set(sys.modules):
        importlib.import_module("tag_keras.saved_classes")


def _check_keras() -> None:
    """Fails under another backend or legacy Keras, without loading Keras to find out."""
    if os.environ.get("TF_USE_LEGACY_KERAS", "").lower() in ("1", "true"):
        raise ImportError(
            "tag_keras works with Keras 3, and TF_USE_LEGACY_KERAS asks for Keras 2. "
            "Unset TF_USE_LEGACY_KERAS before importing it."
        )
    if "keras" in sys.modules:
        keras = sys.modules["keras"]
        if keras.__version__.startswith("2."):
            raise ImportError(
                f"tag_keras works with Keras 3. Found: Keras {keras.__version__}. "
                'Install it with: pip install "keras>=3.10".'
            )
        backend = keras.config.backend()
    else:
        backend = os.environ.get("KERAS_BACKEND") or _configured_backend()
    if backend != "tensorflow":
        raise ImportError(
            f"tag_keras works with the TensorFlow backend of Keras. Found: {backend!r}. Set "
            "KERAS_BACKEND=tensorflow in the environment before importing Keras."
        )


def _configured_backend() -> str:
    home = Path(os.path.expanduser(os.environ.get("KERAS_HOME") or "~/.keras"))
    try:
        config = json.loads((home / "keras.json").read_text(encoding="utf-8"))
        return str(config.get("backend", "tensorflow"))
    except (OSError, ValueError, AttributeError):
        return "tensorflow"


_check_keras()
_register_classes()
