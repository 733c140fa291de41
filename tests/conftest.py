"""What every test is held to."""

import os

import pytest

# Compilation is most of the tests' time, and little of it is for loops that run long.
os.environ.setdefault(
    "XLA_FLAGS", "--xla_backend_optimization_level=1 --xla_llvm_disable_expensive_passes=true"
)

import jax

_SETTINGS = ("jax_enable_x64", "jax_debug_nans", "jax_default_matmul_precision")


@pytest.fixture(autouse=True)
def global_settings_stay():
    """Neither the package nor a test may leave JAX's global settings changed."""
    before = [getattr(jax.config, name) for name in _SETTINGS]
    yield
    assert [getattr(jax.config, name) for name in _SETTINGS] == before
