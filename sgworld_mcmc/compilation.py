"""How the package compiles.

On a CPU XLA's first optimisation level compiles twice as fast as the default, and its loops over
small batches run faster too: the higher levels split small operations over threads, whose
synchronisation costs more than the work (``sgworld-mcmc benchmark epoch`` shows both).
"""

from collections.abc import Callable
from typing import Any

import jax

__all__ = ["quick_jit"]


def quick_jit(function: Callable, **options: Any) -> Callable:
    """``jax.jit``, on a CPU at XLA's first optimisation level."""
    if jax.default_backend() != "cpu":
        return jax.jit(function, **options)
    quick = {"xla_backend_optimization_level": 1, "xla_llvm_disable_expensive_passes": True}
    return jax.jit(function, compiler_options=quick, **options)
