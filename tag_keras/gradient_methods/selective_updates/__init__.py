"""Selective task group updates: one optimizer step per group of tasks, groups formed on the way."""

from tag_keras.gradient_methods.selective_updates.method import SelectiveTaskGroupUpdates

__all__ = ["SelectiveTaskGroupUpdates"]
