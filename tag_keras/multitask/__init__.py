"""Train one network for several tasks: losses, labels, metrics and logs are dicts by task.

`task_model` has the model, `task_trainer` its training, with losses and metrics over the labels
that are present.
"""
