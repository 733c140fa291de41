"""The check of draws sees a shift of what thousands of groups share."""

import jax
import numpy as np
import pytest

from sgworld_benchmarks.hierarchies.problems import intercepts
from sgworld_mcmc import SGWORLD
from sgworld_mcmc.report.check import limits
from sgworld_mcmc.report.stein_check import stein_check
from sgworld_mcmc.setup.lay_out import posterior_of


@pytest.mark.slow
def test_a_shift_of_a_scale_is_seen_among_a_thousand_parameters():
    """By 0.3 of its standard deviations, and nothing is seen of the draws as they are."""
    model, args = intercepts(50_000, 1000)
    mcmc = SGWORLD(model, num_samples=1000)
    mcmc.run(jax.random.key(0), *args)
    assert mcmc.bias_report().disagreement() is None
    posterior = posterior_of(mcmc.plan, mcmc.data, None)
    positions = np.asarray(mcmc.draws().positions, float)
    names = mcmc.bias_report().names
    _, limit = limits(names)
    # The move that changes one parameter, and others as the posterior's covariance has it.
    along = posterior.coordinates.along
    place = names.index("tau")
    unit = np.linalg.lstsq(np.asarray(along(np.eye(len(names)))).T, np.eye(len(names))[place])[0]

    def seen(shift):
        found = stein_check(posterior, positions + shift * unit)
        return (np.abs(found.mean_shift) > limit * found.mean_shift_se)[place]

    assert seen(0.3) and not seen(0.0)
