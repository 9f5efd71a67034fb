"""Gradient methods, for `compile(gradient_method=...)`: how the shared variables move.

    PCGrad                     drops from each task's gradient what conflicts with another one
    GradVac                    raises the cosines between gradients to what they usually are
    UPGrad                     finds a direction that conflicts with no task's gradient
    DualProj                   projects the sum of the gradients so that it conflicts with none
    CAGrad                     finds, near the plain sum, what is best for the worst task
    MGDA                       takes the shortest vector between the gradients
    IMTLG, ConFIG              find the direction with equal projections on all gradients
    AlignedMTL                 makes the gradients orthogonal and equally long
    NashMTL, FairGrad          find the direction that tasks agree on, by their shares of it
    SelectiveTaskGroupUpdates  updates for one group of tasks after the other, and forms the groups

A new method implements one hook of `GradientMethod`: `coefficients`, which gets the products of the
tasks' gradients (T, T) and gives the coefficients (T,) of their sum. A method that is no such sum
implements `make_step` instead, the whole training step.
"""

from tag_keras.gradient_methods.aligned_mtl import AlignedMTL
from tag_keras.gradient_methods.base import GradientMethod, check_method
from tag_keras.gradient_methods.cagrad import CAGrad
from tag_keras.gradient_methods.conflict_free import ConFIG
from tag_keras.gradient_methods.dual_proj import DualProj
from tag_keras.gradient_methods.fairgrad import FairGrad
from tag_keras.gradient_methods.gradvac import GradVac
from tag_keras.gradient_methods.imtl_g import IMTLG
from tag_keras.gradient_methods.mgda import MGDA
from tag_keras.gradient_methods.nash_mtl import NashMTL
from tag_keras.gradient_methods.pcgrad import PCGrad
from tag_keras.gradient_methods.selective_updates import SelectiveTaskGroupUpdates
from tag_keras.gradient_methods.upgrad import UPGrad

__all__ = [
    "IMTLG",
    "MGDA",
    "AlignedMTL",
    "CAGrad",
    "ConFIG",
    "DualProj",
    "FairGrad",
    "GradVac",
    "GradientMethod",
    "NashMTL",
    "PCGrad",
    "SelectiveTaskGroupUpdates",
    "UPGrad",
    "check_method",
]
