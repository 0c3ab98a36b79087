# Variables to override: PYTHON (base interpreter, 3.10 or newer), VENV (environment to use or
# create), DEMO (folder of the demo), DEMO_ARGS (more arguments, see "make demo DEMO_ARGS=--help"), TEST_PROCESSES.

PYTHON ?= python3
VENV ?= .venv
DEMO ?= demo_output
TEST_PROCESSES ?= 2
DEMO_ARGS ?=

BIN := $(VENV)/bin
STAMP := $(VENV)/.nnunet-semisup-installed

.DEFAULT_GOAL := help
.PHONY: help install lint test test-all test-fast test-matrix demo docs dist clean

help: ## list the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## /  make \1	/'

install: $(STAMP) ## environment in .venv with the package and what its tests need

$(STAMP): pyproject.toml nnunet_semisup_discovery.pth
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --disable-pip-version-check -e ".[dev]"
	touch $@

lint: $(STAMP) ## ruff (rules and format) and mypy
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

PYTEST = OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q -n $(TEST_PROCESSES) --dist loadfile \
	--no-loadscope-reorder tests/integration tests/contract tests/gold tests/formats tests/unit

test: $(STAMP) ## all tests, on one of each implementation
	$(PYTEST)

test-all: $(STAMP) ## all tests, on every method and kind of data set
	NNUNET_SEMISUP_TEST_ALL=1 $(PYTEST)

test-fast: $(STAMP) ## test without the slow ones, which train and predict by nnU-Net's commands
	$(PYTEST) -m "not slow"

test-matrix: $(STAMP) ## the wheel beside the lowest and the newest dependencies; 12 GB, Pythons 3.10 and 3.13
	$(BIN)/python -m tests.matrix

demo: $(STAMP) ## train, predict, evaluate and compare on a phantom; a report in demo_output
	$(BIN)/python -m nnunet_semisup.demo --output $(DEMO) $(DEMO_ARGS)

docs: $(STAMP) ## the documentation as a site: site/index.html, to be opened from the disk or served
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build

dist: $(STAMP) ## source archive and wheel in dist/, checked
	rm -rf dist
	$(BIN)/python -m build --no-isolation
	$(BIN)/python -m twine check --strict dist/*
	$(BIN)/python -m check_wheel_contents dist/*.whl

clean: ## remove caches and build products; environment and demo stay
	rm -rf build dist site .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -not -path './.venv/*' -prune -exec rm -rf {} +
