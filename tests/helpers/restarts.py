"""One model for many tests: its steps are traced once, and it begins each test anew."""


def state_of(model):
    """The variables of a model and of its optimizers; metrics begin anew by themselves."""
    seeds = [variable for variable in model.variables if "seed_generator" in variable.path]
    optimizers = [model.optimizer, getattr(model, "policy_optimizer", None)]
    return [
        *model.weights,
        *seeds,
        *(variable for one in optimizers if one is not None for variable in one.variables),
    ]


def start_of(model):
    """Values of the state of a compiled and built model."""
    model.optimizer.build(model.trainable_variables)
    return [variable.numpy() for variable in state_of(model)]


def restart(model, values):
    """Gives a model the values that its state began with."""
    for variable, value in zip(state_of(model), values, strict=True):
        variable.assign(value)
    # A backup that was read leaves it there.
    model._initial_epoch = None
    return model
