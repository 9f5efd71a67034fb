"""The methods of a study, by their names in the tables of Fifty et al. and Standley et al.

Each method is an object that says which networks it needs and how it chooses among them. A new
method is a file beside these and a line in `METHODS`.
"""

from tag_keras.study.methods.base import Choices, Method
from tag_keras.study.methods.by_affinity import ByAffinity
from tag_keras.study.methods.by_loss import ByLoss, EarlyStopping, HigherOrder
from tag_keras.study.methods.fixed import Fixed, OneNetwork, SingleTasks, method_options
from tag_keras.study.methods.random_draws import RandomDraws
from tag_keras.study.study import Study
from tag_keras.sweep.fingerprint import of_run
from tag_keras.sweep.runners import visible_gpus
from tag_keras.utils import files
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
        OneNetwork("rlw", "one network, with random loss weights (Lin et al. 2022)"),
        OneNetwork("imtl_l", "one network, with IMTL-L (Liu et al. 2021)"),
        OneNetwork("gls", "one network, by the geometric mean of losses (Chennupati et al. 2019)"),
        OneNetwork("db_mtl", "one network, by the logarithms of losses (Lin et al. 2023)"),
        OneNetwork("stch", "one network, by a smooth maximum of losses (Lin et al. 2024)"),
        OneNetwork("famo", "one network, with FAMO (Liu et al. 2023)"),
        OneNetwork("gradvac", "one network, with GradVac (Wang et al. 2021)"),
        OneNetwork("upgrad", "one network, with UPGrad (Quinton and Rey 2024)"),
        OneNetwork("dual_proj", "one network, with DualProj (Lopez-Paz and Ranzato 2017)"),
        OneNetwork("cagrad", "one network, with CAGrad (Liu et al. 2021)"),
        OneNetwork("mgda", "one network, with MGDA (Sener and Koltun 2018)"),
        OneNetwork("imtl_g", "one network, with IMTL-G (Liu et al. 2021)"),
        OneNetwork("config", "one network, with ConFIG (Liu et al. 2024)"),
        OneNetwork("aligned_mtl", "one network, with Aligned-MTL (Senushkin et al. 2023)"),
        OneNetwork("nash_mtl", "one network, with Nash-MTL (Navon et al. 2022)"),
        OneNetwork("fairgrad", "one network, with FairGrad (Ban and Ji 2024)"),
        OneNetwork("mtan", "one multi-task attention network (Liu et al. 2019)"),
        ByAffinity("tag", "groups by affinity, measured in one joint training (Fifty et al. 2021)"),
        ByAffinity("first_order", "groups by the first-order approximation of that affinity"),
        ByAffinity("cs", "groups by the cosine similarity of the tasks' gradients"),
        HigherOrder("hoa", "higher order approximation, by losses of pairs (Standley et al. 2020)"),
        EarlyStopping(
            "esa", "early stopping approximation, by short trainings (Standley et al. 2020)"
        ),
        ByLoss("optimal", "networks by the losses of all groups, each trained to the end"),
        RandomDraws("random", "random networks that leave no task out"),
    )
}


def run_method(study: Study, method: str) -> Choices:
    """Lets a method of `METHODS` choose, and trains the networks that it chose with all seeds.

    Networks and choices that are in the folder are kept. The budget of a method that does not
    choose is the number of its networks.

    Raises:
        ValueError: If there is no such method, if the folder belongs to other options, another
            model or other data, or if another run is at work in it.
    """
    check_choice("method", method, [*METHODS])
    with files.alone(study.folder):
        gpus = visible_gpus() if study.processes or study.cluster else ()
        run = (study.build_model, study.tasks, study.seeds[0], study.data, study.fit, gpus)
        files.keep_settings(study.folder, None, of_run(*run))
        choices = METHODS[method].choices(study)
        chosen = [choice for several in choices.values() for choice in several]
        serving = list(dict.fromkeys(network for choice in chosen for network in choice.networks))
        study.say(f"{method}: {len(serving)} networks to serve, {len(study.seeds)} seeds")
        study.train(serving, study.seeds)
    return choices
