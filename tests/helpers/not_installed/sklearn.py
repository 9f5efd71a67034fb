"""As if it were not installed: Keras imports it where it is, and takes half a second longer."""

raise ImportError
