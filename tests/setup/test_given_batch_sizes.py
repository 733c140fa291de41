"""Hierarchies with batch sizes, or all settings, that the user has given."""

import jax
import numpy as np
import pytest

from sgworld_benchmarks.hierarchies.problems import intercepts, student_slopes
from sgworld_mcmc import SGWORLD

GROUPS = 400


@pytest.fixture(scope="module")
def hierarchy():
    return intercepts(20_000, GROUPS)


@pytest.fixture(scope="module")
def chosen(hierarchy):
    """Draws with nothing given."""
    model, args = hierarchy
    mcmc = SGWORLD(model, num_samples=500)
    mcmc.run(jax.random.key(0), *args)
    return mcmc


@pytest.mark.parametrize("batch_size", [100, 12_000])
def test_a_batch_size_beyond_those_that_are_measured(hierarchy, chosen, batch_size):
    """The noise of batches by group depends on their size: that of a given one is measured too."""
    model, args = hierarchy
    assert min(chosen.plan.measurements.noise.sizes) > 100
    mcmc = SGWORLD(model, batch_size=batch_size, num_samples=500)
    mcmc.run(jax.random.key(1), *args)
    assert mcmc.plan.batch_size in (100, 10_000)
    for name in ("mu", "tau"):
        draws, others = (m.get_samples()[name] for m in (mcmc, chosen))
        assert abs(draws.mean() - others.mean()) < 0.25 * others.std()
        assert abs(draws.std() / others.std() - 1) < 0.12


@pytest.mark.slow
def test_plain_gradients_shift_the_mean_as_predicted(hierarchy):
    """The mean of H_b r_b over batches (docs/theory.md, B10) shifts tau by a third of its sd."""
    model, args = hierarchy
    given = {"gradient": "plain", "batch_size": 200, "step_size": 0.0007, "steps_per_draw": 1400}
    mcmc = SGWORLD(model, num_samples=200, **given)
    mcmc.run(jax.random.key(0), *args)
    report = mcmc.bias_report()
    place = report.names.index("tau")
    predicted, error = report.predicted_mean_shift[place], report.stein.mean_shift_se[place]
    assert error < 0.1 and -0.45 < predicted < -0.25
    assert abs(report.stein.mean_shift[place] - predicted) < 4 * error
    said = f"! The predicted shift of the mean of tau, {-predicted:.2f} sd, exceeds"
    assert said in str(report)


@pytest.mark.slow
def test_control_variates_shift_the_scales_of_groups_as_predicted():
    """What is left of their noise at the draws goes together with the batches' Hessians."""
    model, args = student_slopes(20_000, GROUPS)
    given = {"dynamics": "kinetic", "batch_size": 800, "step_size": 0.09, "steps_per_draw": 40}
    means = []
    for gradient in ("taylor", "control_variate"):
        mcmc = SGWORLD(model, gradient=gradient, **given)
        mcmc.run(jax.random.key(0), *args)
        report = mcmc.bias_report()
        place = [report.names.index(name) for name in ("sd[0]", "sd[1]")]
        along = mcmc.plan.fit.coordinates.along(mcmc.draws().positions)
        means.append(along.mean((0, 1))[place])
        if gradient == "taylor":
            assert np.abs(report.predicted_mean_shift[place]).max() < 0.02
    predicted, shift = report.predicted_mean_shift[place], means[1] - means[0]
    assert predicted[1] < -0.25 and shift[1] < -0.3
    # Means of 4000 draws are known to 0.05 at worst; the prediction is of first order.
    assert abs(shift[0] - predicted[0]) < 0.1 and abs(shift[1] - predicted[1]) < 0.2
    assert "predicted shift of the mean" in str(report)


def test_the_report_of_settings_that_are_all_given(hierarchy, chosen):
    """It looks for the groups again: batches of random rows would not be stable here."""
    model, args = hierarchy
    plan = chosen.plan
    given = {
        "batch_size": plan.batch_size,
        "step_size": float(plan.tuning.step_size),
        "steps_per_draw": plan.dynamics.steps_per_draw,
        "gradient": plan.dynamics.gradient.name,
    }
    mcmc = SGWORLD(model, num_samples=500, **given)
    mcmc.run(jax.random.key(0), *args)
    report = mcmc.bias_report()
    assert np.abs(report.predicted_variance_error).max() < 0.05
    assert report.disagreement() is None


def test_rows_that_are_dealt_anew_have_the_noise_of_random_batches(hierarchy):
    """Batches dealt by group have Hessians that are more alike than with ``order="examples"``."""
    model, args = hierarchy
    noises = []
    for order in ("batches", "examples"):
        mcmc = SGWORLD(model, order=order, gradient="plain", batch_size=500)
        noises.append(mcmc.set_up(jax.random.key(0), *args).measurements.noise.at(500))
    dealt, anew = (float(np.median(noise.mean["control_variate"])) for noise in noises)
    assert anew > 1.5 * dealt
