"""The methods of a study, by the names of the papers' tables (Fifty et al. 2021, Standley et al.
2020). Each is one object that says which networks it needs and how it chooses; a new one is a
file beside these and a line in `METHODS`.
"""

from tag_keras.study.methods.base import Choices, Method
from tag_keras.study.methods.by_affinity import ByAffinity
from tag_keras.study.methods.by_loss import ByLoss, EarlyStopping, HigherOrder
from tag_keras.study.methods.fixed import Fixed, OneNetwork, SingleTasks, method_options
from tag_keras.study.methods.random_draws import RandomDraws
from tag_keras.study.study import Study
from tag_keras.utils.checks import check_choice

__all__ = ["METHODS", "Choices", "Fixed", "Method", "method_options", "run_method"]

METHODS: dict[str, Method] = {
    method.name: method
    for method in (
        SingleTasks("stl", "one network per task (single-task learning)"),
        OneNetwork("mtl", "one network for all tasks, by plain joint training", is_plain=True),
        OneNetwork("uw", "one network, with uncertainty weighting (Kendall et al. 2018)"),
        OneNetwork("gradnorm", "one network, with GradNorm (Chen et al. 2018)"),
        OneNetwork("pcgrad", "one network, with PCGrad (Yu et al. 2020)"),
        OneNetwork("dwa", "one network, with dynamic weight average (Liu et al. 2019)"),
        OneNetwork("mtan", "one multi-task attention network (Liu et al. 2019)"),
        ByAffinity(
            "tag",
            "groups by inter-task affinity, measured in one joint training (Fifty et al. 2021)",
        ),
        ByAffinity("first_order", "groups by the first-order approximation of that affinity"),
        ByAffinity("cs", "groups by the cosine similarity of the tasks' gradients"),
        HigherOrder(
            "hoa",
            "networks by the losses of pairs: higher order approximation (Standley et al. 2020)",
        ),
        EarlyStopping(
            "esa",
            "networks by losses after a short training: early stopping approximation (the same)",
        ),
        ByLoss("optimal", "networks by the losses of all groups, each trained to the end"),
        RandomDraws("random", "random networks that leave no task out"),
    )
}


def run_method(study: Study, method: str) -> Choices:
    """Trains and chooses what a method needs; what is in the folder is not done again.

    Args:
        study: The study.
        method: One of `METHODS`.

    Returns:
        Its choices by budget; random ones are several. For a method without a choice, the number
        of its networks is the budget.

    Raises:
        ValueError: If there is no such method, or if the folder belongs to other options.
    """
    check_choice("method", method, [*METHODS])
    choices = METHODS[method].choices(study)
    flat = [network for several in choices.values() for one in several for network in one.networks]
    serving = list(dict.fromkeys(flat))
    print(f"{method}: {len(serving)} networks to serve, {len(study.seeds)} seeds", flush=True)
    study.train(serving, study.seeds)
    return choices
