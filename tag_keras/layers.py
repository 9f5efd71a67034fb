"""All layers that a network of one's own can be built of."""

from tag_keras.networks.adashare.encoder import AdaShareEncoder
from tag_keras.networks.adashare.policy import AdaSharePolicy
from tag_keras.networks.mtan import TaskAttention
from tag_keras.networks.resnet import ResidualBlock
from tag_keras.networks.task_routing.encoder import RoutedEncoder
from tag_keras.networks.task_routing.heads import TaskDense
from tag_keras.networks.task_routing.layer import TaskRouting

__all__ = [
    "AdaShareEncoder",
    "AdaSharePolicy",
    "ResidualBlock",
    "RoutedEncoder",
    "TaskAttention",
    "TaskDense",
    "TaskRouting",
]
