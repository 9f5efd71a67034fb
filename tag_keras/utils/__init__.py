"""Tools of every room: `checks` and `tasks` check arguments, `text` and `progress` speak to people,
`replicates` has the statistics of means, `files` and `child_processes` what their names say.
"""
