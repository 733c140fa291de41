"""A row that alone decides about a parameter, among many of which the noise of some is measured."""

import jax
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest

from sgworld_mcmc import SGWORLD
from sgworld_mcmc.setup import measurements
from sgworld_mcmc.setup.influential_rows import FEW, chosen_rows

# So many rows that a set-up without a mode is not tried.
SIZE = 200_000


def model(x, flag, y):
    a = numpyro.sample("a", dist.Normal(0, 5))
    b = numpyro.sample("b", dist.Normal(0, 5))
    c = numpyro.sample("c", dist.Normal(0, 2))
    with numpyro.plate("rows", len(y)):
        numpyro.sample("y", dist.Bernoulli(logits=a + b * x + c * flag), obs=y)


@pytest.fixture
def data(monkeypatch):
    """Rows of which one has the flag, and a set-up that looks at few of them."""
    monkeypatch.setattr(measurements, "NOISE_ROWS", 2**13)
    rng = np.random.default_rng(1)
    x, flag = rng.standard_normal(SIZE).astype(np.float32), np.zeros(SIZE, np.float32)
    y = (rng.random(SIZE) < 1 / (1 + np.exp(2 - 0.5 * x))).astype(np.float32)
    flag[31_415] = y[31_415] = 1
    return x, flag, y


@pytest.mark.slow
@pytest.mark.parametrize("place", [31_415, 3])
def test_the_noise_of_a_row_is_known_whether_it_is_among_those_measured(data, place):
    x, flag, y = data
    flag[31_415], flag[place], y[place] = 0, 1, 1
    plan = SGWORLD(model).set_up(jax.random.key(0), x, flag, y)
    (a, b, c), deviation = plan.fit.coordinates.center, plan.fit.coordinates.deviations()[2]
    # N times the mean square of what a Taylor polynomial leaves of the slope of the row.
    slope = lambda c: 1 / (1 + np.exp(a + b * x[place] + c))  # noqa: E731
    here = slope(c)
    z = np.random.default_rng(2).standard_normal(10_000)
    rest = slope(c + deviation * z) - here + here * (1 - here) * deviation * z
    expected = SIZE * np.mean((deviation * rest) ** 2)
    # A mean over draws of pilot chains, which are no Gaussian, plus its standard error.
    assert 0.4 < plan.measurements.noise.mean["taylor"][2] / expected < 2.5


def test_the_largest_of_the_rows_that_matter_are_chosen():
    slopes = np.full(10_000, 1e-3)
    assert len(chosen_rows(slopes)) == 0
    slopes[[5, 7000]] = 0.04, 3.0
    assert chosen_rows(slopes).tolist() == [5, 7000]
    slopes[3] = np.nan
    assert 3 in chosen_rows(slopes)
    assert len(chosen_rows(np.linspace(0, 1, 10_000))) == FEW
