PYTHON ?= python3
VENV := .venv
CORES ?= $(shell nproc 2>/dev/null || echo 2)
RUN := $(VENV)/bin/python

.PHONY: lra test test-all lint check gpu install board clean

# Every task with cosFormer and softmax under the protocol `quick`, one run per core, then the results.
lra: install
	$(RUN) run_lra.py suite --protocol quick --parallel $(CORES)

PYTEST := $(RUN) -m pytest -n 3 --dist loadfile --no-loadscope-reorder  # on 2 cores: some tests wait for processes

# Linter, types, and the tests of every part; those marked `slow` are left to `test-all`.
test: lint
	$(PYTEST) -m "not slow"

# Everything that must pass. Tests compile without optimisations, so training, resume and evaluation run once more with
# the compiler settings of a user. The contract of every mixer: long inputs, a new process, scaling with the length.
test-all: lint
	$(PYTEST) -m "not in_check"
	JAX_DISABLE_MOST_OPTIMIZATIONS=0 XLA_FLAGS= \
		$(PYTEST) tests/lra/training/test_train.py tests/lra/training/test_checkpoint.py tests/test_cli.py
	XLA_FLAGS="$$($(RUN) -c 'import os, tests.conftest; print(os.environ.get("XLA_FLAGS", ""))')" \
		$(RUN) run_lra.py check

lint: install
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/mypy

# The contract of every mixer alone.
check: install
	$(RUN) run_lra.py check

# Every mixer on this machine's GPU, with a report: docs/gpu.md. Without .venv, the Python that has the packages.
gpu:
	$(if $(wildcard $(RUN)),$(RUN),$(PYTHON)) -m benchmarks.gpu --minutes 10

install: $(VENV)/installed

# Exact versions where they were resolved (Python 3.11); a newer Python takes what pyproject.toml admits.
$(VENV)/installed: pyproject.toml requirements-3.11.txt
	test -d $(VENV) || $(PYTHON) -m venv $(VENV)
	$(VENV)/bin/pip install --quiet --upgrade pip
	if $(RUN) -c 'import sys; sys.exit(sys.version_info[:2] != (3, 11))'; then \
		$(VENV)/bin/pip install --quiet -r requirements-3.11.txt; \
	fi
	PYTHONWARNINGS=ignore $(VENV)/bin/pip install --quiet -e '.[dev]'
	touch $@

# docs/board.md and, by Chromium, its picture, from the committed records.
board: install
	LRA_RUNS=$(shell mktemp -d) $(RUN) run_lra.py leaderboard --format md > docs/board.md
	mkdir -p .cache
	LRA_RUNS=$(shell mktemp -d) $(RUN) run_lra.py leaderboard --format html > .cache/board.html
	$(RUN) -m tests.chromium .cache/board.html docs/board.png --width 1180 --height 1000

# Caches only: prepared data in .cache/prepared and the runs in runs/ stay.
clean:
	rm -rf .cache/xla .pytest_cache .ruff_cache .mypy_cache
