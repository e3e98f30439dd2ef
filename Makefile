# Each target makes .venv when it is missing or older than pyproject.toml.
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
STAMP  := $(VENV)/.installed
# Exact versions of everything, so that next month's install is today's; see `make constraints`.
PINNED := $(wildcard constraints/$(shell $(PYTHON) -c 'import sys; print("py%d%d" % sys.version_info[:2])').txt)
# As many processes as there are cores, up to four; a file's tests run in one of them, in order.
# Files with slow tests go first (tests/conftest.py), so that all processes end at about one time.
CORES  := -n auto --maxprocesses 4 --dist loadfile --no-loadscope-reorder
# --no-compile: Python compiles what is imported, pip would compile everything, for a minute
PIP    := -m pip --disable-pip-version-check install --quiet --no-compile
# which needs that it may: with this variable set, every process of the tests compiles all imports again
unexport PYTHONDONTWRITEBYTECODE

.PHONY: venv demo docs gpu test quick test-ray fuzz test-lowest test-newest lint constraints bench clean
.DEFAULT_GOAL := help

help:  ## list the targets
	@grep -E '^[a-z -]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*##/\t/'

venv: $(STAMP)  ## make .venv and install geodapt with everything it can use

$(STAMP): pyproject.toml $(PINNED)
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "geodapt needs Python 3.11 or newer: make PYTHON=python3.12 ...")'
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@echo "Installing geodapt and what it uses into $(VENV) (a few minutes the first time)"
	@$(if $(PINNED),,echo "No exact versions are known for this Python; taking the newest, untested ones")
	@# The two variables reach the build backend, too, which older and newer pips read from one each.
	@PIP_CONSTRAINT=$(PINNED) PIP_BUILD_CONSTRAINT=$(PINNED) $(BIN)/python $(PIP) -e '.[all,dev]'
	@touch $@

demo: $(STAMP)  ## serve a new domain with other domains' adapters, on built-in real data
	$(BIN)/geodapt run demo --out runs/demo --resume

test: $(STAMP)  ## lint, types, floors and all tests
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest $(CORES)

quick: $(STAMP)  ## all tests but the slow ones
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest $(CORES) -m "not slow"

test-ray: $(STAMP)  ## replicas and bulk scoring by Ray, which this installs (300 MB) and `make test` leaves out
	@PIP_CONSTRAINT=$(PINNED) PIP_BUILD_CONSTRAINT=$(PINNED) $(BIN)/python $(PIP) -e '.[all,dev,ray]'
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest tests/serve -k "ray or replica or front"

docs: $(STAMP)  ## the documentation as a site, in build/site; fails on dead links
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --quiet
	@echo "build/site/index.html, which opens without a server"

TESTS ?= tests
test-lowest: EDGE := -c constraints/lowest.txt
test-newest: EDGE := --upgrade --upgrade-strategy eager
test-lowest test-newest: test-%:  ## the tests on the lowest, and on the newest versions that pyproject.toml admits
	@test -x build/$*/bin/python || $(PYTHON) -m venv build/$*
	build/$*/bin/python $(PIP) $(EDGE) -e '.[all,dev]'
	@build/$*/bin/python -m pip freeze | grep -E '^(torch|transformers|peft|datasets|accelerate|torchao|numpy)='
	OMP_NUM_THREADS=1 build/$*/bin/python -m pytest $(CORES) -rfE -m 'not house' $(TESTS); broken=$$?; \
	build/$*/bin/python -m pytest -m house tests/test_house.py || echo "Style, types or floors differ with these versions, which does not count here."; \
	exit $$broken

constraints:  ## write down the newest versions for this Python, and the lowest; make PYTHON=python3.12 constraints
	$(PYTHON) constraints/resolve.py lowest
	@# torch by hand: the newest that has small builds for CPUs everywhere
	$(PYTHON) constraints/resolve.py torch==2.13.0

fuzz: $(STAMP)  ## the tests of broken and hostile input, with much more of it
	GEODAPT_FUZZ=20 $(BIN)/python -m pytest tests -k hostile

lint: $(STAMP)  ## style, types and floors alone
	$(BIN)/ruff check src tests benchmarks constraints
	$(BIN)/ruff format --check src tests benchmarks constraints
	$(BIN)/mypy
	$(BIN)/lint-imports

bench: $(STAMP)  ## every benchmark that needs no GPU, one JSON file each in runs/bench
	@mkdir -p runs/bench
	@for b in $(filter-out benchmarks/gpu.py,$(wildcard benchmarks/[a-z]*.py)); do echo "$$b"; $(BIN)/python $$b > runs/bench/$$(basename $$b .py).json || exit 1; done

gpu: $(STAMP)  ## what one GPU does, in eight minutes: models, adapters, geometry, X-Cross; JSON in runs/gpu.json
	@mkdir -p runs
	$(BIN)/python benchmarks/gpu.py > runs/gpu.json

clean:  ## remove .venv, caches and runs
	rm -rf $(VENV) build runs .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache
