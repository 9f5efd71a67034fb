"""Importing this registers every class that Keras may find in the file of a model.

A class is registered when its module is imported, and this package imports its modules at first
use: too late for a program that first of all loads a model.
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
import tag_keras.networks.cross_stitch
import tag_keras.networks.experts
import tag_keras.networks.mtan
import tag_keras.networks.resnet
import tag_keras.networks.segnet
import tag_keras.networks.task_routing.encoder
import tag_keras.networks.task_routing.layer
import tag_keras.networks.task_routing.model
import tag_keras.networks.task_routing.stacked_tasks
import tag_keras.networks.task_routing.trunks
