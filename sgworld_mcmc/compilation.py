"""Compile functions with options of XLA that suit short runs on a CPU.

A run of a few seconds is mostly compilation. On a CPU the first three options in `QUICK` halve that
time, and loops over small batches run as fast or faster, since XLA's higher levels split small
operations over threads whose synchronisation costs more than the work. The fourth option, doing
without fusion emitters, nearly halves the time once more, but loops over large batches then take
twice as long (``sgworld-mcmc benchmark epoch`` shows the cost for a long run).
"""

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from functools import cache
from typing import Any

import jax
import numpy as np

__all__ = ["Ahead", "quick_jit"]

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


class Ahead:
    """A compiled function whose programs other threads can compile before it is called.

    The calling thread traces the function, since NumPyro's handlers know one thread only. XLA then
    compiles in a thread of its own, and on one core: several programs take the time of the longest.

    Parameters
    ----------
    function
        A function that ``jax.jit`` or :func:`quick_jit` has made.

    Examples
    --------
    >>> import numpy as np
    >>> double = Ahead(jax.jit(lambda x: 2 * x))
    >>> double.compile(np.float32(0))  # returns at once
    >>> print(double(np.float32(4)))
    8.0
    """

    def __init__(self, function: Callable) -> None:
        self._function = function
        self._programs: dict[Any, Future] = {}

    def compile(self, *args: Any) -> None:
        """Begin to compile the program for arguments like these."""
        signature = _signature(args)
        if signature not in self._programs:
            lowered = self._function.lower(*args)
            self._programs[signature] = _helpers().submit(lowered.compile)

    def __call__(self, *args: Any) -> Any:
        """Call the function; a program that is being compiled is waited for."""
        program = self._programs.get(_signature(args)) if self._programs else None
        return self._function(*args) if program is None else program.result()(*args)


def _signature(args: tuple) -> tuple:
    """Return what a program depends on."""
    leaves, treedef = jax.tree.flatten(args)
    describe = lambda x: (np.shape(x), getattr(x, "dtype", type(x)), getattr(x, "weak_type", False))  # noqa: E731
    described = tuple(map(describe, leaves))
    return described, treedef, bool(jax.config.jax_enable_x64)


@cache
def _helpers() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(2, "compilation")


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
