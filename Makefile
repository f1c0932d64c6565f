# make demo    sets up .venv, runs pipeline.yaml on real footage, finetunes the tiny recipe on the shards
# make test    sets up .venv, then lint, types, import arrows and tests: about ten minutes on two cores
# make docs    sets up .venv, then builds the documentation into site/
# make docs-tables  regenerates the parts of README.md and docs/ that come from the code
# make test-all  make test, and the tests marked slow
# make test-times  the fifty slowest tests of the last session, and where their time goes
# make wheel   builds a wheel into dist/, installs it into an empty environment without torch, and scans a video with it
# make venv    the set-up alone
# Needs Python 3.11+, git and make; everything else comes from the package index.

PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
RUN ?= runs/demo
TRAIN ?= $(RUN)/train/tiny

# uv takes a third of pip's time, but knows nothing of pip's settings: where those name an index of one's own, or uv fails, it is pip.
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check
WHAT := --constraint constraints.txt --editable '.[all,dev]'
BY_UV = ! $(BIN)/python -m pip config list | grep '\.index-url=' >/dev/null && $(PIP) --constraint constraints.txt uv && \
  $(BIN)/uv pip install --quiet --python $(BIN)/python --compile-bytecode $(WHAT)

PYTEST := $(BIN)/python -m pytest -q --numprocesses 3 --dist loadfile --no-loadscope-reorder

.PHONY: venv demo test test-all test-times lint types arrows docs docs-tables wheel clean
.DEFAULT_GOAL := help

help:
	@sed -n 's/^# //p' Makefile

$(VENV)/.installed: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "rushes needs Python 3.11 or newer; this is $$($(PYTHON) --version). Say which one:  make PYTHON=python3.12 $(MAKECMDGOALS)"; exit 2; }
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@echo "installing into $(VENV): a minute or more"
	@$(BY_UV) || $(PIP) $(WHAT)
	@touch $@

venv: $(VENV)/.installed

ifdef SOURCES
RUN := runs/mine
demo: venv
	$(BIN)/rushes weights pull pipeline.yaml
	$(BIN)/rushes run pipeline.yaml --sources '$(SOURCES)' --run $(RUN)
else
demo: venv
	$(BIN)/rushes footage footage
	$(BIN)/rushes weights pull pipeline.yaml
	$(BIN)/rushes run pipeline.yaml --run $(RUN)
endif
	$(BIN)/rushes train --recipe tiny --shards $(RUN) --out $(TRAIN)
	$(BIN)/rushes report $(RUN)
	@echo
	@echo "report:  $(RUN)/report/index.html"
	@echo "shards:  $(RUN)/shards"
	@echo "model:   $(TRAIN)"
	@echo "sample:  $(TRAIN)/sample.mp4"

test: venv lint types arrows
	$(PYTEST)

test-all: venv lint types arrows
	$(PYTEST) -m "slow or not slow"

test-times: venv
	$(BIN)/python -m tests.slowest

lint: venv
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/python -m tests.english

types: venv
	$(BIN)/mypy

arrows: venv
	$(BIN)/lint-imports --no-cache

docs: venv
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --strict
	@echo "pages:   site/index.html (with search:  $(BIN)/python -m http.server --directory site)"

docs-tables: venv
	$(BIN)/python -m docs.make

# The wheel is tried outside of the checkout (python -I), or the checkout would be imported in its place.
wheel:
	rm -rf dist build/wheel
	$(PYTHON) -m venv build/wheel
	build/wheel/bin/python -m pip wheel --quiet --disable-pip-version-check --no-deps --wheel-dir dist .
	build/wheel/bin/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt dist/rushes-*.whl
	cd build/wheel && bin/python -I -c 'import rushes; print(rushes.__version__)'
	cd build/wheel && bin/python -I ../../tests/wheel.py

clean:
	rm -rf $(VENV) runs footage site build dist
