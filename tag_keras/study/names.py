"""The names that flags take. What they stand for takes seconds to load."""

# The methods of the papers' tables, each in one line.
METHOD_WORDS = {
    "stl": "one network per task (single-task learning)",
    "mtl": "one network for all tasks, by plain joint training",
    "uw": "one network, with uncertainty weighting (Kendall et al. 2018)",
    "gradnorm": "one network, with GradNorm (Chen et al. 2018)",
    "pcgrad": "one network, with PCGrad (Yu et al. 2020)",
    "dwa": "one network, with dynamic weight average (Liu et al. 2019)",
    "mtan": "one multi-task attention network (Liu et al. 2019)",
    "tag": "groups by affinity, measured in one joint training (Fifty et al. 2021)",
    "first_order": "groups by the first-order approximation of that affinity",
    "cs": "groups by the cosine similarity of the tasks' gradients",
    "hoa": "higher order approximation, by losses of pairs (Standley et al. 2020)",
    "esa": "early stopping approximation, by short trainings (Standley et al. 2020)",
    "optimal": "networks by the losses of all groups, each trained to the end",
    "random": "random networks that leave no task out",
}
# Devices that a network may be trained on.
STRATEGIES = ("none", "mirrored", "multiworker", "tpu")
