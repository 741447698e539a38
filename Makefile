# Every target installs what it needs, may be repeated at any time, and says what it does.
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
BIN := .venv/bin
PYTEST_ARGS ?=
# Three processes for two cores, for about half of what tests do is to wait; the tests of a file stay together and
# begin in the order of their folders, long ones early.
PYTEST_PROCESSES ?= -n $$(($$(nproc) * 3 / 2)) --dist loadfile --no-loadscope-reorder
BENCH_ARGS ?=
LOCK_ARGS ?=
# Images of containers set it.  Tests start hundreds of processes, each of which would compile what it imports.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: help up down purge install install-dev check lint format test test-kubernetes bench bench-engine bench-flow bench-bus bench-network bench-dns bench-edge bench-ha bench-release bench-kubernetes demo-flows demo-dc demo-release lock

help: ## show this list
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-15s %s\n", $$1, $$2}'

up: install ## install what is missing, start skep, deploy examples/hello, print its URL
	@scripts/up

down: ## stop skep and its containers; data stays
	@scripts/down

purge: ## remove skep, its data and everything it installed from this machine
	@scripts/purge

install: ## install skep and what it needs, without starting it
	@scripts/install

install-dev: ## the same with what tests and checks need
	@scripts/install --dev

check: ## everything CI runs: lint, types, layers, tests; at the same time, for mypy has one thread
	@$(MAKE) --no-print-directory -j2 lint test

lint: install-dev ## ruff, mypy --strict, import-linter
	@echo "==> ruff"
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@echo "==> mypy --strict"
	@$(BIN)/mypy
	@echo "==> import-linter"
	@$(BIN)/lint-imports

format: install-dev ## let ruff repair and format the code
	@$(BIN)/ruff check --fix .
	@$(BIN)/ruff format .

test: install-dev ## all tests; those that need root are skipped, with the reason, for others
	@echo "==> pytest $(PYTEST_ARGS)"
	@# Real parts have real time limits, which a busy machine may miss: what failed is tried once more, alone.
	@$(BIN)/pytest $(PYTEST_PROCESSES) $(PYTEST_ARGS) || { echo "==> once more, alone"; $(BIN)/pytest --last-failed --last-failed-no-failures none; }

test-kubernetes: ## tests that need a Kubernetes: built once (minutes), then started, tried and taken down (root)
	@scripts/install --dev --kubernetes
	@scripts/kubernetes build >/dev/null
	@echo "==> pytest -m kubernetes $(PYTEST_ARGS)"
	@# Tests mostly wait for pods: images that some of them run are built meanwhile.  Each process has a cluster of its
	@# own; no other tests are collected, which takes each of them longer than some tests.
	@$(BIN)/python -m tests.deploy.building & images=$$!; \
		trap 'kill $$images 2>/dev/null || true; wait' EXIT; \
		tests=$$(grep -rl --include='test_*.py' 'mark\.kubernetes' tests | sort); \
		$(BIN)/pytest -m kubernetes $(PYTEST_PROCESSES) $(PYTEST_ARGS) $$tests || \
		{ echo "==> once more, alone"; $(BIN)/pytest -m kubernetes --last-failed --last-failed-no-failures none $$tests; }

bench: bench-engine bench-flow bench-bus bench-network bench-dns bench-edge bench-ha bench-release ## every benchmark

bench-engine: ## containers: speed and weight beside podman (one JSON line per figure)
	@scripts/install --dev --bench >&2
	@$(BIN)/python -m tests.bench.engine $(BENCH_ARGS)

bench-flow: ## the flow engine beside others, on SQLite and PostgreSQL (one JSON line per figure)
	@scripts/install --dev --bench >&2
	@$(BIN)/python -m tests.bench.flow $(BENCH_ARGS)

bench-bus: ## commands and events within one process and over RabbitMQ (one JSON line per figure)
	@scripts/install --dev >&2
	@$(BIN)/python -m tests.bench.bus $(BENCH_ARGS)
	@$(BIN)/python -m tests.bench.calls $(BENCH_ARGS)

bench-network: ## networks over several hosts beside plain ones (one JSON line per figure)
	@scripts/install --dev >&2
	@$(BIN)/python -m tests.bench.network $(BENCH_ARGS)

bench-dns: ## the resolver of networks beside kept servers (one JSON line per figure)
	@scripts/install --dev --bench >&2
	@$(BIN)/python -m tests.bench.dns $(BENCH_ARGS)

bench-edge: ## endpoints beside a bare HAProxy (one JSON line per figure)
	@scripts/install --dev --bench >&2
	@$(BIN)/python -m tests.bench.edge $(BENCH_ARGS)

bench-ha: ## kills of everything under load: how long until it goes on (one JSON line per figure)
	@scripts/install --dev >&2
	@$(BIN)/python -m tests.bench.ha $(BENCH_ARGS)

bench-kubernetes: ## a cluster's replicas beside kubectl apply; 2,000 pods on 50 hollow nodes (one JSON line per figure)
	@scripts/install --dev --kubernetes >&2
	@$(BIN)/python -m tests.bench.kubernetes $(BENCH_ARGS)

bench-release: ## releases under load beside a recreate with podman: what clients notice (one JSON line per figure)
	@scripts/install --dev --bench >&2
	@$(BIN)/python -m tests.bench.release $(BENCH_ARGS)

demo-flows: install ## flows you can watch: an approval, a fan-out of 1,000, an undo, a hot update under load
	@$(BIN)/python examples/flows/demo.py

demo-dc: install ## a data centre you can watch: six hosts, a shop across them, a host and control killed meanwhile (root)
	@$(BIN)/python examples/datacentre/demo.py

demo-release: install ## releases nobody notices: a shop under load, rolling, atomic, canary, rollback (root)
	@$(BIN)/python examples/release/demo.py

lock: ## write requirements*.lock anew from pyproject.toml (LOCK_ARGS=--upgrade: newest versions)
	@scripts/install --tools
	@scripts/lock $(LOCK_ARGS)
