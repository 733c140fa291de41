"""The check by Stein's identity where all rows are too many: each draw sees a part of them."""

import jax
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest

from sgworld_mcmc import SGWORLD
from sgworld_mcmc.data.in_memory import is_large
from sgworld_mcmc.report import stein_check
from sgworld_mcmc.setup.lay_out import posterior_of

SIZE, DIMENSION, DRAWS = 150_001, 3, 128
SETTINGS = {"batch_size": 1000, "step_size": 0.05, "gradient": "control_variate"}
# Multiplications for all rows at every other draw, and for parts of the rows.
ALL, PARTS = 4 * SIZE * DIMENSION * 4 * DRAWS, SIZE * DIMENSION * 4


def model(X, y):
    b = numpyro.sample("b", dist.Normal(0, 1).expand([DIMENSION]).to_event(1))
    with numpyro.plate("rows", len(y)):
        numpyro.sample("y", dist.Bernoulli(logits=X @ b), obs=y)


@pytest.fixture(scope="module")
def posterior():
    generator = np.random.default_rng(0)
    X = generator.standard_t(4, size=(SIZE, DIMENSION)).astype(np.float32)
    y = generator.uniform(size=SIZE) < 1 / (1 + np.exp(-X @ [1.0, 0.5, -0.5]))
    mcmc = SGWORLD(model, **SETTINGS)
    plan = mcmc.set_up(jax.random.key(0), X, y.astype(np.float32))
    return posterior_of(plan, mcmc.data, None)


@pytest.fixture(scope="module")
def draws():
    """(chains, draws, D) of the posterior, which is Gaussian with so many rows."""
    return np.random.default_rng(1).normal(size=(4, DRAWS, DIMENSION))


@pytest.fixture
def check(posterior, monkeypatch):
    def checked(positions, budget):
        monkeypatch.setattr(stein_check, "BUDGET", budget)
        return stein_check.stein_check(posterior, positions)

    return checked


def test_parts_of_the_rows_tell_what_all_rows_tell(check, draws):
    """At the same draws, so that only the parts' noise is between them."""
    assert is_large(SIZE)
    everything, parts = check(draws, ALL), check(draws, PARTS)
    assert everything.draws == parts.draws == 2 * DRAWS
    difference = np.abs(parts.variance_error - everything.variance_error)
    assert 0 < difference.max() < 0.3 * everything.variance_error_se.min()
    shift = np.abs(parts.mean_shift - everything.mean_shift)
    assert 0 < shift.max() < 0.3 * everything.mean_shift_se.min()
    np.testing.assert_allclose(parts.variance_error_se, everything.variance_error_se, rtol=0.1)
    assert np.all(np.abs(parts.variance_error) < 4 * parts.variance_error_se)


@pytest.mark.parametrize("factor", [0.6, 1.5])
def test_draws_too_narrow_or_too_wide_are_seen(check, draws, factor):
    found = check(factor * draws, PARTS)
    # 9 standard errors at least, from all 512 draws; the scatter of 4 chains may by chance be 2.8
    # times as large.
    wrong = np.sign(factor - 1) * found.variance_error / found.variance_error_se
    assert np.all(wrong > 3) and np.median(wrong) > 6
    np.testing.assert_allclose(found.variance_error, factor**2 - 1, atol=0.6)


def test_shifted_draws_are_seen(check, draws):
    found = check(draws + 0.5, PARTS)
    assert np.all(np.abs(found.mean_shift / found.mean_shift_se).max() > 4)


def test_estimates_are_unbiased_over_all_parts(posterior, draws):
    """The mean over a partition of the rows is the gradient of all, whatever the anchor."""
    length, count = 1000, 150
    z = np.repeat(draws[0, :1], count, axis=0)
    off = posterior._replace(fit=posterior.fit._replace(hessian=1.1 * posterior.fit.hessian))
    estimates = np.asarray(stein_check._part_gradients(posterior, z, length), float)
    whole = np.asarray(stein_check._gradients(posterior, z[:1]), float)[0]
    error = estimates.std(0, ddof=1) / np.sqrt(count)
    assert np.all(np.abs(estimates.mean(0) - whole) < 5 * error + 1e-3)
    assert np.all(estimates.std(0) < 0.5)
    # A wrong Hessian of all rows is seen: the anchor is not decoration.
    wrong = np.asarray(stein_check._part_gradients(off, z, length), float).mean(0)
    assert np.abs(wrong - whole).max() > 0.05


def test_rows_of_ragged_batches_are_not_copied():
    """150 001 rows in 151 batches: the last row of some batches is stored apart."""
    generator = np.random.default_rng(0)
    X = generator.normal(size=(SIZE, DIMENSION)).astype(np.float32)
    mcmc = SGWORLD(model, **SETTINGS)
    plan = mcmc.set_up(jax.random.key(0), X, np.zeros(SIZE, np.float32))
    batches = mcmc.data.feed
    assert batches.extra is not None
    rows = posterior_of(plan, mcmc.data, None).rows
    assert rows[0].shape == X.shape
    assert rows[0].unsafe_buffer_pointer() == batches.main[0].unsafe_buffer_pointer()
