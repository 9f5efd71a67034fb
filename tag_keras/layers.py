"""All layers that a network of one's own can be built of."""

from tag_keras.adashare_layer import AdaShareEncoder
from tag_keras.adashare_policy import AdaSharePolicy
from tag_keras.resnet import ResidualBlock
from tag_keras.routed_encoder import RoutedEncoder
from tag_keras.task_attention import TaskAttention
from tag_keras.task_dense import TaskDense
from tag_keras.task_routing import TaskRouting

__all__ = [
    "AdaShareEncoder",
    "AdaSharePolicy",
    "ResidualBlock",
    "RoutedEncoder",
    "TaskAttention",
    "TaskDense",
    "TaskRouting",
]
