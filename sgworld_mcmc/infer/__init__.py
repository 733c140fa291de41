"""The NumPyro interface: kernels and ``MCMC`` objects for NumPyro models."""

from sgworld_mcmc.infer.kernel import SGMCMCKernel
from sgworld_mcmc.infer.mcmc import SGLD, SGWORLD, DivergenceWarning, TuningWarning
from sgworld_mcmc.infer.report import BiasReport

__all__ = ["SGLD", "SGWORLD", "BiasReport", "DivergenceWarning", "SGMCMCKernel", "TuningWarning"]
