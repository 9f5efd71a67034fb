"""Compare trained networks and decide which to serve, by their losses. NumPy only.

- `comparison`: the losses of joint, single and grouped networks side by side.
- `method_table`: methods side by side, with what their training takes.
- `conclusion`: what the results say, in sentences.
- `guard` chooses the network that serves each task; `serving` holds the choice, as a file, too.
"""
