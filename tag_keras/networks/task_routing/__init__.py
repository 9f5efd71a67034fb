"""Task Routing: each task uses some channels of every layer (Strezoski et al. 2019).

arXiv 1903.12117. `layer` masks the channels, and `trunks` are networks with such masks. All tasks
go through a trunk together in `encoder`, for `MultiTaskModel`. `model` trains one task at each
step, for hundreds of tasks of one kind; `stacked_tasks` holds their heads, labels and losses.
"""
