# Two commands do everything on a machine with python3 >= 3.11 and make.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed

.PHONY: demo test test-fast lint hygiene mutations benchmark clean
demo: $(STAMP)
	$(BIN)/sgworld-mcmc demo

test: $(STAMP)
	$(BIN)/python -m pytest -n 2 --dist worksteal

test-fast: $(STAMP)
	$(BIN)/python -m pytest -m "not slow" -n 2 --dist worksteal

lint: $(STAMP)
	$(BIN)/ruff check sgworld_mcmc sgworld_benchmarks tests examples
	$(BIN)/ruff format --check sgworld_mcmc sgworld_benchmarks tests examples

# A walk along every public path under JAX's own checks, and shapes and types as they are declared.
WALK := -m pytest -m "not slow" -p no:cacheprovider
hygiene: $(STAMP)
	JAX_CHECK_TRACER_LEAKS=1 $(BIN)/python $(WALK) tests/hygiene
	JAX_DEBUG_KEY_REUSE=1 $(BIN)/python $(WALK) tests/hygiene
	JAX_ENABLE_X64=1 $(BIN)/python $(WALK) tests/hygiene
	$(BIN)/python -W error $(WALK) -W error tests/hygiene
	$(BIN)/python $(WALK) --jaxtyping-packages=sgworld_mcmc.nonequilibrium,sgworld_mcmc.data.orders,beartype.beartype tests/nonequilibrium tests/data/test_batches.py
	$(BIN)/pyright --pythonpath $(BIN)/python

# Twenty-seven deliberate faults, one at a time in a copy of the package: the fast tests notice all.
mutations: $(STAMP)
	$(BIN)/python tests/mutations/check.py

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
