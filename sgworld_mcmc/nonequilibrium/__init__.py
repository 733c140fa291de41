"""Describe training and sampling as nonequilibrium processes.

These functions compute theory from a loss: `minibatch_covariance`, `diffusion_matrix`,
`effective_loss`, `effective_minimum`, `loss_hessian`, `stationary_covariance`,
`circulation_matrix`, `entropy_production_rate`. All others estimate from a trajectory. See
docs/nonequilibrium.md.
"""

from sgworld_mcmc.nonequilibrium import momentum
from sgworld_mcmc.nonequilibrium.bound import (
    EntropyProductionBound,
    entropy_production_bound,
    uncertainty_bound,
)
from sgworld_mcmc.nonequilibrium.effective import effective_loss, effective_minimum
from sgworld_mcmc.nonequilibrium.fluctuation import (
    DetailedFluctuationTheorem,
    IntegralFluctuationTheorem,
    detailed_fluctuation_theorem,
    integral_fluctuation_theorem,
)
from sgworld_mcmc.nonequilibrium.linear import (
    circulation_matrix,
    entropy_production_rate,
    linear_chain_entropy_production_rate,
    stationary_covariance,
)
from sgworld_mcmc.nonequilibrium.losses import loss_hessian
from sgworld_mcmc.nonequilibrium.moments import Moments, areal_velocity, trajectory_moments
from sgworld_mcmc.nonequilibrium.noise import diffusion_matrix, minibatch_covariance
from sgworld_mcmc.nonequilibrium.production import (
    PlugInProduction,
    entropy_production,
    plug_in_entropy_production,
)
from sgworld_mcmc.nonequilibrium.projection import (
    PrincipalProjection,
    project_principal_components,
)
from sgworld_mcmc.nonequilibrium.recorded import (
    MeanProduction,
    RecordedMoments,
    recorded_moments,
)
from sgworld_mcmc.nonequilibrium.reversibility import (
    DetailedBalanceViolation,
    detailed_balance_violation,
)
from sgworld_mcmc.nonequilibrium.symmetry import symmetry_test
from sgworld_mcmc.nonequilibrium.variational import (
    VariationalProduction,
    variational_entropy_production,
)

__all__ = [
    "DetailedBalanceViolation",
    "DetailedFluctuationTheorem",
    "EntropyProductionBound",
    "IntegralFluctuationTheorem",
    "MeanProduction",
    "Moments",
    "PlugInProduction",
    "PrincipalProjection",
    "RecordedMoments",
    "VariationalProduction",
    "areal_velocity",
    "circulation_matrix",
    "detailed_balance_violation",
    "detailed_fluctuation_theorem",
    "diffusion_matrix",
    "effective_loss",
    "effective_minimum",
    "entropy_production",
    "entropy_production_bound",
    "entropy_production_rate",
    "integral_fluctuation_theorem",
    "linear_chain_entropy_production_rate",
    "loss_hessian",
    "minibatch_covariance",
    "momentum",
    "plug_in_entropy_production",
    "project_principal_components",
    "recorded_moments",
    "stationary_covariance",
    "symmetry_test",
    "trajectory_moments",
    "uncertainty_bound",
    "variational_entropy_production",
]
