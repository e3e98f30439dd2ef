# Each target makes .venv when it is missing or older than pyproject.toml.
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
STAMP  := $(VENV)/.installed

.PHONY: venv demo test lint bench clean
.DEFAULT_GOAL := help

help:  ## list the targets
	@grep -E '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*##/\t/'

venv: $(STAMP)  ## make .venv and install geodapt with everything it can use

$(STAMP): pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "geodapt needs Python 3.11 or newer: make PYTHON=python3.12 ...")'
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@echo "Installing geodapt and what it uses into $(VENV) (a few minutes the first time)"
	@# --no-compile: Python compiles what is imported, pip would compile everything, for a minute
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-compile -e '.[all,dev]'
	@touch $@

demo: $(STAMP)  ## serve a new domain with other domains' adapters, on built-in real data
	$(BIN)/geodapt run demo --out runs/demo --resume

test: $(STAMP)  ## lint, types, floors and all tests
	$(BIN)/python -m pytest

lint: $(STAMP)  ## style, types and floors alone
	$(BIN)/ruff check src tests benchmarks
	$(BIN)/ruff format --check src tests benchmarks
	$(BIN)/mypy
	$(BIN)/lint-imports

bench: $(STAMP)  ## every benchmark, one JSON file each in runs/bench
	@mkdir -p runs/bench
	@for b in benchmarks/[a-z]*.py; do echo "$$b"; $(BIN)/python $$b > runs/bench/$$(basename $$b .py).json || exit 1; done

clean:  ## remove .venv, caches and runs
	rm -rf $(VENV) runs .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache
