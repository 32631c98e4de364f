# The newest that runs and can make an environment: on a PATH may be a name whose version is not installed.
PYTHON ?= $(shell for it in python3.13 python3.12 python3.11; do $$it -c 'import ensurepip' 2>/dev/null && echo $$it && break; done)
PY := .venv/bin/python
REDLINE := .venv/bin/redline
TORCH := $(shell sed -n 's/^torch==//p' requirements.lock)
# What to add to the command of `make run` or `make send`, as in: make run ARGS="hydra.sweeper.seeds=3"
ARGS ?=
# How many faults `make faults` lets strike, and from which seed: another one each time unless it is given.
FAULTS ?= 100
SEED ?=
# Of which search `make report` writes: the latest one unless it is given.
SEARCH ?=
# Where `make ui` and `make dashboard` look: under mlruns/ unless it is given.
TRACKING_URI ?=
STORAGE ?=

.DEFAULT_GOAL := help
.PHONY: help setup run test faults test-ray lint format bench ui dashboard report send screenshots gate techniques clean

help: ## list the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-11s %s\n", $$1, $$2}'

setup: .venv/installed ## make the environment .venv from pinned versions

.venv/installed: requirements.lock pyproject.toml
	@$(or $(PYTHON),false) -c 'import ensurepip' 2>/dev/null || { echo "error: PYTHON=$(PYTHON): no Python that runs, with venv; allowed: 3.11, 3.12 or 3.13, as in make setup PYTHON=/path/to/python3.11"; exit 2; }
	@echo "installing into .venv with $(PYTHON) (about two minutes)"
	$(PYTHON) -m venv .venv
	@# torch first and with what it needs: a build for GPUs brings its own CUDA packages
	$(PY) -m pip install --quiet -c requirements.lock torch==$(TORCH)
	$(PY) -m pip install --quiet --no-deps -r requirements.lock
	$(PY) -m pip install --quiet --no-deps --no-build-isolation -e .
	@touch $@

run: setup ## the demo: up to which LR are four variants useful, and stable? on Shakespeare (about 5 minutes on 2 cores)
	@$(REDLINE) search experiment=demo norm=baseline,qk,qkv,qk_cap $(ARGS)

test: .venv/bench/installed ## all tests; some compare with Hugging Face's models
	$(PY) -m pytest

.venv/ray/installed: .venv/installed tests/command_line/ray.lock
	$(PY) -m pip install --quiet --no-deps --upgrade --target .venv/ray -r tests/command_line/ray.lock
	@touch $@

test-ray: .venv/ray/installed ## install Ray (250 MB) beside the environment, and run its test
	$(PY) -m pytest -n 0 tests/command_line/test_ray.py

faults: setup ## kill, freeze and starve searches at random: make faults FAULTS=100 SEED=1 (about 12 minutes on 2 cores)
	PYTHONPATH=src:tests:tests/search $(PY) tests/faults/long_run.py --faults $(FAULTS) $(if $(SEED),--seed $(SEED))

lint: setup ## ruff and mypy
	$(PY) -m ruff check .
	$(PY) -m ruff format --check .
	$(PY) -m mypy

format: setup ## let ruff format and fix what it can
	$(PY) -m ruff format .
	$(PY) -m ruff check --fix .

.venv/bench/installed: .venv/installed bench/requirements.lock
	$(PY) -m pip install --quiet --no-deps --upgrade --target .venv/bench -r bench/requirements.lock
	@touch $@

bench: .venv/bench/installed ## step speed beside a lean loop and two peers, logging, taps, attention paths, the search's policy and workers
	$(PY) bench/train_speed.py
	$(PY) bench/remedy_speed.py
	$(PY) bench/logging_cost.py
	$(PY) bench/monitor_cost.py
	$(PY) bench/attention_paths.py
	$(PY) bench/calibration.py
	$(PY) bench/search_replay.py
	$(PY) bench/cut.py
	$(PY) bench/gate_noise.py
	$(PY) bench/search_idle.py
	$(PY) bench/worker_scaling.py
	$(PY) bench/ddp.py
	$(PY) bench/report_speed.py

gate: setup ## has anything got worse since a stored search? make gate BASELINE=result.json [NEW=result.json]
	@test -n "$(BASELINE)" || { echo "error: BASELINE: not given; allowed: the path of a stored result.json"; exit 2; }
	$(REDLINE) gate "$(BASELINE)" $(if $(NEW),"$(NEW)") $(ARGS)

# By the environment: as an argument everybody on the machine could read a password in it.
ui: export MLFLOW_BACKEND_STORE_URI := $(or $(TRACKING_URI),$(MLFLOW_BACKEND_STORE_URI))
ui: setup ## MLflow's UI on what was tracked: make ui TRACKING_URI=postgresql://USER:PASSWORD@HOST/DATABASE
	@$(REDLINE) ui

dashboard: export REDLINE_STORAGE := $(or $(STORAGE),$(REDLINE_STORAGE))
dashboard: setup ## Optuna's dashboard on the searches: make dashboard STORAGE=postgresql://USER:PASSWORD@HOST/DATABASE
	@$(REDLINE) dashboard

report: setup ## one HTML page on a search: make report SEARCH=NAME (default: the latest)
	$(REDLINE) report $(if $(SEARCH),"$(SEARCH)")

send: setup ## send what waits in mlruns/outbox to MLflow: make send ARGS="tracker.mlflow.tracking_uri=…"
	@$(REDLINE) send $(ARGS)

screenshots: setup ## the README's pictures, of a search: make screenshots SEARCH=NAME (needs chromium and chromedriver)
	PYTHONPATH=src:tests $(PY) tests/browser/take_screenshots.py $(SEARCH)

techniques: setup ## write docs/techniques.md from conf/
	$(PY) tests/package/techniques.py

clean: ## remove the environment and caches; keeps mlruns/
	rm -rf .venv .pytest_cache .ruff_cache .mypy_cache .hypothesis
