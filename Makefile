# `make demo` and `make test` need Python 3.11 or later and nothing else: both set up .venv first.
PYTHON ?= python3
PIP = .venv/bin/python -m pip install --quiet --disable-pip-version-check

.PHONY: demo test

demo: .venv/demo
	.venv/bin/python -m digits.train --output_dir=runs/digits

test: .venv/test
	.venv/bin/python -m pytest --numprocesses=auto --dist=loadfile --no-loadscope-reorder

.venv/bin/python:
	$(PYTHON) -m venv .venv

.venv/demo: .venv/bin/python pyproject.toml
	$(PIP) --editable ".[experiments]"
	touch $@

.venv/test: .venv/bin/python pyproject.toml
	$(PIP) --editable ".[test]"
	touch $@
