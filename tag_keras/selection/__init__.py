"""Select: which groups of tasks share a network, and which network serves each task.

`groups` selects by affinities, `networks` by measured losses of whole networks. NumPy and SciPy
only; `solvers` holds the algorithms.
"""
