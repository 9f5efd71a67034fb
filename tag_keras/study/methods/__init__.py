"""The methods of a study, by their names in the tables of Fifty et al. and Standley et al.

Each method is an object that says which networks it needs and how it chooses among them. A new
method is a file beside these, a line in `METHODS`, and one in `study.names`.
"""

from tag_keras.study.methods.base import Choices, Method
from tag_keras.study.methods.by_affinity import ByAffinity
from tag_keras.study.methods.by_loss import ByLoss, EarlyStopping, HigherOrder
from tag_keras.study.methods.fixed import Fixed, OneNetwork, SingleTasks, method_options
from tag_keras.study.methods.random_draws import RandomDraws
from tag_keras.study.study import Study
from tag_keras.sweep.console import is_quiet
from tag_keras.sweep.fingerprint import of_run
from tag_keras.sweep.runners import visible_gpus
from tag_keras.utils import files
from tag_keras.utils.checks import check_choice

__all__ = ["METHODS", "Choices", "Fixed", "Method", "method_options", "run_method"]

METHODS: dict[str, Method] = {
    method.name: method
    for method in (
        SingleTasks("stl"),
        OneNetwork("mtl", is_plain=True),
        *map(
            OneNetwork, ("uw", "dwa", "gradnorm", "rlw", "imtl_l", "gls", "db_mtl", "stch", "famo")
        ),
        *map(OneNetwork, ("pcgrad", "gradvac", "upgrad", "dual_proj", "cagrad", "mgda")),
        *map(OneNetwork, ("imtl_g", "config", "aligned_mtl", "nash_mtl", "fairgrad", "mtan")),
        *map(ByAffinity, ("tag", "first_order", "cs")),
        HigherOrder("hoa"),
        EarlyStopping("esa"),
        ByLoss("optimal"),
        RandomDraws("random"),
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
    with files.alone(study.folder, is_quiet(study.fit)):
        gpus = visible_gpus() if study.processes or study.cluster else ()
        run = (study.build_model, study.tasks, study.seeds[0], study.data, study.fit, gpus)
        files.keep_settings(study.folder, None, of_run(*run))
        choices = METHODS[method].choices(study)
        chosen = [choice for several in choices.values() for choice in several]
        serving = list(dict.fromkeys(network for choice in chosen for network in choice.networks))
        study.say(f"{method}: {len(serving)} networks to serve, {len(study.seeds)} seeds")
        study.train(serving, study.seeds)
    return choices
