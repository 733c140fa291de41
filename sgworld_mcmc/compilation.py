"""How the package compiles.

A run of a few seconds is mostly compilation. On a CPU the first three of these options halve it,
and loops over small batches run as fast or faster: XLA's higher levels split small operations over
threads, whose synchronisation costs more than the work. Doing without fusion emitters nearly halves
it once more, but makes loops over large batches take twice the time
(``sgworld-mcmc benchmark epoch`` shows what a long run pays).
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
    "xla_cpu_parallel_codegen_split_count": 2,
    "xla_cpu_use_fusion_emitters": False,
}


def quick_jit(function: Callable, work: str = "some", **options: Any) -> Callable:
    """``jax.jit``, on a CPU with the options that suit the work.

    Parameters
    ----------
    function, options
        Of ``jax.jit``.
    work
        ``"little"``: done once, with few numbers; ``"some"``: less than takes a second;
        ``"much"``: worth a compilation of twice the time.
    """
    if jax.default_backend() != "cpu":
        return jax.jit(function, **options)
    chosen = dict(_known())
    if work == "little":
        chosen["xla_backend_optimization_level"] = 0
    elif work == "much":
        chosen.pop("xla_cpu_use_fusion_emitters", None)
    return jax.jit(function, compiler_options=chosen, **options)


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
