# `make demo` and `make test` are all a newcomer needs; both set up .venv when it is missing.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
DEMO_OUT ?= demo

# Processes that run the tests, a thread each: more threads than cores wait for each other far longer than they work.
TEST_PROCESSES ?= 2

.PHONY: setup demo test check lint bench docs audit clean

setup: $(VENV)/.complete

# Built under another name would break the scripts' paths: the marker comes last instead, so a broken set-up is redone.
$(VENV)/.complete: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	PIP_CONSTRAINT=constraints.txt $(BIN)/pip install --quiet --disable-pip-version-check torch
	PIP_CONSTRAINT=constraints.txt $(BIN)/pip install --quiet --disable-pip-version-check -e '.[dev]'
	touch $@

demo: setup
	$(BIN)/hyperdpo demo --out $(DEMO_OUT)

test: setup lint
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n $(TEST_PROCESSES) --dist worksteal

# What a change of the mathematics or of the readers needs first: a minute at most, once mypy and numba have their caches.
check: setup lint
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q -n $(TEST_PROCESSES) --dist worksteal \
		tests/core tests/data tests/ranking/test_metrics.py

lint: setup
	$(BIN)/ruff check src tests benchmarks docs tools
	$(BIN)/ruff format --check src tests benchmarks docs tools
	$(BIN)/mypy

docs: setup
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet
	@echo site/index.html

# Known weaknesses of the installed packages. It asks a public service, so no test needs it.
audit: setup
	PIP_CONSTRAINT=constraints.txt $(BIN)/pip install --quiet --disable-pip-version-check 'pip-audit>=2.7'
	$(BIN)/python tools/audit.py

bench: setup
	for file in benchmarks/bench_*.py; do echo "== $$file"; $(BIN)/python $$file || exit 1; done

clean:
	rm -rf $(VENV) $(DEMO_OUT) site .cache .pytest_cache .mypy_cache .ruff_cache .hypothesis
