"""The NumPyro interface: kernels and ``MCMC`` objects for NumPyro models."""

from sgworld_mcmc.checkpoint.saved_run import CheckpointWarning
from sgworld_mcmc.infer.kernel import SGMCMCKernel
from sgworld_mcmc.infer.run_warnings import DivergenceWarning, TuningWarning
from sgworld_mcmc.infer.samplers import SGLD, SGWORLD
from sgworld_mcmc.interrupts import InterruptedWarning
from sgworld_mcmc.model.errors import WholeDataWarning
from sgworld_mcmc.report.bias_report import BiasReport

__all__ = [
    "SGLD",
    "SGWORLD",
    "BiasReport",
    "CheckpointWarning",
    "DivergenceWarning",
    "InterruptedWarning",
    "SGMCMCKernel",
    "TuningWarning",
    "WholeDataWarning",
]
