"""Select: the tasks that share a network, and the network that serves each task.

`groups` selects by affinities, under the `rules` that a user gives; `anchoring` corrects affinities
by measured losses, `stability` tells how far their noise matters. `networks` selects out of a
`network_table` of losses under a budget. NumPy and SciPy only; `solvers` holds the algorithms.
"""
