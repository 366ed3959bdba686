# Noriba. `make help` lists what can be made.
SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:

PYTHON ?= python3.11
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
DEMO_HOME ?= $(CURDIR)/.demo
PYTEST_ARGS ?=
QUICK := tests/models tests/scheduler tests/jobs tests/assets tests/database tests/tracking tests/engines \
	tests/rest/test_access.py tests/rest/test_bootstrap.py tests/rest/test_jobs.py
ON_POSTGRESQL := tests/jobs tests/rest tests/chaos tests/tracking tests/storage \
	tests/sdk/test_command_jobs.py tests/sdk/test_job_identity.py --deselect tests/rest/test_blob_streaming.py

.PHONY: help
help: ## List the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  %-12s %s\n", $$1, $$2}'

.PHONY: install
install: $(STAMP) ## Make .venv with all that running and developing need

$(STAMP): pyproject.toml
	@command -v $(PYTHON) >/dev/null || { echo "Python 3.11 is needed (set PYTHON=/path/to/python)"; exit 1; }
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip --version >/dev/null 2>&1 || $(BIN)/python -m ensurepip >/dev/null
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check 'uv>=0.5'
	@eval "$$($(BIN)/python scripts/uv_environment.py)"; \
	$(BIN)/uv pip install --quiet --compile-bytecode --python $(BIN)/python --editable '.[sdk,postgresql]' --group dev
	@$(BIN)/python -m compileall -q src
	@touch $@

.PHONY: demo
demo: install ## Start a server, submit a real training job through azure-ai-ml, show what comes of it
	@$(BIN)/noriba up --detach --home $(DEMO_HOME) --port 0
	@$(BIN)/noriba run --home $(DEMO_HOME) -- $(BIN)/python -W ignore examples/demo.py
	@$(BIN)/python scripts/demo_next.py $(DEMO_HOME)

.PHONY: demo-stop
demo-stop: ## Stop the demo's server and its nodes
	@$(BIN)/noriba down --home $(DEMO_HOME) --all

.PHONY: lint
lint: install ## Check style and types
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy

.PHONY: check
check: lint ## The quick tests (under a minute)
	@$(BIN)/pytest -q -n 2 -m "not slow and not sdk" -k "not postgresql" $(QUICK) $(PYTEST_ARGS)

.PHONY: test
test: lint ## Everything that CI runs
	@$(BIN)/pytest -n 2 $(PYTEST_ARGS)
	@$(MAKE) --no-print-directory test-postgresql

.PHONY: test-postgresql
test-postgresql: install ## The control plane's tests on PostgreSQL (a wheel brings it)
	@$(BIN)/pytest -n 2 -q --database postgresql $(ON_POSTGRESQL) $(PYTEST_ARGS)

.PHONY: bench
bench: install ## Measure what benchmarks/README.md has figures of
	@$(BIN)/python benchmarks/startup.py
	@PYTHONPATH=. $(BIN)/python benchmarks/jobs.py

.PHONY: format
format: install ## Rewrite the code in the house style
	@$(BIN)/ruff check --fix-only --quiet .
	@$(BIN)/ruff format .

.PHONY: build
build: install ## Build the wheel into dist/
	@$(BIN)/uv build --quiet

.PHONY: clean
clean: ## Remove what was made here (stop the demo first)
	rm -rf $(VENV) dist .pytest_cache .mypy_cache .ruff_cache .hypothesis
