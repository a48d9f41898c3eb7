# `make help` lists the targets. Each one sets up .venv first, if it is missing or older than what it is made from.
SHELL := /bin/bash
PYTHON ?= python3
BIN := .venv/bin
STAMP := .venv/.setup-done
START := $(shell date +%s)

.DEFAULT_GOAL := help
.PHONY: help setup demo bench test test-slow lint types contracts fmt docs docs-tables docs-timm ci clean

help: ## list the targets
	@grep -E '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  %-12s %s\n", $$1, $$2}'

setup: $(STAMP) ## make .venv with everything seedcnn needs (uv when it is there, else pip)

$(STAMP): pyproject.toml constraints.txt tools/setup.sh
	PYTHON="$(PYTHON)" tools/setup.sh
	@touch $(STAMP)

demo: $(STAMP) ## train, measure, pack, publish, update a device, classify (ARGS=... is passed on)
	$(BIN)/python examples/demo.py --started $(START) $(ARGS)

bench: $(STAMP) ## latency of every form of a network against the vanilla one
	$(BIN)/python benchmarks/forms.py $(ARGS)
	$(BIN)/python benchmarks/mobile.py

test: $(STAMP) ## the test suite
	$(BIN)/pytest -q --durations=10 -m "not slow" $(ARGS)

test-slow: $(STAMP) ## the tests that take minutes
	$(BIN)/pytest -q --durations=10 -m slow $(ARGS)

lint: $(STAMP) ## style and format, checked
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(STAMP) ## types, checked
	$(BIN)/mypy

contracts: $(STAMP) ## imports point down only, checked
	$(BIN)/lint-imports

fmt: $(STAMP) ## mend style and format
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

docs: $(STAMP) ## write docs/cli.md from the commands' own help, and README's table from results/
	$(BIN)/python tools/cli_docs.py
	$(BIN)/python tools/demo_table.py

docs-tables: $(STAMP) ## write docs/tables.md: the papers' figures beside ours (minutes)
	$(BIN)/python tools/paper_tables.py

docs-timm: $(STAMP) ## write docs/timm.md: timm networks converted, trained, exported (many minutes)
	$(BIN)/python tools/timm_table.py --jobs 2

ci: ## all that a change must pass
	.ci/run

clean: ## remove caches, build output and the demo's output; .venv and training runs stay
	rm -rf .mypy_cache .pytest_cache .ruff_cache .hypothesis .import_linter_cache build dist demo-out .coverage
	find . -path ./.venv -prune -o -name __pycache__ -type d -print0 | xargs -0 rm -rf
