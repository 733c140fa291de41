"""Stochastic-gradient MCMC without replacement for NumPyro models, with the bias measured."""

from sgworld_mcmc import diagnostics, exact, nonequilibrium
from sgworld_mcmc.infer import (
    SGLD,
    SGWORLD,
    BiasReport,
    DivergenceWarning,
    InterruptedWarning,
    TuningWarning,
)
from sgworld_mcmc.kernels import sgd, sgld, sgworld

__version__ = "0.1.0"

__all__ = [
    "SGLD",
    "SGWORLD",
    "BiasReport",
    "DivergenceWarning",
    "InterruptedWarning",
    "TuningWarning",
    "diagnostics",
    "exact",
    "nonequilibrium",
    "sgd",
    "sgld",
    "sgworld",
]
