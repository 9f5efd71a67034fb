"""Settings of Sphinx, which makes the documentation: `make docs`."""

import os
import sys
from pathlib import Path

# TensorFlow's notices about the processor would hide warnings.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import tag_keras

sys.path.insert(0, str(Path(__file__).parent))

project = "tag_keras"
author = "The tag_keras authors"
release = tag_keras.__version__
extensions = [
    "myst_nb",
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "sphinx.ext.napoleon",
    "docstrings",
]
# A part of the page of benchmarks, which `python -m benchmarks.all` writes.
exclude_patterns = ["README.md", "measured.md"]
# Every reference leads somewhere. Only single backticks in docstrings need not: they are references
# where they name something public, and code everywhere else.
nitpicky = True
default_role = "py:obj"
nitpick_ignore_regex = [("py:obj", ".*"), ("py:exc", "SweepError")]
myst_heading_anchors = 3
# The notebooks keep their outputs: `python -m docs.notebooks`.
nb_execution_mode = "off"

templates_path = ["_templates"]
html_theme = "furo"
html_static_path = ["_static"]
html_css_files = ["wide.css"]
html_title = f"tag_keras {release}"
html_copy_source = False
html_show_copyright = False

autosummary_generate = True
autodoc_member_order = "bysource"
autodoc_inherit_docstrings = False
# The text says what an argument is; the types of NumPy and Keras take lines.
autodoc_typehints = "none"
napoleon_numpy_docstring = False
napoleon_use_rtype = False
napoleon_custom_sections = [("Call arguments", "params_style")]
