"""What every test is held to."""

import jax
import pytest

_SETTINGS = ("jax_enable_x64", "jax_debug_nans", "jax_default_matmul_precision")


@pytest.fixture(autouse=True)
def global_settings_stay():
    """Neither the package nor a test may leave JAX's global settings changed."""
    before = [getattr(jax.config, name) for name in _SETTINGS]
    yield
    assert [getattr(jax.config, name) for name in _SETTINGS] == before
