"""Tools for after a run: ArviZ, pictures, draws as named scalars, and scores of predictions."""

from sgworld_mcmc.diagnostics.arviz import to_arviz
from sgworld_mcmc.diagnostics.plots import plot_density, plot_trace
from sgworld_mcmc.diagnostics.predictive import (
    agreement,
    coverage,
    function_space_r_hat,
    mutual_information,
    out_of_distribution_auc,
    predictive_entropy,
    predictive_score,
    reliability,
    total_variation,
)
from sgworld_mcmc.diagnostics.predictive_plots import plot_predictive
from sgworld_mcmc.diagnostics.scalars import as_chains, flatten_scalars, select_scalars

__all__ = [
    "agreement",
    "as_chains",
    "coverage",
    "flatten_scalars",
    "function_space_r_hat",
    "mutual_information",
    "out_of_distribution_auc",
    "plot_density",
    "plot_predictive",
    "plot_trace",
    "predictive_entropy",
    "predictive_score",
    "reliability",
    "select_scalars",
    "to_arviz",
    "total_variation",
]
