# Two commands do everything on a machine with python3 >= 3.11 and make.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed

.PHONY: demo test test-fast lint benchmark clean
demo: $(STAMP)
	$(BIN)/sgworld-mcmc demo

test: $(STAMP)
	$(BIN)/python -m pytest -n 2 --dist worksteal

test-fast: $(STAMP)
	$(BIN)/python -m pytest -m "not slow" -n 2 --dist worksteal

lint: $(STAMP)
	$(BIN)/ruff check sgworld_mcmc sgworld_benchmarks tests examples
	$(BIN)/ruff format --check sgworld_mcmc sgworld_benchmarks tests examples

benchmark: $(STAMP)
	$(BIN)/sgworld-mcmc benchmark stationary

$(STAMP): pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "error: $(PYTHON) is older than Python 3.11; give a newer one: make PYTHON=python3.12 ..."; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet --editable '.[test]'
	@touch $(STAMP)

clean:
	rm -rf $(VENV) out
