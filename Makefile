# make run: the main job, from raw files to a report.   make test: everything that CI checks.
SHELL := /bin/bash
PYTHON ?= python3.11
VENV := .venv
BIN := $(VENV)/bin
LOCK_HASH := $(shell sha256sum requirements.lock pyproject.toml | sha256sum | cut -c1-16)
STAMP := $(VENV)/.installed-$(LOCK_HASH)
ENV ?= base
KEEP ?= 5
export DO_NOT_TRACK := 1

.DEFAULT_GOAL := help
.PHONY: help install run test long spark lint claims viz notebook bench docs screenshots prune clean

help:  ## this list
	@grep -hE '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## /\t/' | expand -t 12

$(STAMP): requirements.lock pyproject.toml
	$(PYTHON) -m venv $(VENV)
	# torch first: whatever follows leaves its build alone
	$(BIN)/pip install --quiet "$$(grep '^torch==' requirements.lock)"
	$(BIN)/pip install --quiet -r requirements.lock
	$(BIN)/pip install --quiet --no-deps --editable .
	rm -f $(VENV)/.installed-*
	touch $@

install: $(STAMP)  ## make .venv from the lock

run: $(STAMP)  ## kedro run --pipeline mt_dqn, in ENV=base
	$(BIN)/kedro run --pipelines mt_dqn --env $(ENV)

lint: $(STAMP)  ## ruff, mypy --strict, import contract
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-cache

# one thread a worker: two workers fill two cores; lint beside them, shown at the end
test: export OMP_NUM_THREADS = 1
test: export POLARS_MAX_THREADS = 1
test: $(STAMP)  ## everything that CI checks
	@said=$$(mktemp); $(MAKE) --no-print-directory lint >$$said 2>&1 & lint=$$!; \
	$(BIN)/pytest -n 2 --dist loadfile -m "not long"; tested=$$?; \
	wait $$lint; linted=$$?; cat $$said; rm -f $$said; exit $$((tested | linted))

long: export OMP_NUM_THREADS = 1
long: export POLARS_MAX_THREADS = 1
long: $(STAMP)  ## whole runs that make test leaves out: A/B test, other tracks, systems on real rows
	$(BIN)/pytest -n 2 --dist loadfile -m long

spark: $(STAMP)  ## test of the distributed engine, in an environment of its own (needs Java 17 or 21)
	test -d .venv-spark || $(PYTHON) -m venv .venv-spark
	echo $(abspath $(VENV))/lib/$(PYTHON)/site-packages > .venv-spark/lib/$(PYTHON)/site-packages/reelrank.pth
	echo $(CURDIR)/src >> .venv-spark/lib/$(PYTHON)/site-packages/reelrank.pth
	.venv-spark/bin/pip install --quiet "pyspark>=4.3,<5"
	.venv-spark/bin/python -m pytest tests/sources/test_ingest.py -k spark

claims: $(STAMP)  ## statistical claims on planted truth (takes a while)
	$(BIN)/python claims/ope.py
	$(BIN)/python claims/mt_dqn.py
	$(BIN)/python claims/fusion.py
	$(BIN)/python claims/social.py
	$(BIN)/python claims/reward.py
	$(BIN)/python claims/trainings.py
	$(BIN)/python claims/student.py
	$(BIN)/python claims/head_weights.py
	$(BIN)/python claims/value_model.py
	$(BIN)/python claims/ruie.py
	$(BIN)/python claims/mmrf.py

viz: $(STAMP)  ## lineage in the browser
	$(BIN)/kedro viz run --include-hooks

notebook: $(STAMP)  ## JupyterLab on the catalog
	$(BIN)/kedro jupyter lab

bench: $(STAMP)  ## one benchmark: make bench NAME=world
	@test -n "$(NAME)" || { ls benchmarks/*.py | xargs -n1 basename | sed 's/\.py$$//'; exit 2; }
	$(BIN)/python benchmarks/$(NAME).py

docs: $(STAMP)  ## data dictionary and parameters from their declarations, README's numbers from the newest run
	$(BIN)/python docs/make_data_dictionary.py
	$(BIN)/python docs/make_parameters.py
	$(BIN)/python docs/make_numbers.py

screenshots: $(STAMP)  ## README's pictures, from the newest results and lineage (needs Chromium)
	$(BIN)/kedro run --pipelines reporting
	$(BIN)/kedro viz build --include-hooks
	$(BIN)/python docs/make_screenshots.py

prune: $(STAMP)  ## drop all but the newest KEEP=5 versions of versioned outputs
	$(BIN)/python -m reelrank.datasets.prune --keep $(KEEP)

clean:  ## remove what runs made; raw files that you put into data/01_raw stay
	rm -rf data/01_raw/sample data/01_raw/test data/01_raw/*/*_manifest.json build .viz
	# Numba does not see that a kernel which another file's kernel calls has changed
	find src -name '*.nb[ci]' -delete
	find data -mindepth 2 -path 'data/0[2-8]_*' ! -name .gitkeep -delete
