"""Compile functions with options of XLA that suit short runs on a CPU.

A run of a few seconds is mostly compilation. On a CPU the first three options in `QUICK` halve that
time, and loops over small batches run as fast or faster, since XLA's higher levels split small
operations over threads whose synchronisation costs more than the work. The fourth option, doing
without fusion emitters, nearly halves the time once more, but loops over large batches then take
twice as long (``sgworld-mcmc benchmark epoch`` shows the cost for a long run).
"""

from collections.abc import Callable
from functools import cache
from typing import Any

import jax

__all__ = ["quick_jit"]

# The first four options change nothing but times. The last one keeps sums of products away from
# YNNPACK, to which XLA has given them since jaxlib 0.10.2, with silently wrong results under vmap
# (github.com/jax-ml/jax/issues/39103). XLA renames and removes options: each is optional.
QUICK = {
    "xla_backend_optimization_level": 1,
    "xla_llvm_disable_expensive_passes": True,
    "xla_cpu_parallel_codegen_split_count": 2,
    "xla_cpu_use_fusion_emitters": False,
    "xla_cpu_experimental_ynn_fusion_type": "",
}


def quick_jit(function: Callable, work: str = "some", **options: Any) -> Callable:
    """Apply ``jax.jit``, on a CPU with the options that suit the amount of work.

    Parameters
    ----------
    function, options
        The function to compile, and arguments of ``jax.jit``.
    work
        How much the function has to do: ``"little"`` if it runs once on few numbers, ``"some"`` if
        it runs for less than a second, ``"much"`` if faster code is worth twice the compilation.
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
    """Return those options of :data:`QUICK` that this version of XLA has."""
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
