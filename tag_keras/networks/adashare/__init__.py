"""AdaShare: each task executes some blocks of one network (Sun et al. 2020, arXiv 1911.12423).

`policy` holds the decisions, `encoder` the blocks that follow them. `model` searches for a policy
as `options` say, with the training steps in `steps`. `fixed_network` makes the network of a policy
that was found.
"""
