"""Every class that Keras may find in the file of a model: importing this makes them known to it.

Keras looks for the classes of a saved model among those that are registered, and a class is
registered when its module is imported. The modules of this package are imported at first use, and
who loads a model uses none of them before.
"""

# ruff: noqa: F401

import tag_keras.estimators
import tag_keras.gradient_methods
import tag_keras.grouped_model
import tag_keras.loss_weighting
import tag_keras.model
import tag_keras.networks.adashare.encoder
import tag_keras.networks.adashare.model
import tag_keras.networks.adashare.options
import tag_keras.networks.adashare.policy
import tag_keras.networks.mtan
import tag_keras.networks.resnet
import tag_keras.networks.segnet
import tag_keras.networks.task_routing.encoder
import tag_keras.networks.task_routing.layer
import tag_keras.networks.task_routing.model
import tag_keras.networks.task_routing.stacked_tasks
import tag_keras.networks.task_routing.trunks
