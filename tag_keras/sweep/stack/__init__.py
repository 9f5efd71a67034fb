"""Many networks trained in one graph, their weights stacked along a first axis.

`jobs` trains the jobs of a sweep. It builds each network, `matching` finds its variables in the
model for all tasks, `network_stack` makes the steps of all networks at once, and `training` the
epochs. `refusals` finds what must be trained alone, `memory` how many networks fit.
"""
