"""What every room uses and what knows nothing of networks.

`checks` and `tasks` check arguments, `files` writes and locks files, `text` and `progress` write
for people, `replicates` has the statistics of means, and `child_processes` runs calls elsewhere.
"""
