"""Stochastic-gradient MCMC without replacement for NumPyro models, with the bias measured.

``import sgworld_mcmc`` loads nothing but this file. Each public name is imported when it is first
used, so that programs need not wait for plots, exact posteriors or kernels that they do not use.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sgworld_mcmc import diagnostics, exact, nonequilibrium
    from sgworld_mcmc.auditing import AuditReport, Unconstrained, audit
    from sgworld_mcmc.hosts import HostLost, own_rows
    from sgworld_mcmc.infer import (
        SGLD,
        SGWORLD,
        BiasReport,
        CheckpointWarning,
        DivergenceWarning,
        InterruptedWarning,
        TuningWarning,
        WholeDataWarning,
    )
    from sgworld_mcmc.kernels import sgd, sgld, sgworld, ubu
    from sgworld_mcmc.streaming.parquet import ParquetSource

__version__ = "0.1.0"

__all__ = [
    "SGLD",
    "SGWORLD",
    "AuditReport",
    "BiasReport",
    "CheckpointWarning",
    "DivergenceWarning",
    "HostLost",
    "InterruptedWarning",
    "ParquetSource",
    "TuningWarning",
    "Unconstrained",
    "WholeDataWarning",
    "audit",
    "diagnostics",
    "exact",
    "nonequilibrium",
    "own_rows",
    "sgd",
    "sgld",
    "sgworld",
    "ubu",
]

# The module that defines each public name.
_DEFINED_IN = {
    "SGLD": "sgworld_mcmc.infer",
    "SGWORLD": "sgworld_mcmc.infer",
    "AuditReport": "sgworld_mcmc.auditing",
    "BiasReport": "sgworld_mcmc.infer",
    "CheckpointWarning": "sgworld_mcmc.infer",
    "DivergenceWarning": "sgworld_mcmc.infer",
    "HostLost": "sgworld_mcmc.hosts",
    "InterruptedWarning": "sgworld_mcmc.infer",
    "ParquetSource": "sgworld_mcmc.streaming.parquet",
    "TuningWarning": "sgworld_mcmc.infer",
    "Unconstrained": "sgworld_mcmc.auditing",
    "WholeDataWarning": "sgworld_mcmc.infer",
    "audit": "sgworld_mcmc.auditing",
    "own_rows": "sgworld_mcmc.hosts",
    "sgd": "sgworld_mcmc.kernels",
    "sgld": "sgworld_mcmc.kernels",
    "sgworld": "sgworld_mcmc.kernels",
    "ubu": "sgworld_mcmc.kernels",
}
# Subpackages that are attributes without an import of their own; the last two are not public.
_SUBPACKAGES = ("diagnostics", "exact", "nonequilibrium", "infer", "kernels")


def __getattr__(name: str) -> Any:
    """Import a public name when it is first used (PEP 562)."""
    if name in _DEFINED_IN:
        value = getattr(import_module(_DEFINED_IN[name]), name)
        globals()[name] = value
        return value
    if name in _SUBPACKAGES:
        return import_module(f"{__name__}.{name}")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    """List the public names, whether or not they have been imported yet."""
    return sorted({*globals(), *__all__})
