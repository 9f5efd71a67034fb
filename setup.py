"""Everything is in pyproject.toml; this file serves tools that still call setup.py."""

import setuptools

setuptools.setup()
