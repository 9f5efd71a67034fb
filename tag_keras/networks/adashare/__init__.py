"""AdaShare: each task executes some blocks of one network, and training finds out which (Sun et al.
2020)."""
