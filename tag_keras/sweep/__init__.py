"""Train many networks: each from its seed, in a process of its own, resumed after any kill."""

from tag_keras.sweep.job import Job
from tag_keras.sweep.network import Network, load_network, train_groups
from tag_keras.sweep.sweep import SweepError, run_sweep

__all__ = ["Job", "Network", "SweepError", "load_network", "run_sweep", "train_groups"]
