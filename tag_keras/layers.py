"""The layers for building networks of your own."""

from tag_keras.networks.adashare.encoder import AdaShareEncoder
from tag_keras.networks.adashare.policy import AdaSharePolicy
from tag_keras.networks.cross_stitch import CrossStitch
from tag_keras.networks.experts import ExpertGate
from tag_keras.networks.mtan import TaskAttention
from tag_keras.networks.resnet import ResidualBlock
from tag_keras.networks.task_routing.encoder import RoutedEncoder
from tag_keras.networks.task_routing.layer import TaskRouting
from tag_keras.networks.task_routing.stacked_tasks import TaskDense

__all__ = [
    "AdaShareEncoder",
    "AdaSharePolicy",
    "CrossStitch",
    "ExpertGate",
    "ResidualBlock",
    "RoutedEncoder",
    "TaskAttention",
    "TaskDense",
    "TaskRouting",
]
