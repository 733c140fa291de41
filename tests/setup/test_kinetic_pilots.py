"""The step size of kinetic dynamics about a mode allows for what the posterior's shape adds."""

import warnings

import jax
import numpy as np
import pytest

from sgworld_benchmarks.hierarchies.problems import intercepts
from sgworld_mcmc import SGWORLD, TuningWarning
from sgworld_mcmc.setup.coupled_chains import Pilot
from sgworld_mcmc.setup.step_error import fit_discretisation, without_step


def pilot(h, mean, variance):
    error = np.full(2, 1e-3)
    return Pilot(h, np.array(mean), error, np.array(variance), error, 0.0)


def test_errors_of_an_integrator_are_told_from_the_moments_without_a_step():
    averaged = [pilot(h, [0.3, 0.1 * h**2], [1.2, 1 + 0.5 * h**2]) for h in (1 / 8, 1 / 4)]
    steps = fit_discretisation(averaged)
    reference = without_step(averaged[0], steps)
    # The errors of the other integrator have other signs and sizes.
    others = [pilot(h, [0.3 - 2 * h**2, 0.0], [1.2 * (1 + h**2), 1.0]) for h in (1 / 4, 1 / 2)]
    found = fit_discretisation([reference, *others])
    np.testing.assert_allclose(found.variance, [1.0, 0.0], atol=0.02)
    np.testing.assert_allclose(found.mean, [-2 / 1.2**0.5, 0.0], atol=0.02)
    np.testing.assert_allclose(found.spread, steps.spread)
    np.testing.assert_allclose(found.displacement, steps.displacement)
    assert found.largest == 0.5
    lost = fit_discretisation([reference, others[0], others[1]._replace(diverged=0.5)])
    assert lost.largest == 0.125


@pytest.mark.slow
def test_kinetic_draws_of_a_hierarchy_agree_with_overdamped_ones():
    model, data = intercepts(30_000, 3000)
    scale = {}
    for dynamics in ("overdamped", "kinetic"):
        mcmc = SGWORLD(model, dynamics=dynamics, progress_bar=False)
        with warnings.catch_warnings():
            warnings.simplefilter("error", TuningWarning)
            mcmc.run(jax.random.key(0), *data)
        scale[dynamics] = np.asarray(mcmc.get_samples()["tau"])
    shift = (scale["kinetic"].mean() - scale["overdamped"].mean()) / scale["overdamped"].std()
    # A step of 0.3 has the right error on a Gaussian. Here it shifts the mean by 0.3 sd.
    assert abs(shift) < 0.15  # about 1000 effective draws of each: 0.045
    coarse = SGWORLD(model, dynamics="kinetic", step_size=0.3, gradient="taylor")
    plan = coarse.set_up(jax.random.key(0), *data)
    assert np.abs(plan.choice.prediction.mean_shift).max() > 0.1 and not plan.choice.met
