"""Means of values at some draws, with a control that is known at all."""

import numpy as np
import pytest
from scipy import stats

from sgworld_mcmc.report.check import limits
from sgworld_mcmc.report.controlled_means import controlled_mean, mean_and_error

CHAINS, DRAWS, COLUMNS = 4, 500, 2000


def _some(values, each):
    return values[:, np.linspace(0, DRAWS - 1, each).astype(int)]


def test_linear_values_have_the_mean_and_the_error_of_all_draws():
    y = np.random.default_rng(0).normal(size=(CHAINS, DRAWS, COLUMNS)) + 0.3
    mean, error = controlled_mean(_some(y, 64), _some(y, 64), y, 1.0)
    np.testing.assert_allclose(mean, y.mean((0, 1)), atol=1e-12)
    # 2000 draws, and what 256 of them may leave unseen, 3 / 256.
    least = np.hypot(1 / np.sqrt(2000), 3 / 256)
    assert least < np.median(error) < 1.1 * least


@pytest.mark.parametrize("shape, each", [(5.0, 8), (1.0, 64)])
def test_errors_of_skewed_posteriors_are_those_of_their_scatter(shape, each):
    """Score of a log-gamma variable, whose mean is zero: 2000 of them, each with its own error."""
    y = np.log(np.random.default_rng(1).gamma(shape, size=(CHAINS, DRAWS, COLUMNS)))
    unit = stats.loggamma(shape).std()
    slope, y = (np.exp(y) - shape) * unit, y / unit
    y = y - y.mean((0, 1))
    mean, error = controlled_mean(_some(slope, each), _some(y, each), y, 1.0)
    z = mean / error
    assert 0.3 < z.std() < 1.1
    assert np.abs(z).max() < 5.5
    # Fewer draws have errors that are larger than those of the scatter of the values alone.
    assert np.median(error) < 0.8 * np.median(mean_and_error(_some(slope, each), 1.0)[1])


def test_correlated_draws_are_worth_fewer():
    """A walk with correlation 0.9 from draw to draw: 19 draws for an independent one."""
    generator = np.random.default_rng(2)
    y = generator.normal(size=(CHAINS, DRAWS, 400))
    for i in range(1, DRAWS):
        y[:, i] = 0.9 * y[:, i - 1] + np.sqrt(1 - 0.81) * y[:, i]
    mean, error = mean_and_error(y, 1.0)
    assert (mean / error).std() < 1.2
    assert np.sqrt(19 / 2000) < 1.3 * np.median(error)


def test_few_shared_parameters_are_judged_by_themselves():
    names = ("scale", *(f"group[{i}]" for i in range(4000)))
    variance, mean = limits(names)
    assert mean[0] < 4.2 < 5.6 < mean[1] < 5.9
    assert variance == pytest.approx(4 + np.sqrt(2 * np.log(4001)))
    alone = limits(("a", "b[0]", "b[1]"))
    assert alone[0] == pytest.approx(1.1 * alone[1][0])
    np.testing.assert_array_equal(alone[1], alone[1][0])
    # No more of one family than of all parameters together.
    level = 2 * stats.norm.sf(mean)
    assert level.sum() == pytest.approx(2 * stats.norm.sf(4), rel=1e-6)
