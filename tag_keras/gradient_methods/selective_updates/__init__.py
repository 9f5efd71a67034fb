"""Selective task group updates: one optimizer step per group of tasks, and groups that form.

method             the layer: its options, its weights, and when groups form
step               the training step on a batch: an update for one group after the other
optimizer          an update for one group, on the shared variables and the group's heads
proximal_affinity  what an update did to the losses, as affinities
clustering         groups from affinities
"""

from tag_keras.gradient_methods.selective_updates.method import SelectiveTaskGroupUpdates

__all__ = ["SelectiveTaskGroupUpdates"]
