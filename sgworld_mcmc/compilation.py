"""How the package compiles.

A run of a few seconds is mostly compilation. On a CPU these options make it a quarter as long as
XLA's defaults do, and the loops over small batches run as fast or faster: XLA's higher levels split
small operations over threads, whose synchronisation costs more than the work
(``sgworld-mcmc benchmark epoch`` shows it).
"""

from collections.abc import Callable
from functools import cache
from typing import Any

import jax

__all__ = ["quick_jit"]

# Of no consequence but for time. XLA renames and removes its options: each is optional.
QUICK = {
    "xla_backend_optimization_level": 1,
    "xla_llvm_disable_expensive_passes": True,
    "xla_cpu_use_fusion_emitters": False,
    "xla_cpu_parallel_codegen_split_count": 2,
}


def quick_jit(function: Callable, *, once: bool = False, **options: Any) -> Callable:
    """``jax.jit``, on a CPU with the options that compile fast.

    ``once``: faster still, for little work that is done once in a run.
    """
    if jax.default_backend() != "cpu":
        return jax.jit(function, **options)
    known = {**_known(), "xla_backend_optimization_level": 0} if once else _known()
    return jax.jit(function, compiler_options=known, **options)


@cache
def _known() -> dict[str, Any]:
    """Those of :data:`QUICK` that this version of XLA has."""
    if _accepts(QUICK):
        return QUICK
    return {name: value for name, value in QUICK.items() if _accepts({name: value})}


def _accepts(options: dict[str, Any]) -> bool:
    nothing = jax.jit(lambda: (), compiler_options=options)
    try:
        nothing.lower().compile()
    except jax.errors.JaxRuntimeError:
        return False
    return True
