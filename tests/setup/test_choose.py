"""The chooser: what it fixes, what it finds, and that its predictions are the theory's."""

import jax
import numpy as np
import pytest
from scipy.special import polygamma

from sgworld_mcmc import exact
from sgworld_mcmc.infer import SGMCMCKernel
from sgworld_mcmc.integrators.averaged import Averaged
from sgworld_mcmc.members import ORDERS, resolve
from sgworld_mcmc.setup.choose import _of_partition, candidates, choose
from sgworld_mcmc.setup.coupled_chains import Pilot
from sgworld_mcmc.setup.draw_spacing import draw_spacing
from sgworld_mcmc.setup.predict import predict
from sgworld_mcmc.setup.request import Request
from sgworld_mcmc.setup.row_noise import RowNoise, batch_factor
from sgworld_mcmc.setup.step_error import Discretisation, fit_discretisation, unmeasured
from sgworld_mcmc.theory.shrinkage import pool
from sgworld_mcmc.theory.variance_bias import relative_variance_error, time_per_epoch

KINDS = ("plain", "control_variate", "taylor")


def request(size=100_000, order="batches", **given):
    settings = {
        "integrator": Averaged(),
        "tolerance": 0.02,
        "batch_size": None,
        "step_size": None,
        "steps_per_draw": None,
        "gradients": KINDS,
        "stiffest": 1.0,
        "softest": 1.0,
        **given,
    }
    return Request(size=size, order=resolve("order", order, ORDERS), **settings)


def regression_noise(size, dimension=5, taylor=0.0):
    """Rows of a well-specified linear regression with Gaussian features."""
    zero, one = np.zeros(dimension), np.ones(dimension)
    center = {"plain": size * one, "control_variate": zero, "taylor": zero}
    mean = {
        "plain": (size + dimension + 1) * one,
        "control_variate": (dimension + 1) * one,
        "taylor": taylor * one,
    }
    return RowNoise(center, mean, mean, {"plain": zero})


def test_plain_gradients_get_the_time_per_epoch_of_the_theory():
    noise = regression_noise(100_000)
    found = choose(request(gradients=("plain",), batch_size=100), noise, unmeasured(5))
    time = found.step_size * found.num_batches
    wanted = time_per_epoch(0.02, 1000, 1000.0, 0.06, noise="averaged")
    assert wanted / 1.3 < time <= wanted * 1.001
    assert found.steps_per_draw % found.num_batches == 0
    assert found.met


def test_sgld_pays_for_the_batch_noise_with_its_step_size():
    noise = regression_noise(100_000)
    given = {"gradients": ("plain",), "batch_size": 100}
    without = choose(request(**given), noise, unmeasured(5))
    replacing = choose(request(order="replacement", **given), noise, unmeasured(5))
    assert replacing.examples > 10 * without.examples
    assert abs(replacing.prediction.variance_error).max() <= 0.02


def test_control_variates_cost_the_same_for_any_number_of_rows():
    costs = [
        choose(request(size, gradients=("control_variate",)), regression_noise(size), unmeasured(5))
        for size in (100_000, 1_000_000)
    ]
    assert costs[1].examples == pytest.approx(costs[0].examples, rel=0.1)
    # B K / eps with K = (D + 1) / B: 2 / h steps of B rows at h = 2 eps / (eps + K).
    assert costs[0].examples == pytest.approx(6 / 0.02, rel=0.5)


def test_a_gaussian_posterior_is_given_taylor_gradients_of_small_batches():
    found = choose(request(), regression_noise(100_000), unmeasured(5))
    assert found.gradient == "taylor"
    assert found.batch_size <= 20
    assert found.examples < 100


def test_few_rows_are_all_used_where_subsampling_costs_accuracy():
    noise = regression_noise(8, taylor=8.0)
    assert choose(request(8), noise, unmeasured(5)).batch_size == 8


def test_what_is_given_stays():
    noise = regression_noise(1000)
    given = {"batch_size": 37, "step_size": 0.05, "steps_per_draw": 3, "gradients": ("plain",)}
    found = choose(request(1000, **given), noise, unmeasured(5))
    assert (found.batch_size, found.step_size, found.steps_per_draw) == (37, 0.05, 3)
    assert found.gradient == "plain"
    assert not found.met  # T = 1.4 and draws inside the epoch


def test_every_candidate_said_to_be_met_is_within_the_tolerance():
    noise = regression_noise(10_000, taylor=3.0)
    steps = unmeasured(5)._replace(variance=np.full(5, 0.3), mean=np.full(5, -0.1))
    found = candidates(request(10_000, tolerance=0.01), noise, steps)
    assert len(found) > 10
    for choice in found:
        if choice.met:
            assert np.abs(choice.prediction.variance_error).max() <= 0.01
            assert np.abs(choice.prediction.mean_shift).max() <= 0.02


def test_prediction_is_that_of_the_closed_forms():
    noise = regression_noise(1000, dimension=3)
    for scheme in ("batches", "symmetric", "all_phases", "replacement"):
        made = predict(
            request(1000, order="replacement" if scheme == "replacement" else "batches"),
            noise,
            unmeasured(3),
            "plain",
            batch_size=10,
            step_size=0.003,
            scheme=scheme,
        )
        factor = 1 / 10 - 1 / 1000
        expected = relative_variance_error(
            0.003, 100, 1000 * factor, 4 * factor, scheme=scheme, noise="averaged"
        )
        np.testing.assert_allclose(made.variance_error, expected, rtol=1e-9)
        np.testing.assert_allclose(sum(made.parts.values()), made.variance_error)


@pytest.mark.slow
def test_a_shifted_mean_moves_the_variances_that_depend_on_it():
    """With unknown noise the variance of the coefficients is that of the noise, which shifts up."""
    target = exact.LinearRegressionUnknownNoise(jax.random.key(2), num_data=96, dim=3)
    kernel = SGMCMCKernel(target.model, gradient="plain", batch_size=5)
    plan, data = kernel.prepare(jax.random.key(0), target.data, {})
    found = plan.measurements.noise
    last = data.model.scalar_names().index("sigma2")
    moved = found.coupling["plain"][last] * np.sqrt(polygamma(1, target.a))  # of log sigma2
    assert moved > 0
    np.testing.assert_allclose(np.delete(found.widening, last), moved, rtol=0.1)
    assert "shifted mean" in plan.choice.prediction.parts


def test_an_unstable_step_has_no_prediction():
    noise = regression_noise(1000)
    made = predict(
        request(1000), noise, unmeasured(5), "plain", batch_size=10, step_size=2.1, scheme="batches"
    )
    assert made is None


def test_noise_is_that_of_the_batches_that_are_dealt():
    """Of 1000 rows, 900 are asked for: two batches of 500 are dealt."""
    asked, dealt = (
        predict(
            request(1000),
            regression_noise(1000),
            unmeasured(5),
            "plain",
            batch_size=size,
            step_size=0.3,
            scheme="batches",
        )
        for size in (900, 500)
    )
    assert np.abs(dealt.variance_error).min() > 0.01
    np.testing.assert_allclose(asked.variance_error, dealt.variance_error)


@pytest.mark.parametrize("h", [1.0, 0.5, 0.1, 0.01])
def test_draws_are_as_close_as_two_of_their_autocorrelation_times(h):
    number, autocorrelation = draw_spacing(request(), h, 10_000, inside=True)
    assert 1.4 < autocorrelation < 2.3
    # An AR(1) process of decay 1 - h with averaged noise, summed over its correlations.
    lags = np.arange(1, 20_000)
    rho = (1 - h / 2) * (1 - h) ** (number * lags - 1.0)
    assert autocorrelation == pytest.approx(1 + 2 * rho.sum(), rel=1e-3)


def test_discretisation_finds_a_quadratic_error():
    rng = np.random.default_rng(0)
    pilots = []
    for h in (0.125, 0.25, 0.5, 1.0):
        variance = 1.1 * (1 + 0.2 * h**2 * np.array([1.0, 0.0])) + 1e-3 * rng.normal(size=2)
        error = np.full(2, 1e-3)
        pilots.append(Pilot(h, np.array([0.3, 0.0]), error, variance, error, 0.0))
    found = fit_discretisation(pilots)
    np.testing.assert_allclose(found.variance, [0.2, 0.0], atol=6 * found.variance_error.max())
    assert found.variance_error.max() < 5e-3
    assert found.largest == 1.0
    lost = fit_discretisation([*pilots[:-1], pilots[-1]._replace(diverged=0.1)])
    assert lost.largest == 0.25
    # Nothing was measured but that twice the step fails: its error is not taken for zero.
    alone = fit_discretisation([pilots[0], pilots[1]._replace(diverged=0.1)])
    assert alone.largest == 0.0625 and np.all(alone.errors(0.0625)[0] == 1 / 16)
    nan = np.full(2, np.nan)
    gone = fit_discretisation([Pilot(1 / 128, nan, nan, nan, nan, 1.0)])
    assert gone.largest == 1 / 512
    np.testing.assert_array_equal(gone.displacement, 0)
    np.testing.assert_array_equal(gone.spread, 1)


def pilots_of(changes, noise, rng):
    """Pilots whose variances and means change with h as the function says, plus noise."""
    pilots = []
    for h in (0.0625, 0.125, 0.25, 0.5, 1.0):
        variance, mean = changes(h)
        error = np.full(len(mean), noise)
        kick = noise * rng.normal(size=(2, len(mean)))
        pilots.append(Pilot(h, mean + kick[0], error, variance + kick[1], error, 0.0))
    return pilots


def test_pilots_with_large_errors_are_not_extrapolated():
    """Errors a h^2 that run away beyond one are told from the small step sizes alone."""
    a, b = np.array([3.0, 1.0]), np.array([-2.0, 4.0])

    def runaway(h):
        return 1 + a * h**2 * np.exp((2 * h) ** 4), 0.2 + b * h**2 * np.exp((2 * h) ** 4)

    found = fit_discretisation(pilots_of(runaway, 1e-3, np.random.default_rng(3)))
    np.testing.assert_allclose(found.variance, a, rtol=0.2)
    np.testing.assert_allclose(found.mean, b, rtol=0.2)
    np.testing.assert_allclose(found.displacement, 0.2, atol=0.01)  # at h = 0
    np.testing.assert_allclose(found.spread, 1.0, atol=0.01)
    # At 1/2 the error is out of range: just below it nothing is known.
    assert found.largest == 0.125


def test_a_thousand_directions_are_judged_together():
    """Noise alone is no bias, and a bias common to all is found though each is hidden in noise."""
    rng = np.random.default_rng(4)
    none = fit_discretisation(
        pilots_of(lambda h: (np.ones(1000), np.zeros(1000)), 0.1, rng)[:3], 1000
    )
    variance, mean = none.errors(0.25)
    assert np.abs(variance).max() < 0.02 and np.abs(mean).max() < 0.02
    common = fit_discretisation(
        pilots_of(lambda h: (np.full(1000, 1 + 3 * h**2), np.zeros(1000)), 0.1, rng)[:3], 1000
    )
    # One direction alone has a standard error of 2.4, and the largest of them is at 10.
    assert common.variance.mean() == pytest.approx(3.0, rel=0.1) and common.variance.std() < 0.8
    assert 0.02 < common.errors(0.1)[0].max() < 0.05


@pytest.mark.parametrize("spread", [0.0, 0.3, 3.0])
def test_pooled_estimates_have_the_error_that_they_say(spread):
    rng = np.random.default_rng(5)
    truth, error = 1 + spread * rng.normal(size=4000), np.full(4000, 0.5)
    pooled, remaining = pool(truth + error * rng.normal(size=4000), error, 4000)
    measured = np.sqrt(np.mean((pooled - truth) ** 2))
    # The spread is an upper limit: what remains is said to be a little more than it is.
    said = np.sqrt(np.mean(remaining**2))
    assert 0.95 * measured < said < 1.05 * measured + 0.1
    assert measured < 0.52


def test_pooling_spares_outliers_and_a_few():
    rng = np.random.default_rng(6)
    value = rng.normal(size=50)
    value[7] = 30.0
    pooled, _ = pool(value, np.ones(50), 50)
    assert pooled[7] > 30 - np.sqrt(2 * np.log(50)) - 1e-9
    assert np.abs(np.delete(pooled, 7)).max() < np.abs(np.delete(value, 7)).max()
    for few in (np.array([2.0]), np.array([0.0, 3.0])):
        pooled, error = pool(few, np.ones(len(few)), len(few))
        np.testing.assert_allclose(pooled, few, atol=0.5)
        np.testing.assert_allclose(error, 1.0, atol=0.2)


def test_noise_in_the_pilot_is_not_taken_for_bias():
    steps = Discretisation(
        variance=np.array([0.02]),
        variance_error=np.array([0.02]),
        mean=np.array([0.0]),
        mean_error=np.array([0.01]),
        displacement=np.zeros(1),
        spread=np.ones(1),
        largest=1.0,
    )
    assert steps.errors(1.0)[0] == 0.0
    assert steps._replace(variance=np.array([0.1])).errors(0.5)[0] == pytest.approx(0.07 / 4)


def test_noise_in_the_tails_makes_the_step_smaller():
    even = regression_noise(100_000)
    tailed = even._replace(tail={kind: 6 * value for kind, value in even.mean.items()})
    given = request(gradients=("control_variate",), batch_size=100)
    free, bound = (choose(given, noise, unmeasured(5)) for noise in (even, tailed))
    assert bound.met and bound.step_size < 0.7 * free.step_size
    prediction = bound.prediction
    np.testing.assert_allclose(prediction.tail_error, 6 * prediction.variance_error, rtol=0.05)
    assert 0.03 < prediction.tail_error.max() <= 2 * 0.02


def test_fourth_moment_feels_the_noise_in_the_tails():
    """(B15) for noise of variance c y^2: exact moments of y' = (1-h) y + noise, small h."""
    h, c = 1e-4, 3.0
    a = 1 - h
    second = 2 * h / (1 - a**2 - h**2 * c)
    kicks = 3 * (4 * h**2 + 4 * h**3 * c * second)  # fourth moment of the noise, less c^2 m4
    fourth = (12 * a**2 * h * second + kicks) / (1 - a**4 - 6 * a**2 * h**2 * c - 3 * h**4 * c**2)
    euler = 1 / (1 - h / 2)  # of independent noise, without the batches'
    np.testing.assert_allclose(second / euler - 1, h / 2 * c, rtol=1e-2)
    expected = h / 2 * (c + 3 * c)  # E[y^2 y^2] / E[y^2] = 3
    np.testing.assert_allclose(fourth / (3 * euler**2) - 1, expected, rtol=1e-2)


def test_a_partition_into_few_batches_may_have_more_noise_than_the_mean_one():
    """About one random partition in twenty has more, along a direction, than is allowed for."""
    generator = np.random.default_rng(0)
    rows, batches = 60, 3
    values = generator.normal(size=rows)
    one = {"plain": np.ones(1)}
    noise = RowNoise(one, one, one, {"plain": np.zeros(1)})
    order = ORDERS["batches"]()
    allowed = _of_partition(noise, order, batches).mean["plain"][0]
    mean = values.var(ddof=1) * batch_factor(rows // batches, rows)
    parts = (generator.permutation(values).reshape(batches, -1).mean(1) for _ in range(4000))
    # The mean of the batches is that of all rows in each partition.
    realised = np.array([part.var(ddof=1) * (1 - 1 / batches) for part in parts]) / mean
    assert realised.mean() == pytest.approx(1, abs=0.05)
    assert (realised > allowed).mean() == pytest.approx(0.05, abs=0.02)
    # A thousand batches leave little to chance, and batches that are dealt anew nothing.
    assert _of_partition(noise, order, 1000).mean["plain"][0] < 1.08
    for other in ("examples", "replacement"):
        assert _of_partition(noise, ORDERS[other](), batches) is noise
