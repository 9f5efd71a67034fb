"""Decide: one joint network, groups or one network per task, by measured losses of some groups.

`measured` reads the losses, `posterior` estimates the loss of one task in every group and
`group_losses` those of all tasks, `decision` says what to serve and how sure it is, and `power` how
many seeds that takes; `common_examples` how many examples tasks have in common. NumPy and SciPy
only.
"""
