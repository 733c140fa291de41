"""Positions that are cut at the model's sites give the draws of flat ones."""

from dataclasses import dataclass
from functools import partial
from typing import ClassVar, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sgworld_benchmarks.networks.models import classifier
from sgworld_mcmc import SGLD, SGWORLD
from sgworld_mcmc.infer import kernel
from sgworld_mcmc.protocols import Integrator
from sgworld_mcmc.sampling import by_site

SLOW = pytest.mark.slow
# Long enough segments, and many numbers, to be cut; everything is given, and nothing is tuned.
SIZES = {"w1": (150, 60), "b1": (60,), "w2": (60, 3), "b2": (3,)}
NUMBERS = int(sum(np.prod(shape) for shape in SIZES.values()))
POINTS = {site: np.full(shape, 0.1, np.float32) for site, shape in SIZES.items()}
GIVEN = dict(
    num_chains=2,
    num_samples=3,
    num_warmup=1,
    batch_size=20,
    step_size=0.01,
    steps_per_draw=20,
    preconditioner=np.ones(NUMBERS),
    start="given",
    gradient="plain",
    progress_bar=False,
)


@pytest.fixture(scope="module")
def rows():
    rng = np.random.default_rng(0)
    return rng.standard_normal((200, 150), np.float32), rng.integers(0, 3, 200)


@pytest.fixture
def cuts(monkeypatch):
    """Sizes of the sites at which the positions of runs were cut."""
    seen = []

    def noted(*args):
        seen.append(by_site.sites_apart(*args))
        return seen[-1]

    monkeypatch.setattr(kernel, "sites_apart", noted)
    return seen


@pytest.mark.parametrize(
    "sampler, settings",
    [
        pytest.param(SGWORLD, {}, id="vectorized"),
        pytest.param(SGWORLD, {"chain_method": "sequential"}, id="sequential", marks=SLOW),
        pytest.param(SGLD, {}, id="replacement", marks=SLOW),
    ],
)
@pytest.mark.filterwarnings("ignore")
def test_draws_are_those_of_flat_positions(rows, cuts, monkeypatch, sampler, settings):
    model = partial(classifier, hidden=(60,), classes=3)

    def draws():
        mcmc = sampler(model, dynamics="kinetic", friction=1.0, **GIVEN, **settings)
        mcmc.run(jax.random.key(0), *rows, init_params=POINTS)
        return mcmc.get_samples(group_by_chain=True)

    apart = draws()
    assert cuts and len(cuts[-1]) == len(apart) and sum(cuts[-1]) > by_site.FEWEST_NUMBERS
    monkeypatch.setattr(by_site, "FEWEST_NUMBERS", 10**9)
    jax.clear_caches()
    flat = draws()
    assert cuts[-1] == ()
    for site, values in apart.items():
        assert np.std(values) > 0
        np.testing.assert_allclose(values, flat[site], atol=2e-4)


def test_cut_and_joined_are_inverse():
    motion = {"x": jnp.arange(6.0), "v": jnp.arange(6.0) ** 2}
    parts = by_site.cut(motion, (1, 3, 2))
    assert [x.shape for x in parts["x"]] == [(1,), (3,), (2,)]
    again = by_site.joined(parts)
    assert all(np.array_equal(again[name], motion[name]) for name in motion)


class Counted(NamedTuple):
    """A state that is more than arrays like the position."""

    position: jax.Array
    steps: jax.Array


@dataclass(frozen=True)
class Counting(Integrator):
    """Langevin dynamics of somebody else, which counts its steps, of flat positions only."""

    name: ClassVar[str] = "counting"

    def init(self, rng_key, position):
        return Counted(position, jnp.zeros((), jnp.int32))

    def step(self, state, gradient, normals, step_size, temperature):
        noise = jnp.sqrt(2 * temperature * step_size) * normals
        move = step_size * gradient(state.position) + noise
        return Counted(state.position + move, state.steps + 1)

    def position(self, state):
        return state.position

    def affine(self, step_size, hessian, temperature=1.0):
        raise NotImplementedError


@pytest.mark.filterwarnings("ignore")
def test_an_integrator_of_somebody_else_has_flat_positions(rows, cuts):
    model = partial(classifier, hidden=(60,), classes=3)
    mcmc = SGWORLD(model, integrator=Counting(), **GIVEN | {"step_size": 1e-5})
    mcmc.run(jax.random.key(0), *rows, init_params=POINTS)
    motion = mcmc.last_state.motion
    assert not any(cuts) and motion.position.shape == (2, NUMBERS)
    assert (motion.steps == motion.steps[0]).all() and motion.steps[0] >= 60
    assert np.isfinite(motion.position).all()
