"""The mode of many rows from growing parts of them, and how often the rows are read."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest

from sgworld_mcmc import SGWORLD
from sgworld_mcmc.data.fixed_partition import FixedPartition
from sgworld_mcmc.data.in_memory import generator_of, is_large, seed_of
from sgworld_mcmc.progress import watch
from sgworld_mcmc.setup import coordinates_from_mode
from sgworld_mcmc.setup.checked_model import check_model
from sgworld_mcmc.setup.compiled_functions import functions_of
from sgworld_mcmc.setup.coordinates_from_mode import fit_coordinates, set_up_feed
from sgworld_mcmc.setup.growing_search import grow, part_sizes
from sgworld_mcmc.setup.one_pass import Expansion

KEY = jax.random.key(0)
SIZE, DIMENSION = 200_000, 5


def logistic(X, y):
    b = numpyro.sample("b", dist.Normal(0, 1).expand([X.shape[1]]).to_event(1))
    with numpyro.plate("rows", len(y)):
        numpyro.sample("y", dist.Bernoulli(logits=X @ b), obs=y)


def poisson(X, y):
    b = numpyro.sample("b", dist.Normal(0, 1).expand([X.shape[1]]).to_event(1))
    with numpyro.plate("rows", len(y)):
        numpyro.sample("y", dist.Poisson(jnp.exp(X @ b)), obs=y)


def data_of(model, size=SIZE, dimension=DIMENSION):
    """Rows in an order that says something: a prefix of the user's rows is no random part."""
    generator = np.random.default_rng(3)
    X = generator.normal(size=(size, dimension)).astype(np.float32)
    X[:, 0] = np.sort(X[:, 0])
    predictor = X @ np.linspace(-0.6, 0.6, dimension)
    if model is logistic:
        y = generator.uniform(size=size) < 1 / (1 + np.exp(-predictor))
    else:
        y = generator.poisson(np.exp(predictor))
    return X, y.astype(np.float32)


def center_of(model, data):
    """The center of these data, from the same random numbers each time."""
    generator, settings = generator_of(seed_of(KEY)), SGWORLD(model).sampler.settings
    checked = check_model(generator, model, settings, data, {}, {})
    functions, precise = functions_of(checked.model, None), checked.model.precise
    with jax.enable_x64(precise):
        feed, constants = set_up_feed(checked.rows(False)), checked.constants(precise)
        return fit_coordinates(generator, functions, feed, constants, None, settings)


@pytest.mark.slow
@pytest.mark.parametrize("model", [logistic, poisson])
def test_the_mode_is_that_of_the_search_on_all_rows(model, monkeypatch):
    data = data_of(model)
    center = center_of(model, data)
    assert center.converged and not center.fitted and center.gain < 1e-6

    # In NumPy, double precision: gradient and Hessian at the center.
    X, y = (x.astype(float) for x in data)
    predictor = X @ center.coordinates.center
    mean = 1 / (1 + np.exp(-predictor)) if model is logistic else np.exp(predictor)
    weight = mean * (1 - mean) if model is logistic else mean
    gradient = X.T @ (y - mean) - center.coordinates.center
    hessian = X.T @ (weight[:, None] * X) + np.eye(DIMENSION)
    assert np.linalg.norm(center.coordinates.scale.T @ gradient) < 1e-3
    assert np.linalg.norm(center.coordinates.scale.T @ (gradient - center.gradient)) < 1e-3
    np.testing.assert_allclose(
        center.coordinates.scale.T @ hessian @ center.coordinates.scale, np.eye(5), atol=1e-3
    )
    np.testing.assert_allclose(center.hessian, hessian, rtol=1e-3, atol=1e-3 * hessian.max())

    monkeypatch.setattr(coordinates_from_mode, "_grown", lambda *_: None)
    before = center_of(model, data)
    apart = np.linalg.solve(
        before.coordinates.scale, center.coordinates.center - before.coordinates.center
    )
    assert 0 < np.linalg.norm(apart) < 1.5e-3


@pytest.mark.slow
def test_many_rows_are_read_a_few_times_only():
    """All of it: checks, shuffle, search, pilots, noise, and the check after the run."""
    size = 4_000_000
    data = data_of(logistic, size, 2)
    mcmc = SGWORLD(logistic, num_samples=200, num_warmup=2, num_chains=2)
    with watch() as seen:
        mcmc.run(KEY, *data)
    names = {"checking the model", "searching the mode", "pilot chains", "noise of the rows"}
    assert names <= set(seen.rows)
    assert 4 < seen.passes(size) <= 6
    assert 0.1 < seen.rows["checking the draws"] / size < 1
    # A look at all numbers, the shuffle, and the additivity on a part.
    assert 2 < seen.rows["checking the model"] / size < 2.2


@pytest.mark.slow
def test_rows_that_single_precision_rounds_are_searched_again_as_they_are():
    """A center found for rounded rows would be a tenth of a standard deviation away."""

    def line(x, y):
        a = numpyro.sample("a", dist.Normal(0, 1e4))
        b = numpyro.sample("b", dist.Normal(0, 10))
        with numpyro.plate("rows", len(y)):
            numpyro.sample("y", dist.Normal(a + b * x, 1e-4), obs=y)

    generator = np.random.default_rng(8)
    x = generator.uniform(2019, 2021, SIZE)
    y = 1 + 0.3 * (x - 2020) + 1e-4 * generator.standard_normal(SIZE)
    plan = SGWORLD(line).set_up(KEY, x, y)
    assert plan.double
    found = plan.fit.coordinates.center

    def distance(x):
        # The prior's standard deviations are too large to matter; x - 2020 keeps all digits.
        slope, height = np.polyfit(x - 2020, y, 1)
        exact = np.array([height - 2020 * slope, slope])
        return plan.fit.coordinates.distance(found - exact)

    assert distance(x) < 1e-2
    assert distance(x.astype(np.float32).astype(float)) > 5e-2


def test_few_rows_take_the_path_of_all_rows(monkeypatch):
    monkeypatch.setattr(coordinates_from_mode, "grow", lambda *_: pytest.fail("searched on parts"))
    assert not is_large(100_000)
    assert center_of(logistic, data_of(logistic, 20_000, 2)).converged


def test_parts_grow_up_to_an_eighth_of_all_rows():
    assert part_sizes(2000) == [3, 15, 62, 250]
    assert part_sizes(27) == [3] and part_sizes(2) == [1]


class Bowl(NamedTuple):
    """Stands for a search: a potential of one dimension instead of a model and its rows.

    The parts have this ``curvature``, and this ``slope`` more; the log density of all rows is
    ``jump`` lower where it is seen with its Hessian.
    """

    curvature: float = 100.0
    slope: float = 0.0
    jump: float = 0.0

    dimension = 1
    feed = FixedPartition(np.zeros((80, 1)))
    functions = type("Functions", (), {"model": type("Model", (), {"size": 80})})

    def expand(self, position, used, about=None):
        here = Expansion(
            np.asarray(-50 * float(position[0] ** 2)),
            -100 * position,
            np.array([[100.0]]),
        )
        if used == 80:
            return here._replace(value=here.value - self.jump)
        return here._replace(
            gradient=here.gradient + self.slope, hessian=np.array([[self.curvature]])
        )

    def evaluate(self, position, used):
        here = self._replace(jump=0.0).expand(position, used)
        return type(
            "Search", (), {"loss": np.asarray(-here.value / 80), "gradient": -here.gradient / 80}
        )


def test_newton_steps_on_parts_give_up_where_they_are_no_good():
    start = np.array([0.3])
    found = grow(Bowl(), start)
    np.testing.assert_allclose(found.position, 0, atol=1e-9)
    # A tilted part leads elsewhere, and all rows lead back from there.
    np.testing.assert_allclose(grow(Bowl(slope=30.0), start).position, 0, atol=1e-9)
    assert grow(Bowl(curvature=-1.0), start) is None
    assert grow(Bowl(slope=1e5), start) is None
    assert grow(Bowl(jump=1e3), start) is None
    assert grow(Bowl(curvature=np.nan), start) is None
