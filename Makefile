# `make help` lists the targets. Each one first makes .venv, if it is missing or older than its sources.
SHELL := /bin/bash
PYTHON ?= python3
BIN := .venv/bin
STAMP := .venv/.setup-done
START := $(shell date +%s)

.DEFAULT_GOAL := help
.PHONY: help setup demo fleet-demo notebook bench test test-slow fuzz lint types contracts fmt docs docs-tables docs-timm ci clean

help: ## list the targets
	@grep -E '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  %-12s %s\n", $$1, $$2}'

setup: $(STAMP) ## make .venv with everything seedcnn needs (with uv if it is installed, else pip)

$(STAMP): pyproject.toml constraints.txt tools/setup.sh
	@PYTHON="$(PYTHON)" tools/setup.sh
	@touch $(STAMP)

demo: $(STAMP) ## train, measure, pack, publish, update a device, classify (ARGS="..." adds options)
	@$(BIN)/python examples/demo.py --started $(START) $(ARGS)

fleet-demo: $(STAMP) ## roll releases out to 20 devices on this machine, two of them bad, and take those back (Linux)
	@OMP_NUM_THREADS=1 $(BIN)/python examples/fleet_demo.py $(ARGS)

notebook: $(STAMP) ## open examples/first_steps.ipynb in JupyterLab, which it installs at first
	@$(BIN)/python -c "import jupyterlab" 2>/dev/null || EXTRAS=notebook tools/setup.sh
	@$(BIN)/jupyter lab examples/first_steps.ipynb $(ARGS)

bench: $(STAMP) ## time every form against the vanilla network: latency, training, int8 (half an hour on an idle machine)
	for name in layers forms training int8 mobile; do $(BIN)/python benchmarks/$$name.py $(ARGS) || exit 1; done

test: $(STAMP) ## run the quick tests, in one process for each core, four at most
	OMP_NUM_THREADS=1 $(BIN)/pytest -q -n auto --maxprocesses 4 --max-worker-restart 0 --dist loadfile --no-loadscope-reorder \
	  --durations=20 -m "not slow" $(ARGS)

test-slow: $(STAMP) ## run the slow tests: more cases of the same behaviours, and what must be compiled
	$(BIN)/pytest -q --durations=10 -o faulthandler_timeout=2000 -m slow $(ARGS)

fuzz: $(STAMP) ## feed the readers damaged bundles and deltas (ten minutes; ARGS="-runs=10000000" for more)
	$(BIN)/python -c "import atheris" 2>/dev/null || EXTRAS=fuzz tools/setup.sh
	@mkdir -p .fuzz
	$(BIN)/python tests/fuzz/fuzz_bundle.py .fuzz tests/fuzz/corpus -timeout=1 -rss_limit_mb=512 -artifact_prefix=.fuzz/found- \
	  $(or $(ARGS),-max_total_time=600)

lint: $(STAMP) ## check style and format
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(STAMP) ## check types
	$(BIN)/mypy

contracts: $(STAMP) ## check that imports point down only
	$(BIN)/lint-imports

fmt: $(STAMP) ## fix style and format
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

ci: ## run everything that a change must pass
	.ci/run

clean: ## remove caches, build output and the demo's output, but neither .venv nor training runs
	rm -rf .fuzz .mypy_cache .pytest_cache .ruff_cache .hypothesis .import_linter_cache build dist demo-out .coverage
	find . -path ./.venv -prune -o -name __pycache__ -type d -print0 | xargs -0 rm -rf
