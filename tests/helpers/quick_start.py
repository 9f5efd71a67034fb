"""The path of Python for processes that start Keras without the libraries it imports if it can."""

import os
from pathlib import Path

HELPERS = Path(__file__).parent


def python_path():
    """Root of the repository, and modules in the place of libraries, which fail to be imported."""
    return os.pathsep.join([str(HELPERS / "not_installed"), str(HELPERS.parents[1])])
