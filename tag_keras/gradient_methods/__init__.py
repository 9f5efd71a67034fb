"""Combine the gradients of the tasks: what `compile(gradient_method=...)` takes.

A method has one hook, `coefficients(gram)`: from the products of the tasks' gradients (T, T) to the
coefficients (T,) of their combination. `selective_updates` has training steps of its own instead.
"""

from tag_keras.gradient_methods.base import GradientMethod, check_method
from tag_keras.gradient_methods.pcgrad import PCGrad
from tag_keras.gradient_methods.selective_updates import SelectiveTaskGroupUpdates
from tag_keras.gradient_methods.upgrad import UPGrad

__all__ = ["GradientMethod", "PCGrad", "SelectiveTaskGroupUpdates", "UPGrad", "check_method"]
