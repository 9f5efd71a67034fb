"""The names that flags take. What they stand for takes seconds to load."""

# The methods of the papers' tables, each in one line.
METHOD_WORDS = {
    "stl": "one network per task (single-task learning)",
    "mtl": "one network for all tasks, by plain joint training",
    "uw": "one network, with uncertainty weighting (Kendall et al. 2018)",
    "dwa": "one network, with dynamic weight average (Liu et al. 2019)",
    "gradnorm": "one network, with GradNorm (Chen et al. 2018)",
    "rlw": "one network, with random loss weights (Lin et al. 2022)",
    "imtl_l": "one network, with IMTL-L (Liu et al. 2021)",
    "gls": "one network, by the geometric mean of losses (Chennupati et al. 2019)",
    "db_mtl": "one network, by the logarithms of losses (Lin et al. 2023)",
    "stch": "one network, by a smooth maximum of losses (Lin et al. 2024)",
    "famo": "one network, with FAMO (Liu et al. 2023)",
    "pcgrad": "one network, with PCGrad (Yu et al. 2020)",
    "gradvac": "one network, with GradVac (Wang et al. 2021)",
    "upgrad": "one network, with UPGrad (Quinton and Rey 2024)",
    "dual_proj": "one network, with DualProj (Lopez-Paz and Ranzato 2017)",
    "cagrad": "one network, with CAGrad (Liu et al. 2021)",
    "mgda": "one network, with MGDA (Sener and Koltun 2018)",
    "imtl_g": "one network, with IMTL-G (Liu et al. 2021)",
    "config": "one network, with ConFIG (Liu et al. 2024)",
    "aligned_mtl": "one network, with Aligned-MTL (Senushkin et al. 2023)",
    "nash_mtl": "one network, with Nash-MTL (Navon et al. 2022)",
    "fairgrad": "one network, with FairGrad (Ban and Ji 2024)",
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
