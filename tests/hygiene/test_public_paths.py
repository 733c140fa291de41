"""A short walk along every public path, which `make hygiene` repeats under JAX's own checks.

The checks are those of leaked tracers, of keys used twice, of double precision and of warnings as
errors. Here the draws are looked at: with a key used twice they would be the wrong ones.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from models import plated, regression_data
from tolerances import SIGMAS

import sgworld_mcmc as sg
from sgworld_mcmc import SGLD, SGWORLD, audit, exact, nonequilibrium
from sgworld_mcmc.data.fixed_partition import FixedPartition
from sgworld_mcmc.integrators.averaged import Averaged
from sgworld_mcmc.integrators.euler import Euler
from sgworld_mcmc.members import GRADIENTS, ORDERS
from sgworld_mcmc.sampling.chain import clock_of, draw, initial_state
from sgworld_mcmc.sampling.dynamics import Dynamics

GIVEN = {"step_size": 0.05, "batch_size": 60, "num_samples": 8, "num_warmup": 2, "num_chains": 2}


def run(cls=SGWORLD, **settings):
    mcmc = cls(plated, progress_bar=False, **settings)
    mcmc.run(jax.random.key(0), *regression_data())
    draws = mcmc.get_samples(group_by_chain=True)
    assert all(np.isfinite(x).all() for x in draws.values())
    return mcmc, draws


def test_defaults():
    mcmc, draws = run(num_samples=100, num_warmup=20, num_chains=4)
    assert draws["b"].shape == (4, 100, 3)
    assert "variance" in str(mcmc.bias_report())


@pytest.mark.parametrize("order", ["batches", "examples", "symmetric", "once"])
def test_orders_and_gradients(order):
    gradient = {"batches": "taylor", "symmetric": "control_variate"}.get(order, "plain")
    _, draws = run(order=order, gradient=gradient, **GIVEN)
    assert draws["b"].shape == (2, 8, 3)


def test_sgld_and_kinetic_dynamics():
    run(SGLD, gradient="plain", **GIVEN)
    run(dynamics="kinetic", gradient="plain", **GIVEN)


def test_chains_one_after_the_other():
    _, draws = run(chain_method="sequential", gradient="plain", **GIVEN)
    assert draws["b"].shape == (2, 8, 3)


@pytest.mark.parametrize("order", ["batches", "examples"])
def test_no_key_is_used_twice(order):
    with jax.debug_key_reuse(True):
        run(order=order, gradient="plain", **GIVEN)


def test_the_stein_check_knows_the_temperature():
    """At temperature 4 the variances are four times as large, and right."""
    target = exact.GaussianMean(num_data=60, dim=2)
    mcmc = SGWORLD(target.model, temperature=4.0, num_samples=500, progress_bar=False)
    mcmc.run(jax.random.key(5), *target.data)
    found = mcmc.bias_report().stein
    assert np.all(np.abs(found.variance_error) < SIGMAS * found.variance_error_se + 0.02)
    assert np.all(found.variance_error_se < 0.1)
    variances = np.asarray(mcmc.get_samples()["mu"]).var(0) / np.diag(target.covariance)
    assert np.all(np.abs(variances / 4 - 1) < 0.2)


def test_kernels_in_blackjax_form():
    y = np.linspace(-1, 1, 40).astype(np.float32)
    estimator = lambda x, rows: -x - 40 * jnp.mean(x - rows)  # noqa: E731
    for alg in (
        sg.sgworld(estimator, y, 7, 1e-3),
        sg.ubu(estimator, y, batch_size=7, step_size=1e-2, friction=2.0),
        sg.sgd(estimator, y, batch_size=7, learning_rate=1e-3),
    ):
        state = alg.init(jnp.zeros(()), jax.random.key(1))
        state, _ = jax.jit(alg.step)(jax.random.key(2), state)
        assert np.isfinite(state.position)
    alg = sg.sgld(estimator)
    state = alg.init(jnp.zeros(()), jax.random.key(1))
    state, _ = alg.step(jax.random.key(2), state, jnp.asarray(y[:7]), 1e-3)
    assert np.isfinite(state.position)


def test_audit_of_exact_draws():
    target = exact.GaussianMean(num_data=30, dim=2)
    draws = {"mu": np.asarray(target.sample(jax.random.key(3), 400)["mu"]).reshape(4, 100, 2)}
    assert audit(target.model, draws, *target.data).passed


def test_theory_of_the_noise():
    X, y = regression_data()
    loss = lambda w, row: (row[0] @ w - row[1]) ** 2 / 2  # noqa: E731
    data = (X, y)
    covariance = nonequilibrium.minibatch_covariance(loss, np.zeros(3), data, 29)
    diffusion = nonequilibrium.diffusion_matrix(loss, np.zeros(3), data, 29, 0.01, False)
    assert covariance.shape == diffusion.shape == (3, 3)
    assert np.linalg.eigvalsh(covariance).min() > 0


@pytest.mark.parametrize("integrator", [Euler(), Averaged()], ids=lambda kind: kind.name)
def test_noise_of_different_segments_is_independent(integrator):
    """A free particle: no gradient, so that each draw adds what noise its steps have had.

    A key that is used twice would make these sums equal, or add them up to too much.
    """
    count, draws, chains, h = 2, 40, 500, 0.5
    dynamics = Dynamics(
        order=ORDERS["batches"](),
        gradient=GRADIENTS["plain"].make(cache=False),
        integrator=integrator,
        temperature=1.0,
        num_batches=count,
        steps_per_draw=2 * count,
        steps_per_warmup=count,
        limit=None,
    )
    feed = FixedPartition(jnp.zeros((count, 1)), None)

    def chain(key):
        state = initial_state(
            key,
            jnp.zeros(1),
            z={},
            step_size=jnp.float32(h),
            dealing=(),
            num_warmup=0,
            dynamics=dynamics,
        )

        def one(state, _):
            target = lambda z, rows: 0.0 * z.sum()  # noqa: E731
            parts = {"feed": feed, "target": target, "controls": (), "dynamics": dynamics}
            state = draw(state, clock_of(state), to_sites=lambda z: {}, **parts)
            return state, state.position[0]

        return jax.lax.scan(one, state, length=draws)[1]

    walks = jax.jit(jax.vmap(chain))(jax.random.split(jax.random.key(4), chains))
    walks = np.asarray(walks, float)
    steps = np.diff(walks, axis=1)
    # Every step adds noise of variance 2 h, of which averaged noise puts a half in the next one.
    variance = 2 * h * dynamics.steps_per_draw - (h if integrator.name == "averaged" else 0)
    number = steps.size
    assert abs(steps.var() / variance - 1) < SIGMAS * np.sqrt(2 / number)
    for lag in (1, 2, 3):
        one, other = steps[:, :-lag].ravel(), steps[:, lag:].ravel()
        shared = h / 2 if integrator.name == "averaged" and lag == 1 else 0
        assert abs((one * other).mean() - shared) < SIGMAS * variance / np.sqrt(one.size)
    # The first draw has numbers of its own, too: no other key made them.
    first = np.abs((walks[:, :1] * steps[:, :3]).mean(0))
    assert (first < (h / 2 if integrator.name == "averaged" else 0) + SIGMAS * variance / 22).all()
