"""Predictions for integrators without closed forms: units, agreement, and a run's own report."""

import warnings

import jax
import numpy as np
import pytest
from kinetic import UBU, FrictionEuler

from sgworld_mcmc import TuningWarning, exact
from sgworld_mcmc.infer import SGMCMCKernel
from sgworld_mcmc.infer.mcmc import MinibatchMCMC
from sgworld_mcmc.integrators.averaged import Averaged
from sgworld_mcmc.integrators.euler import Euler
from sgworld_mcmc.members import ORDERS, resolve
from sgworld_mcmc.settings import make_settings
from sgworld_mcmc.setup.batch_terms import batch_terms
from sgworld_mcmc.setup.choose import choose
from sgworld_mcmc.setup.draw_spacing import draw_spacing
from sgworld_mcmc.setup.predict import predict
from sgworld_mcmc.setup.request import Request
from sgworld_mcmc.setup.row_noise import RowNoise
from sgworld_mcmc.setup.step_error import unmeasured
from sgworld_mcmc.theory.affine_recursion import autocorrelation_time, lag_correlation
from sgworld_mcmc.theory.order_averages import LAWS


class OwnEuler(Euler):
    law = None


class OwnAveraged(Averaged):
    law = None


def request(integrator, order="batches", **given):
    settings = {
        "size": 10_000,
        "tolerance": 0.02,
        "batch_size": 100,
        "step_size": None,
        "steps_per_draw": None,
        "gradients": ("plain",),
        "stiffest": 1.0,
        "softest": 1.0,
        **given,
    }
    return Request(order=resolve("order", order, ORDERS), integrator=integrator, **settings)


NOISE = RowNoise(
    {"plain": np.array([1e4, 5e3])},
    {"plain": np.array([1.02e4, 5.1e3])},
    {"plain": np.array([1.1e4, 5.1e3])},
    {"plain": np.array([20.0, -30.0])},
    np.array([1.0, 2.0]),
)


@pytest.mark.parametrize("pair", [(Euler(), OwnEuler()), (Averaged(), OwnAveraged())])
@pytest.mark.parametrize("scheme", LAWS)
@pytest.mark.parametrize("curvature", [1.0, 2.5])
def test_matrices_give_what_the_closed_forms_give(pair, scheme, curvature):
    noise = np.array([90.0, 0.0]), np.array([0.3, 0.0])
    closed, found = (
        batch_terms(kind, 0.004, 100, *noise, scheme=scheme, curvature=curvature) for kind in pair
    )
    assert list(found.parts) == ["batch noise", "curvature noise", "step size of the integrator"]
    for one, other in zip(closed.parts.values(), found.parts.values(), strict=True):
        # Hessian noise acts on what the batch noise has widened, too.
        np.testing.assert_allclose(other, one, rtol=0.02, atol=1e-4)
    if scheme == "replacement":
        assert found.moved == 0
    else:
        np.testing.assert_allclose(found.gain, closed.gain, rtol=0.05, atol=2e-5)
        np.testing.assert_allclose(found.moved, closed.moved, rtol=0.02)
    np.testing.assert_allclose(found.wandering, closed.wandering, rtol=0.02)


@pytest.mark.parametrize("scheme", ["batches", "symmetric", "all_phases", "replacement"])
def test_prediction_for_an_integrator_of_ones_own(scheme):
    order = "replacement" if scheme == "replacement" else "batches"
    made = predict(
        request(UBU(2.0), order),
        NOISE,
        unmeasured(2),
        "plain",
        batch_size=100,
        step_size=0.002,
        scheme=scheme,
    )
    np.testing.assert_allclose(sum(made.parts.values()), made.variance_error)
    assert np.all(np.abs(made.parts["step size of the integrator"]) < 1e-5)
    assert made.parts["batch noise"][0] > made.parts["batch noise"][1] > 0
    assert abs(made.tail_error[0]) >= abs(made.variance_error[0])
    assert ("shifted mean" in made.parts) == (scheme != "replacement")


def test_an_unstable_step_or_infinite_noise_has_no_prediction():
    for h, scale in ((2.1, 1.0), (0.01, np.inf), (0.01, np.nan)):
        noise = NOISE._replace(mean={"plain": scale * NOISE.mean["plain"]})
        made = predict(
            request(FrictionEuler(0.1)),
            noise,
            unmeasured(2),
            "plain",
            batch_size=100,
            step_size=h,
            scheme="batches",
        )
        assert made is None
    with pytest.raises(ValueError, match=r"`step_size` 2\.1 is not stable"):
        choose(request(FrictionEuler(0.1), step_size=2.1), NOISE, unmeasured(2))


@pytest.mark.parametrize("friction", [0.3, 2.0, 10.0])
def test_draws_are_as_far_as_the_slower_of_mean_and_variance_asks_for(friction):
    integrator, h, softest = FrictionEuler(friction), 0.05, 0.5
    given = request(integrator, softest=softest)
    number, autocorrelation = draw_spacing(given, h, 10_000, inside=True)
    lags = [lag_correlation(integrator, h, number * n, curvature=softest) for n in range(1, 300)]
    worst = max(1 + 2 * sum(column) for column in zip(*lags, strict=True))
    assert autocorrelation == pytest.approx(worst, rel=1e-6)
    assert 1.0 < autocorrelation <= 2.2
    closer = autocorrelation_time(integrator, h, number - 1, curvature=softest)
    assert closer > 2.2
    at_ends, _ = draw_spacing(given, h, 100, inside=False)
    assert at_ends % 100 == 0 and at_ends >= number
    fixed = request(integrator, softest=softest, steps_per_draw=7)
    assert draw_spacing(fixed, h, 100, inside=True)[0] == 7


def test_choice_keeps_the_step_size_and_finds_the_rest():
    found = choose(request(UBU(2.0), step_size=0.005), NOISE, unmeasured(2))
    assert found.step_size == 0.005 and found.met
    assert found.steps_per_draw % found.num_batches == 0
    with pytest.raises(ValueError, match="`step_size` must be given"):
        make_settings(integrator=UBU())


@pytest.mark.parametrize(("order", "count"), [("replacement", 40), ("batches", 10)])
@pytest.mark.slow
def test_report_of_a_run_predicts_the_error_that_is_measured(order, count):
    target = exact.LinearRegression(jax.random.key(1), num_data=400, dim=3, correlation=0.5)
    kernel = SGMCMCKernel(
        target.model,
        order=order,
        integrator=FrictionEuler(2.0),
        step_size=0.5 / count,
        batch_size=400 // count,
        gradient="plain",
        steps_per_draw=5 * count,
    )
    mcmc = MinibatchMCMC(
        kernel,
        num_samples=1000,
        num_warmup=100,
        num_chains=4,
        thinning=1,
        chain_method="vectorized",
        progress_bar=False,
    )
    with warnings.catch_warnings():
        warnings.simplefilter("error", TuningWarning)
        mcmc.run(jax.random.key(0), *target.data)
        report = mcmc.bias_report()
    predicted, stein, parts = report.predicted_variance_error, report.stein, report.parts
    np.testing.assert_allclose(sum(parts.values()), predicted)
    # Friction and gradient do not last alike long: -gamma h / 2.
    expected = -2.0 * 0.25 / count
    np.testing.assert_allclose(parts["step size of the integrator"], expected, rtol=0.15)
    # The realised noise of few batches scatters about its mean over partitions.
    scatter = 3 * np.sqrt(2 / (count - 1)) * np.abs(parts["batch noise"])
    deviation = np.abs(stein.variance_error - predicted)
    assert np.all(deviation < 4.5 * stein.variance_error_se + scatter)
    if order == "batches":
        assert np.all(scatter < 0.01)
        assert np.all(np.abs(stein.mean_shift) < 4.5 * stein.mean_shift_se)
    else:
        assert np.all(parts["batch noise"] > 0.08)
