# `make help` lists the targets. Each one sets up .venv first, if it is missing or older than what it is made from.
SHELL := /bin/bash
PYTHON ?= python3
BIN := .venv/bin
STAMP := .venv/.setup-done
START := $(shell date +%s)

.DEFAULT_GOAL := help
.PHONY: help setup demo bench test test-slow fuzz lint types contracts fmt docs docs-tables docs-timm ci clean

help: ## list the targets
	@grep -E '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  %-12s %s\n", $$1, $$2}'

setup: $(STAMP) ## make .venv with everything seedcnn needs (uv when it is there, else pip)

$(STAMP): pyproject.toml constraints.txt tools/setup.sh
	PYTHON="$(PYTHON)" tools/setup.sh
	@touch $(STAMP)

demo: $(STAMP) ## train, measure, pack, publish, update a device, classify (ARGS=... is passed on)
	$(BIN)/python examples/demo.py --started $(START) $(ARGS)

bench: $(STAMP) ## latency, training steps and int8 of every form against the vanilla one (half an hour, alone)
	for name in layers forms training int8 mobile; do $(BIN)/python benchmarks/$$name.py $(ARGS) || exit 1; done

test: $(STAMP) ## the test suite, in a process for each core (four at most) with one thread
	OMP_NUM_THREADS=1 $(BIN)/pytest -q -n auto --maxprocesses 4 --dist loadfile --no-loadscope-reorder \
	  --durations=20 -m "not slow" $(ARGS)

test-slow: $(STAMP) ## the tests that take minutes
	$(BIN)/pytest -q --durations=10 -m slow $(ARGS)

fuzz: $(STAMP) ## damaged bundles and deltas, guided by coverage (ten minutes; ARGS="-runs=10000000" for more)
	$(BIN)/python -c "import atheris" 2>/dev/null || EXTRAS=fuzz tools/setup.sh
	@mkdir -p .fuzz
	$(BIN)/python tests/fuzz/fuzz_bundle.py .fuzz tests/fuzz/corpus -timeout=1 -rss_limit_mb=512 -artifact_prefix=.fuzz/found- \
	  $(or $(ARGS),-max_total_time=600)

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

docs: $(STAMP) ## write docs/cli.md, docs/benchmarks.md, recipes/index.json and the tables of README and docs
	$(BIN)/python tools/cli_docs.py
	$(BIN)/python tools/result_tables.py
	$(BIN)/python tools/bench_tables.py
	$(BIN)/python tools/recipe_index.py

docs-tables: $(STAMP) ## write docs/tables.md: the papers' figures beside ours (minutes)
	$(BIN)/python tools/paper_tables.py

docs-timm: $(STAMP) ## write docs/timm.md: timm networks converted, trained, exported (many minutes)
	$(BIN)/python tools/timm_table.py --jobs 2

ci: ## all that a change must pass
	.ci/run

clean: ## remove caches, build output and the demo's output; .venv and training runs stay
	rm -rf .fuzz .mypy_cache .pytest_cache .ruff_cache .hypothesis .import_linter_cache build dist demo-out .coverage
	find . -path ./.venv -prune -o -name __pycache__ -type d -print0 | xargs -0 rm -rf
