# The same targets serve a developer and the CI; `make` alone lists them.
SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help

PYTHON ?= python3
UV ?= uv
DOCKER ?= docker
# Tests on a control plane mostly wait: one more at a time than there are cores to expect.
JOBS ?= 3
VENV := .venv
BIN := $(VENV)/bin
PY := $(BIN)/python
STAMP := $(VENV)/.installed
# Requests/s of `make traffic` over time.
RPS ?= 0s=10,3m=100,6m=100,8m=10
PIP := $(PY) -m pip --disable-pip-version-check --no-input

.PHONY: help install demo test test-deps cluster-build cluster traffic cluster-down engine-build test-environments e2e lint check bench bench-policies docs golden lock wheel image clean

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## / {printf "  make %-17s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

install: $(STAMP) ## make .venv and install the locked packages into it (PYTHON=python3.12 picks another Python)

# The lock names every package: pip is not to resolve. What it finds for an extra may be newer than the
# lock and then has no hash there (pip 23.2 does so).
$(STAMP): requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	  echo "pd-planner needs Python 3.11 or later, '$(PYTHON)' is not: make $(MAKECMDGOALS) PYTHON=python3.12" >&2; exit 1; }
	@test -x $(PY) || $(PYTHON) -m venv $(VENV) || { rm -rf $(VENV); \
	  echo "'$(PYTHON)' cannot make a virtual environment: on Debian or Ubuntu, apt-get install python3-venv" >&2; exit 1; }
	@echo "installing the locked packages into $(VENV) (once, about a minute) ..."
	@$(PIP) install --quiet --no-deps --require-hashes --requirement requirements.lock
	@$(PIP) install --quiet --no-deps --no-build-isolation --editable .
	@if [ -f planner/simulation/warm.py ]; then echo "compiling the simulator ..."; $(PY) -m planner.simulation.warm; fi
	@touch $@

demo: install ## watch the whole loop on simulated servers: no cluster, no Prometheus, no GPU
	@$(BIN)/pd-planner demo

test: install ## run every test this machine can run, then say what was left out (CI=true: that is a failure)
	$(PY) -m pytest -n $(JOBS) --dist loadfile --no-loadscope-reorder

test-deps: ## as root on Debian or Ubuntu: install what the tests start (Prometheus, Chromium, OpenSSL)
	@missing=""; \
	{ command -v prometheus && command -v promtool; } >/dev/null || missing="$$missing prometheus"; \
	command -v chromium chromium-browser google-chrome google-chrome-stable >/dev/null || missing="$$missing chromium"; \
	command -v openssl >/dev/null || missing="$$missing openssl"; \
	$(PYTHON) -c 'import ensurepip' 2>/dev/null || missing="$$missing python3-venv"; \
	if [ -z "$$missing" ]; then echo "test-deps: everything is here"; exit 0; fi; \
	if [ "$$(id -u)" != 0 ] || ! command -v apt-get >/dev/null; then \
	  echo "test-deps: install by hand:$$missing (this target needs root and apt-get)" >&2; exit 1; fi; \
	export DEBIAN_FRONTEND=noninteractive RUNLEVEL=1; \
	apt-get update -qq; \
	apt-get install -qq -y --no-install-recommends $$missing </dev/null; \
	case "$$missing" in *prometheus*) service prometheus stop >/dev/null 2>&1 || true;; esac

cluster-build: install ## build the programs of the test cluster (once, about 12 minutes on 2 cores; needs Go)
	@$(PY) -m tests.cluster.build

cluster: install ## start a real control plane on this machine: Kubernetes and Volcano, simulated nodes
	@$(PY) -m tests.cluster up

traffic: install ## servers and a load behind the pods of the scenario in `make cluster`, until Ctrl-C
	@$(PY) -m tests.cluster.traffic -f manifests/overlays/scenario/planner/services.yaml \
	  --kubeconfig out/cluster/kubeconfig --target-file out/cluster/run/targets/traffic.json --rps $(RPS)

cluster-down: install ## end what `make cluster` started
	@$(PY) -m tests.cluster down

engine-build: install ## install a real vLLM for the tests, apart from .venv (once, 6 GB, about 2 minutes)
	@$(PY) -m tests.engine.build

test-environments: engine-build ## install what tests need apart from .venv: vLLM, Ray, AI Configurator (once)
	@$(PY) -m tests.integration.environments

e2e: install ## run the tests on a real control plane, and these alone
	$(PY) -m pytest tests/e2e --junitxml=out/e2e.xml

lint: install ## ruff, formatting, types and layering
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/lint-imports

check: lint ## what to run before a commit: lint, unit and property tests (under a minute)
	$(PY) -m pytest -q -m "not integration and not slow" tests/unit tests/property

bench: install ## run the benchmarks
	$(PY) -m benchmarks

bench-policies: install ## compare policies on the three cases, at equal attainment (hours; goes on where it was)
	$(PY) -m benchmarks.policies

docs: install ## write docs/spec.md and docs/settings.md anew from the models
	$(PY) -m planner.reference

golden: install ## write the expected records of the golden replays anew; review the diff
	$(PY) -m pytest -q -k golden --write-golden tests

lock: ## resolve requirements.lock anew (UPGRADE=--upgrade takes newer versions)
	@command -v $(UV) >/dev/null || { echo "lock: needs uv (pip install uv, or UV=path/to/uv)" >&2; exit 1; }
	$(UV) pip compile $(UPGRADE) --quiet --universal --python-version 3.11 --generate-hashes \
	  --no-emit-index-url --no-emit-find-links --no-header \
	  --extra simulation --extra prophet --group dev pyproject.toml --output-file requirements.lock

wheel: install ## build the wheel into dist/
	$(PY) -m build --wheel --no-isolation

image: ## build the container image (EXTRAS=simulation adds the simulator)
	$(DOCKER) build --build-arg EXTRAS="$(EXTRAS)" --tag pd-planner .

clean: ## remove what the other targets made, except .venv and the programs of the test cluster
	@if [ -e out/cluster/lock ] && [ -x $(PY) ]; then $(PY) -m tests.cluster down; fi
	rm -rf build dist out .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache .coverage
	find planner predictors profiles tests benchmarks -name __pycache__ -type d -prune -exec rm -rf {} + 2>/dev/null || true
