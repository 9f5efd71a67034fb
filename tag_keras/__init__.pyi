# The public names, each written once: `__init__.py` loads them at first use.

# Measure.
from .affinity import Affinity as Affinity
from .estimators.cosine import CosineAffinity as CosineAffinity
from .estimators.early_stopping import EarlyStopping as EarlyStopping
from .estimators.features import FeatureAffinity as FeatureAffinity
from .estimators.first_order import FirstOrderAffinity as FirstOrderAffinity
from .estimators.lookahead import LookaheadAffinity as LookaheadAffinity
from .report.affinity_logger import AffinityLogger as AffinityLogger

# isort: split
# Select.
from .selection.anchoring import anchor_affinity as anchor_affinity
from .selection.grouping import Grouping as Grouping
from .selection.groups import select_groups as select_groups
from .selection.groups import selection_frontier as selection_frontier
from .selection.network_table import NetworkTable as NetworkTable
from .selection.networks import NetworkSelection as NetworkSelection
from .selection.networks import select_networks as select_networks
from .selection.random_networks import random_networks as random_networks
from .selection.stability import GroupingStability as GroupingStability
from .selection.stability import grouping_stability as grouping_stability

# isort: split
# Train one network.
from .gradient_methods.aligned_mtl import AlignedMTL as AlignedMTL
from .gradient_methods.base import GradientMethod as GradientMethod
from .gradient_methods.cagrad import CAGrad as CAGrad
from .gradient_methods.conflict_free import ConFIG as ConFIG
from .gradient_methods.dual_proj import DualProj as DualProj
from .gradient_methods.fairgrad import FairGrad as FairGrad
from .gradient_methods.gradvac import GradVac as GradVac
from .gradient_methods.imtl_g import IMTLG as IMTLG
from .gradient_methods.mgda import MGDA as MGDA
from .gradient_methods.nash_mtl import NashMTL as NashMTL
from .gradient_methods.pcgrad import PCGrad as PCGrad
from .gradient_methods.selective_updates.method import (
    SelectiveTaskGroupUpdates as SelectiveTaskGroupUpdates,
)
from .gradient_methods.upgrad import UPGrad as UPGrad
from .loss_weighting.base import EqualWeighting as EqualWeighting
from .loss_weighting.base import LossWeighting as LossWeighting
from .loss_weighting.dynamic_average import DynamicWeightAverage as DynamicWeightAverage
from .loss_weighting.famo import FAMO as FAMO
from .loss_weighting.geometric import GLS as GLS
from .loss_weighting.gradnorm import GradNorm as GradNorm
from .loss_weighting.impartial import IMTLL as IMTLL
from .loss_weighting.logarithmic import DBMTL as DBMTL
from .loss_weighting.random_weights import RLW as RLW
from .loss_weighting.smooth_tchebycheff import STCH as STCH
from .loss_weighting.uncertainty import UncertaintyWeighting as UncertaintyWeighting
from .model import MultiTaskModel as MultiTaskModel
from .multitask.datasets import merge_datasets as merge_datasets
from .multitask.network_cost import NetworkCost as NetworkCost
from .multitask.network_cost import measure_cost as measure_cost
from .networks.adashare.encoder import AdaShareEncoder as AdaShareEncoder
from .networks.adashare.encoder import adashare_encoder as adashare_encoder
from .networks.adashare.fixed_network import task_network as task_network
from .networks.adashare.model import AdaShareModel as AdaShareModel
from .networks.adashare.options import AdaShareSearch as AdaShareSearch
from .networks.adashare.policy import AdaSharePolicy as AdaSharePolicy
from .networks.cross_stitch import CrossStitch as CrossStitch
from .networks.cross_stitch import cross_stitch_encoder as cross_stitch_encoder
from .networks.experts import ExpertGate as ExpertGate
from .networks.experts import cgc_encoder as cgc_encoder
from .networks.experts import mmoe_encoder as mmoe_encoder
from .networks.experts import ple_encoder as ple_encoder
from .networks.mtan import TaskAttention as TaskAttention
from .networks.mtan import mtan_encoder as mtan_encoder
from .networks.mtan import mtan_segnet as mtan_segnet
from .networks.resnet import ResidualBlock as ResidualBlock
from .networks.resnet import resnet_encoder as resnet_encoder
from .networks.segnet import segnet as segnet
from .networks.task_routing.encoder import RoutedEncoder as RoutedEncoder
from .networks.task_routing.encoder import task_routing_encoder as task_routing_encoder
from .networks.task_routing.layer import TaskRouting as TaskRouting
from .networks.task_routing.model import TaskRoutingModel as TaskRoutingModel
from .networks.task_routing.stacked_tasks import TaskDense as TaskDense
from .networks.task_routing.trunks import routed_resnet as routed_resnet
from .networks.task_routing.trunks import routed_vgg11 as routed_vgg11

# isort: split
# Train many.
from .grouped_model import GroupedModel as GroupedModel
from .sweep.network import load_network as load_network
from .sweep.network import train_groups as train_groups

# isort: split
# Decide.
from .decision.common_examples import share_of_common_examples as share_of_common_examples
from .decision.decision import Decision as Decision
from .decision.decision import decide_groups as decide_groups
from .decision.group_losses import GroupLosses as GroupLosses
from .decision.group_losses import estimate_group_losses as estimate_group_losses
from .decision.power import plan_seeds as plan_seeds
from .decision.prediction import select_predicted_groups as select_predicted_groups
from .group_prediction import predict_group_losses as predict_group_losses

# isort: split
# Compare and report.
from .comparison.guard import guard_groups as guard_groups
from .comparison.serving import Serving as Serving
from .report.report import write_report as write_report

# isort: split
# Modules that are used by their own names.
from . import comparison as comparison
from . import decision as decision
from . import estimators as estimators
from . import experiment as experiment
from . import gradient_methods as gradient_methods
from . import layers as layers
from . import loss_weighting as loss_weighting
from . import multitask as multitask
from . import networks as networks
from . import plots as plots
from . import report as report
from . import results as results
from . import selection as selection
from . import study as study
from . import sweep as sweep

__version__: str
