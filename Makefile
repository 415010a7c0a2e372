# Everything a contributor or CI runs. `make help` lists the targets.
# Each environment is installed from a hash-locked file and carries a stamp named after what it was made from,
# so an up-to-date install costs a few milliseconds and a changed lock is never missed.

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DELETE_ON_ERROR:
.DEFAULT_GOAL := help

# Bytecode is worth seconds on every Airflow start: an inherited "do not write" must not reach us.
unexport PYTHONDONTWRITEBYTECODE

# MLServer's wheels end at 3.12, so the newest interpreter is not the best one.
PYTHON ?= $(shell command -v python3.11 || command -v python3.12 || command -v python3)
OWN_UV := $(CURDIR)/.uv/bin/uv
UV := $(shell uv --version >/dev/null 2>&1 && command -v uv || echo $(OWN_UV))
BIN := .venv/bin
PYTEST := $(BIN)/python -m pytest
PYTEST_ARGS ?=
DEMO_ARGS ?=
# Most tests wait for services half of their time.
JOBS ?= 3
ROUNDS ?= 10

hash = $(firstword $(shell cat $(1) | sha256sum | cut -c1-16))
MAIN_STAMP := .venv/.stamp-$(call hash,requirements/dev.lock)
PROJECT_STAMP := .venv/.stamp-project-$(call hash,pyproject.toml setup.cfg airflow_provider_ai/__init__.py)
LITSERVE_STAMP := .venvs/litserve/.stamp-$(call hash,requirements/litserve.lock)
LOCALSTACK_STAMP := .venvs/localstack/.stamp-$(call hash,requirements/localstack.lock)
MLSERVER_STAMP := .venvs/mlserver/.stamp-$(call hash,requirements/mlserver.lock)
MINISTACK_STAMP := .venvs/ministack/.stamp-$(call hash,requirements/ministack.lock)
MOTO_STAMP := .venvs/moto/.stamp-$(call hash,requirements/moto.lock)
COMPARE_STAMP := .venvs/compare/.stamp-$(call hash,requirements/compare.lock)
WORKERS_STAMP := .venvs/workers/.stamp-$(call hash,requirements/workers.lock)

.PHONY: help
help: ## Show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  %-12s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

.PHONY: install
install: $(MAIN_STAMP) $(PROJECT_STAMP) $(LITSERVE_STAMP) $(LOCALSTACK_STAMP) $(MLSERVER_STAMP) $(MINISTACK_STAMP) $(MOTO_STAMP) ## Create .venv and the side environments (fast when up to date)

$(OWN_UV):
	$(PYTHON) -m venv .uv
	.uv/bin/python -m pip install --quiet --require-hashes -r requirements/bootstrap.lock

# $(1): the environment's folder, $(2): its lock.
define sync
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "python 3.11 or newer is needed, got " + sys.version)'
	@test -x $(1)/bin/python || $(UV) venv --quiet --no-project --python $(PYTHON) $(1)
	@rm -f $(1)/.stamp-*
	$(UV) pip sync --quiet --python $(1)/bin/python --require-hashes --compile-bytecode $(2)
endef

$(MAIN_STAMP): | $(filter $(OWN_UV),$(UV))
	$(call sync,.venv,requirements/dev.lock)
	@touch $@

$(PROJECT_STAMP): $(MAIN_STAMP)
	$(UV) pip install --quiet --python .venv/bin/python --no-deps --no-build-isolation --editable .
	@rm -f .venv/.stamp-project-* && touch $@

$(LITSERVE_STAMP): | $(filter $(OWN_UV),$(UV))
	$(call sync,.venvs/litserve,requirements/litserve.lock)
	@touch $@

$(LOCALSTACK_STAMP): | $(filter $(OWN_UV),$(UV))
	$(call sync,.venvs/localstack,requirements/localstack.lock)
	@touch $@

$(MLSERVER_STAMP): | $(filter $(OWN_UV),$(UV))
	$(call sync,.venvs/mlserver,requirements/mlserver.lock)
	@touch $@

$(MINISTACK_STAMP): | $(filter $(OWN_UV),$(UV))
	$(call sync,.venvs/ministack,requirements/ministack.lock)
	@touch $@

$(MOTO_STAMP): | $(filter $(OWN_UV),$(UV))
	$(call sync,.venvs/moto,requirements/moto.lock)
	@touch $@

$(COMPARE_STAMP): | $(filter $(OWN_UV),$(UV))
	$(call sync,.venvs/compare,requirements/compare.lock)
	@touch $@

$(WORKERS_STAMP): | $(filter $(OWN_UV),$(UV))
	$(call sync,.venvs/workers,requirements/workers.lock)
	@touch $@

.PHONY: test
test: install ## Every test, with the real services (about 25 minutes on 2 cores)
	$(PYTEST) -m "not e2e" -n $(JOBS) --dist loadfile $(PYTEST_ARGS)
	$(PYTEST) -m e2e -n 2 --dist loadgroup $(PYTEST_ARGS)

.PHONY: test-fast
test-fast: install ## The tests that need no service and no Airflow (under 60 seconds)
	$(PYTEST) -m "not real and not airflow and not e2e and not fault" -n $(JOBS) --dist loadfile \
		--ignore tests/airflow_shell --ignore tests/end_to_end --ignore tests/faults $(PYTEST_ARGS)

.PHONY: chaos
chaos: install ## The asynchronous pattern under kills, outages and lying queues, ROUNDS times over (about 5 minutes each)
	AI_FAULT_ROUNDS=$(ROUNDS) $(PYTEST) tests/faults/jobs/test_chaos.py tests/faults/jobs/test_chaos_on_kafka.py -s $(PYTEST_ARGS)

.PHONY: lint
lint: install ## ruff, its formatter, and mypy --strict
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy --strict

.PHONY: wheel-check
wheel-check: install ## Build the wheel and use it in a clean environment
	UV=$(UV) scripts/wheel-check

.PHONY: demo
demo: install ## The three patterns in a real Airflow, on real data, against a real model server (under 4 minutes)
	$(BIN)/python -m scripts.demo $(DEMO_ARGS)

.PHONY: bench
bench: install ## The figures of the README's performance table (about 25 minutes)
	for name in batch_throughput batch_resume batch_memory batch_resume_large; do $(BIN)/python -m benchmarks.$$name; done
	for sink in duckdb postgresql; do $(BIN)/python -m benchmarks.batch_publish --sink $$sink; done

.PHONY: bench-sync
bench-sync: install ## The figures of synchronous calls: deadline, overhead, probes, import (about 18 minutes)
	for name in sync_hangs sync_overhead sync_half_open sync_import; do $(BIN)/python -m benchmarks.$$name; done

.PHONY: bench-compare
bench-compare: install $(COMPARE_STAMP) ## The table of docs/sync-call.md: other operators against the same servers
	$(BIN)/python -m benchmarks.sync_comparison --write

.PHONY: bench-async
bench-async: install ## The figures of asynchronous calls: submitting, waiting (about 9 minutes)
	for name in async_submit async_waiters async_triggerer; do $(BIN)/python -m benchmarks.$$name; done

.PHONY: bench-workers
bench-workers: install $(WORKERS_STAMP) ## Jobs per second of the worker, dramatiq-sqs and taskiq-aio-sqs (about 10 minutes)
	$(BIN)/python -m benchmarks.async_worker

.PHONY: bench-audit
bench-audit: install ## The figures of the audit: appending, what a call pays, verifying (about 3 minutes)
	$(BIN)/python -m benchmarks.audit

.PHONY: lock
lock: | $(filter $(OWN_UV),$(UV)) ## Regenerate the lock files (UPGRADE=--upgrade for newer versions)
	scripts/lock "$(UV)" $(UPGRADE)

.PHONY: clean
clean: ## Remove the environments and everything generated
	rm -rf .venv .venvs .uv build dist .demo *.egg-info .mypy_cache .pytest_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
