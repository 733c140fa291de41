"""Which rows are looked at to find out whether a model is a sum over rows."""

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest

from sgworld_mcmc.model.additivity import check_minibatching, make_evaluation
from sgworld_mcmc.model.inspection import minibatch_model

ROWS = 1000


def normal(y):
    mu = numpyro.sample("mu", dist.Normal(0, 1))
    numpyro.sample("y", dist.Normal(mu, 1), obs=y)


def standardised(y):
    normal(y - y.mean())


def looked_at(model, points, precise):
    """Return the sites that add up, and the numbers of rows of all evaluations."""
    y = np.random.default_rng(0).normal(size=ROWS).astype(np.float32)
    view = minibatch_model(model, (y,), {})
    view.precise = precise
    compiled, rows = make_evaluation(view), []

    def evaluate(flat, data, constants):
        rows.append(len(jax.tree.leaves(data)[0]))
        return compiled(flat, data, constants)

    return check_minibatching(view, evaluate, (jnp.asarray(y),), (), points), rows


def test_at_given_points_all_rows_are_evaluated_in_double_precision_only():
    points = [jnp.zeros(1), jnp.ones(1)]
    additive, rows = looked_at(normal, points, precise=False)
    assert additive == {"y"} and set(rows) == {32} and len(rows) == 16
    additive, rows = looked_at(normal, points, precise=True)
    assert additive == {"y"} and rows == [ROWS, ROWS]


def test_without_points_those_where_the_model_is_finite_on_all_rows_are_found():
    additive, rows = looked_at(normal, None, precise=False)
    assert additive == {"y"} and rows == [ROWS, ROWS] + 16 * [32]
    additive, rows = looked_at(normal, None, precise=True)
    assert additive == {"y"} and rows == [ROWS, ROWS]


@pytest.mark.parametrize("precise", [True, False])
@pytest.mark.parametrize("points", [None, [jnp.zeros(1)]])
def test_a_mean_of_the_rows_that_are_given_does_not_add_up(points, precise):
    with pytest.raises(ValueError, match="'y' has a log density that does not add up"):
        looked_at(standardised, points, precise)


def cancelling(y, weight=1.0):
    """Normalise two features that are nearly equal, by a variance that loses most of its digits.

    The number of rows cancels out; it makes the rounding another one for each number of rows, as
    compilers may do.
    """
    mu = numpyro.sample("mu", dist.Normal(0, 1))
    pair = mu * jnp.stack([y, 1.001 * y]) * len(y) ** 0.5
    variance = (pair**2).mean(0) - pair.mean(0) ** 2
    normed = (pair[0] - pair.mean(0)) / jnp.sqrt(jnp.maximum(variance, 0) + 1e-6 * len(y))
    with numpyro.handlers.scale(scale=weight):
        numpyro.sample("y", dist.Normal(normed, 1), obs=y)


@pytest.mark.parametrize("double", [True, False])
def test_a_sum_over_rows_that_loses_digits_by_cancellation_is_one(double):
    for points in (None, [jnp.full(1, 0.3)]):
        with jax.enable_x64(double):
            assert looked_at(cancelling, points, precise=double)[0] == {"y"}


# Each is hidden in the rounding of the sums over halves (the first), or greater than all rounding.
DEPENDENT = {
    "a hundredth of the mean": lambda y: cancelling(y - 0.01 * y.mean()),
    "the mean": lambda y: cancelling(y - y.mean()),
    "the rows' number": lambda y: cancelling(y, weight=100 / len(y)),
    "the logarithm of the rows' number": lambda y: cancelling(y, weight=1 + np.log(len(y)) / 10),
}


@pytest.mark.parametrize("double", [True, False])
@pytest.mark.parametrize("kind", DEPENDENT)
def test_rows_that_depend_on_each_other_are_seen_through_the_rounding(kind, double):
    with jax.enable_x64(double):
        with pytest.raises(ValueError, match="'y' has a log density that does not add up"):
            looked_at(DEPENDENT[kind], [jnp.full(1, 0.3)], precise=double)
