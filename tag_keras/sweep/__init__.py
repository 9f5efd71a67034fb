"""Train many networks, each from its seed.

`Network` says what to train and `Job` how; `run_sweep` trains jobs in processes of their own and
resumes after any kill; `train_groups` trains one network per group in this process. Each runner in
`runners` and `ray_runner` is another place to train in.
"""

from tag_keras.sweep.job import Job
from tag_keras.sweep.network import Network, load_network, train_groups
from tag_keras.sweep.sweep import SweepError, run_sweep

__all__ = ["Job", "Network", "SweepError", "load_network", "run_sweep", "train_groups"]
