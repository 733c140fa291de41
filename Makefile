# Everything here needs python3 >= 3.11 and make, and nothing else. `make help` lists the commands.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed

.PHONY: help demo test test-fast test-all lint hygiene mutations benchmark docs dist clean
help:  ## list these commands
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | \
	  awk -F '\t' '{printf "  make %-10s %s\n", $$1, $$2}'

demo: $(STAMP)  ## SGWORLD, SGLD, NUTS and Laplace side by side on real data
	$(BIN)/sgworld-mcmc demo

test: $(STAMP)  ## all tests
	$(BIN)/python -m pytest -n 2 --dist worksteal

test-fast: $(STAMP)  ## all tests but long simulations, benchmarks and examples
	$(BIN)/python -m pytest -m "not slow" -n 2 --dist worksteal

test-all: $(VENV)/.release  ## the fast tests on every Python that is there, and on the oldest libraries
	$(BIN)/nox

lint: $(STAMP)  ## style of the code
	$(BIN)/ruff check sgworld_mcmc sgworld_benchmarks tests examples
	$(BIN)/ruff format --check sgworld_mcmc sgworld_benchmarks tests examples

# A walk along every public path under JAX's own checks, and shapes and types as they are declared.
WALK := -m pytest -m "not slow" -p no:cacheprovider
hygiene: $(STAMP)  ## every public path under JAX's own checks, and the declared types
	JAX_CHECK_TRACER_LEAKS=1 $(BIN)/python $(WALK) tests/hygiene
	JAX_DEBUG_KEY_REUSE=1 $(BIN)/python $(WALK) tests/hygiene
	JAX_ENABLE_X64=1 $(BIN)/python $(WALK) tests/hygiene
	$(BIN)/python -W error $(WALK) -W error tests/hygiene
	$(BIN)/python $(WALK) --jaxtyping-packages=sgworld_mcmc.nonequilibrium,sgworld_mcmc.data.orders,beartype.beartype tests/nonequilibrium tests/data/test_batches.py
	$(BIN)/pyright --pythonpath $(BIN)/python

# Thirty-two deliberate faults, one at a time in a copy of the package: the fast tests notice all.
mutations: $(STAMP)  ## deliberate faults, which the fast tests must notice
	$(BIN)/python tests/mutations/check.py

benchmark: $(STAMP)  ## KL divergence of SGLD and SGWORLD against the step size
	$(BIN)/sgworld-mcmc benchmark stationary

docs: $(VENV)/.docs  ## the documentation, docs/_build/html/index.html
	$(BIN)/python -m sphinx -W --keep-going -b html docs docs/_build/html

dist: $(VENV)/.release  ## wheel and source archive in dist/, tried in an empty environment
	rm -rf dist
	$(BIN)/python -m build
	@test -n "$$(find dist -name '*.whl' -size -1024k)" || { echo "error: the wheel is larger than 1 MB"; exit 1; }
	$(PYTHON) -m venv dist/.try
	dist/.try/bin/python -m pip install --quiet dist/*.whl
	cd dist && .try/bin/python -c 'import sgworld_mcmc as sg; sg.SGWORLD, sg.audit' && .try/bin/sgworld-mcmc --version
	rm -rf dist/.try

$(STAMP): pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "error: $(PYTHON) is older than Python 3.11; give a newer one: make PYTHON=python3.12 ..."; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet --editable '.[test]'
	@touch $(STAMP)

# What only some commands need.
$(VENV)/.docs $(VENV)/.release: $(VENV)/.%: $(STAMP)
	$(BIN)/python -m pip install --quiet --editable '.[$*]'
	@touch $@

clean:  ## remove the environment and everything that was built
	rm -rf .jax_cache $(VENV) out dist docs/_build docs/jupyter_execute
