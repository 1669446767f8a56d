# Every recipe sets up what it needs; `make help` lists them.
PYTHON ?= python3.11
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
ARGS ?=
KEEP ?=
ENV ?=
ENGINES ?=
DATA ?= ../shared/data
# Where it is set, each of the many processes of a demo or a test would compile every module anew, a second each.
unexport PYTHONDONTWRITEBYTECODE

.DEFAULT_GOAL := help
.PHONY: help demo demo-fraud test test-slow test-all check lint format types direction layout docs bench lock clean

help: ## list the recipes
	@grep -E '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## /\t/' | expand -t 12

$(READY): requirements/all.txt pyproject.toml
	@tools/setup.sh "$(PYTHON)" "$(VENV)"
	@touch $@

demo: $(READY) ## flights of 2013: trained, served, released, watched and trained again (KEEP=1 leaves the server and the console up until Ctrl-C; ARGS=--json; ENV=cluster: on simulated machines)
	@$(if $(filter cluster,$(ENV)),PYTHON="$(PYTHON)" tools/engines.sh && PATH="$(CURDIR)/.engines/bin:$$PATH" $(BIN)/python tools/cluster_demo.py,$(BIN)/cumulant demo $(if $(KEEP),--keep)) $(ARGS)

demo-fraud: $(READY) ## card payments from a topic to decisions, through a Black Friday of five times as many (KEEP=1 leaves everything and the console up until Ctrl-C; ARGS=--json; ENGINES=live: Kafka, Flink and Valkey)
	@$(if $(filter live,$(ENGINES)),PYTHON="$(PYTHON)" tools/engines.sh && PATH="$(CURDIR)/.engines/bin:$$PATH" $(BIN)/python tools/live_demo.py,$(BIN)/cumulant demo-fraud) $(if $(KEEP),--keep) $(ARGS)

test: $(READY) ## the fast tests, in parallel; they need no engine (those that fail run once more, alone)
	@$(BIN)/python tools/run_tests.py -m "not slow and not live" $(ARGS)

test-slow: $(READY) ## the slow tests and those of real engines (tools/engines.sh installs the engines)
	@$(BIN)/python tools/run_tests.py -m "slow or live" $(ARGS)

test-all: $(READY) ## both, in one run: what is slow waits while the others compute
	@$(BIN)/python tools/run_tests.py $(ARGS)

check: lint types direction layout docs ## lint, format, types, import direction, names and folders, documents

lint: $(READY)
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .

format: $(READY) ## put the code into its format
	@$(BIN)/ruff check --fix .
	@$(BIN)/ruff format .

types: $(READY)
	@$(BIN)/mypy

direction: $(READY)
	@$(BIN)/lint-imports --no-cache

layout: $(READY)
	@$(BIN)/python tools/check_layout.py
	@$(BIN)/python tools/check_commits.py

docs: $(READY)
	@$(BIN)/python tools/check_docs.py

bench: $(READY) ## all benchmarks (40 minutes; serving needs wrk, and bench/serving/peers.sh for its peers; online needs valkey-server, and streams kafka-run, as of tools/engines.sh); figures go to bench/RESULTS.md by hand, with the machine
	@$(BIN)/python bench/features/run.py $(DATA)
	@$(BIN)/python bench/features/advance.py $(DATA)
	@$(BIN)/python bench/training/automl.py
	@$(BIN)/python bench/training/tabular.py
	@$(BIN)/python bench/journal/writers.py
	@$(BIN)/python bench/serving/batch.py
	@$(BIN)/python bench/projects/run.py $(DATA)
	@$(BIN)/python bench/online/hot_entity.py
	@PATH="$(CURDIR)/.engines/bin:$$PATH" $(BIN)/python bench/online/run.py
	@PATH="$(CURDIR)/.engines/bin:$$PATH" $(BIN)/python bench/streams/ingest.py
	@PATH="$(CURDIR)/.engines/bin:$$PATH" $(BIN)/python bench/streams/online.py
	@$(BIN)/python bench/streams/kills.py
	@$(BIN)/python bench/serving/run.py
	@$(BIN)/python bench/monitoring/review.py $(DATA)
	@$(BIN)/python bench/console/run.py

lock: ## compile requirements/all.txt from pyproject.toml (needs uv)
	@uv pip compile --quiet --generate-hashes --no-header --no-emit-index-url --python-version 3.11 --universal \
	  --extra local --extra audit --extra catboost --extra cedar --extra console --extra excel --extra xgboost --extra objects --extra otel --extra river --extra kafka --extra kinesis --extra spark --extra schemas --extra valkey --extra postgres --group dev pyproject.toml requirements/all.in -o requirements/all.txt
	@uv pip compile --quiet --generate-hashes --no-header --no-emit-index-url --python-version 3.11 --universal \
	  --extra serve pyproject.toml -o requirements/serve.txt
	@uv pip compile --quiet --generate-hashes --no-header --no-emit-index-url --python-version 3.11 --universal \
	  requirements/engines.in -o requirements/engines.txt

clean: ## remove what the recipes made
	rm -rf $(VENV) .pytest_cache .mypy_cache .ruff_cache .hypothesis cumulant-demo cumulant-demo-fraud cumulant-demo.json dist
