# Everything from a fresh checkout: Python 3.11 or newer, git and a C compiler are enough.
# VENV=FOLDER uses (or makes) another virtual environment; PYTHON=... picks the interpreter.

PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
READY := $(VENV)/.dlgenome-ready
PIP := $(BIN)/python -m pip install --quiet --constraint constraints.txt

.PHONY: demo test check format bench docs build clean

demo: $(READY)
	$(BIN)/dlgenome demo --output demo --overwrite
	@echo 'For dlgenome and modisco by name: . $(BIN)/activate'

test: $(READY)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n auto

check: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: $(READY)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: $(READY)
	$(BIN)/python -m benchmarks --json bench-results/speed.json --plot bench-results/speed.png

docs: $(READY)
	$(BIN)/python docs/make_cli_reference.py

# The sdist first and the wheel from it, with the build backend of the environment: nothing is downloaded.
build: $(READY)
	rm -rf dist
	$(BIN)/python -m build --no-isolation --outdir dist .

# --group needs pip 25.1, newer than the one that `python -m venv` brings.
$(READY): pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(PIP) pip hatchling editables
	$(PIP) --no-build-isolation --editable . --group dev
	touch $@

clean:
	rm -rf $(VENV) .venv-peers build dist demo bench-results .mypy_cache .ruff_cache .pytest_cache .import_linter_cache
