"""Gradient methods, for `compile(gradient_method=...)`: how the shared variables move.

    PCGrad                     drops from each task's gradient what conflicts with another one
    UPGrad                     finds a direction that conflicts with no task's gradient
    SelectiveTaskGroupUpdates  updates for one group of tasks after the other, and forms the groups

A new method implements one hook of `GradientMethod`: `coefficients`, which gets the products of the
tasks' gradients (T, T) and gives the coefficients (T,) of their sum. A method that is no such sum
implements `make_step` instead, the whole training step.
"""

from tag_keras.gradient_methods.base import GradientMethod, check_method
from tag_keras.gradient_methods.pcgrad import PCGrad
from tag_keras.gradient_methods.selective_updates import SelectiveTaskGroupUpdates
from tag_keras.gradient_methods.upgrad import UPGrad

__all__ = ["GradientMethod", "PCGrad", "SelectiveTaskGroupUpdates", "UPGrad", "check_method"]
