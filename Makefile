# `make demo`, `make docs` and `make test` need Python 3.11 or later and nothing else: each sets up
# .venv first.
PYTHON ?= python3
PIP = .venv/bin/python -m pip install --quiet --disable-pip-version-check

.PHONY: demo docs package test

demo: .venv/demo
	.venv/bin/python -m digits.train --output_dir=runs/digits

test: .venv/test
	.venv/bin/python -m pytest --numprocesses=auto --dist=loadfile --no-loadscope-reorder

# The wheel and the source package: built, checked, and installed where the checkout is not seen.
package: .venv/test
	rm -rf build/package
	.venv/bin/python -m build --quiet --outdir build/package
	.venv/bin/python -m twine check --strict build/package/*
	$(PIP) --no-deps --target build/package/installed build/package/*.whl
	BUILT_PACKAGES=build/package .venv/bin/python -m pytest --quiet tests/test_package.py

# Warnings are errors: a reference to nothing, a page without a place, an argument that is missing.
docs: .venv/docs
	rm -rf build/docs docs/api/generated
	.venv/bin/python -m sphinx --fail-on-warning --keep-going --quiet docs build/docs
	@echo "Open build/docs/index.html."

.venv/bin/python:
	$(PYTHON) -m venv .venv

.venv/demo: .venv/bin/python pyproject.toml
	$(PIP) --editable ".[experiments]"
	touch $@

.venv/docs: .venv/bin/python pyproject.toml
	$(PIP) --editable ".[docs]"
	touch $@

.venv/test: .venv/bin/python pyproject.toml
	$(PIP) --editable ".[test]"
	touch $@
