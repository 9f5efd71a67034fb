"""Compare trained networks and decide which to serve, by their losses. NumPy only.

`comparison` has the losses of joint, single and grouped networks, `method_table` the methods side
by side, `conclusion` what the results say; `guard` chooses what serves each task, for `serving`.
"""
