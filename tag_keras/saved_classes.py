"""Every class that Keras may find in the file of a model: importing this makes them known to it.

Keras looks for the classes of a saved model among those that are registered, and a class is
registered when its module is imported. The modules of this package are imported at first use, and
who loads a model uses none of them before.
"""

# ruff: noqa: F401

import tag_keras.adashare
import tag_keras.adashare_layer
import tag_keras.adashare_policy
import tag_keras.adashare_search
import tag_keras.dynamic_weights
import tag_keras.estimators
import tag_keras.gradient_methods
import tag_keras.gradnorm
import tag_keras.grouped_model
import tag_keras.loss_weighting
import tag_keras.model
import tag_keras.resnet
import tag_keras.routed_encoder
import tag_keras.routed_networks
import tag_keras.selective_updates
import tag_keras.task_attention
import tag_keras.task_dense
import tag_keras.task_routing
import tag_keras.task_routing_model
import tag_keras.uncertainty_weighting
import tag_keras.unpooling
