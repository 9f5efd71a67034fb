"""Train one network for several tasks: losses, labels, metrics and logs are dicts by task.

`task_model` has the model, an encoder and a head per task, and `task_trainer` its training. Both
compute losses and metrics over the labels that are present.
"""
