"""The NumPyro interface: kernels and ``MCMC`` objects for NumPyro models."""

from sgworld_mcmc.infer.kernel import SGMCMCKernel
from sgworld_mcmc.infer.mcmc import SGLD, SGWORLD, DivergenceWarning

__all__ = ["SGLD", "SGWORLD", "DivergenceWarning", "SGMCMCKernel"]
