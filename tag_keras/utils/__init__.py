"""Tools of every room: checks of arguments and `tasks`, `files`, `text` and `progress` for people,
the statistics of means in `replicates`, and `child_processes`.
"""
