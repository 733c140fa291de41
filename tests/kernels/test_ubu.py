"""Kinetic Langevin dynamics: the free motion, its order of convergence, and its kernel."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from blackjax.sgmcmc.gradients import grad_estimator
from kinetic import UBU as Reference
from scipy import stats
from tolerances import SIGMAS

import sgworld_mcmc as sg
from sgworld_mcmc import exact
from sgworld_mcmc.hashing import random_words
from sgworld_mcmc.integrators.normals import draw_three_point
from sgworld_mcmc.integrators.ubu import UBU, _motion
from sgworld_mcmc.theory.affine_recursion import relative_variance_error


@pytest.mark.parametrize("friction", [0.3, 2.0, 50.0])
@pytest.mark.parametrize("h", [0.01, 0.5, 3.0])
def test_a_step_has_the_covariances_of_free_motion(friction, h):
    hessian = np.array([[2.0, 0.3], [0.3, 0.5]])
    here, there = (each(friction).affine(h, hessian, 0.7) for each in (UBU, Reference))
    np.testing.assert_allclose(here.advance, there.advance, rtol=1e-10, atol=1e-12)
    np.testing.assert_allclose(here.push, there.push, rtol=1e-10)
    covariances = [step.kick @ step.kick.T for step in (here, there)]
    np.testing.assert_allclose(*covariances, rtol=1e-7, atol=1e-12)


@pytest.mark.parametrize("y", [1e-6, 1e-3, 0.1, 0.9, 0.999999, 1.000001, 3.0, 40.0])
def test_free_motion_is_accurate_in_single_precision(y):
    # The rest of the position's variance is y^3/12 for small y: it is a difference of terms y.
    exact_values = [np.exp(-y), np.tanh(y / 2), np.sqrt(-np.expm1(-2 * y))]
    with jax.enable_x64(False):
        *found, spread = _motion(1.0, jnp.float32(y), jnp)
    np.testing.assert_allclose(found, exact_values, rtol=1e-6)
    rest = y**3 / 12 - y**5 / 120 if y < 0.01 else y - 2 * np.tanh(y / 2)
    np.testing.assert_allclose(spread, np.sqrt(2 * rest), rtol=1e-5)


def test_the_error_is_of_second_order_in_theory():
    for law, noise in (("symmetric", 100.0), ("batches", 100.0), ("replacement", 0.0)):
        errors = [relative_variance_error(UBU(2.0), h, 100, noise, law=law) for h in (0.002, 0.001)]
        # The batches may add terms of higher order, which fall faster.
        assert errors[0] / errors[1] > 3.8, law
    first = [
        relative_variance_error(UBU(2.0), h, 100, 100.0, law="replacement") for h in (2e-3, 1e-3)
    ]
    assert 1.9 < first[0] / first[1] < 2.1  # with replacement it is of first order


@pytest.mark.slow
@pytest.mark.parametrize("family", ["BetaBernoulli", "GammaPoisson"])
def test_the_error_is_of_second_order_on_an_exact_posterior(family):
    """Full gradients at steps h and h/2: the errors of mean and variance fall by four."""
    if family == "BetaBernoulli":
        target = exact.BetaBernoulli(num_data=12)
        log_density = lambda u: (  # noqa: E731
            target.a * jax.nn.log_sigmoid(u) + target.b * jax.nn.log_sigmoid(-u)
        )
        sites = jax.scipy.special.logit(target.sample(jax.random.key(8), 400_000)["p"])
    else:
        target = exact.GammaPoisson(num_data=4)
        log_density = lambda u: target.a * u - target.b * jnp.exp(u)  # noqa: E731
        sites = jnp.log(target.sample(jax.random.key(8), 400_000)["rate"])
    reference = np.asarray(sites, float)
    sd = reference.std()
    estimator = lambda x, rows: jax.grad(log_density)(x)  # noqa: E731
    chains, draws = 8000, 60
    errors = []
    for h in (0.8 * sd, 0.4 * sd):
        alg = sg.ubu(estimator, jnp.zeros(1), batch_size=1, step_size=h, friction=1.5 / sd)

        def chain(key, alg=alg):
            first, rest = jax.random.split(key)
            state = alg.init(jnp.asarray(reference.mean()), first)
            move = lambda state, key: (new := alg.step(key, state)[0], new.position)  # noqa: E731
            return jax.lax.scan(move, state, jax.random.split(rest, draws + 20))[1][20:]

        found = np.asarray(jax.jit(jax.vmap(chain))(jax.random.split(jax.random.key(3), chains)))
        second = ((found - reference.mean()) ** 2).mean(1)
        error = second.std() / np.sqrt(chains) / reference.var()
        errors.append((second.mean() / reference.var() - 1, error))
    (large, large_error), (small, small_error) = errors
    # The sample of the reference has an error of its own, common to both.
    common = np.sqrt(2 / len(reference))
    assert abs(large) > 10 * large_error
    assert abs(small - large / 4) < SIGMAS * np.hypot(small_error, large_error / 4) + 3 * common + (
        0.1 * abs(large) / 4
    )


@pytest.mark.parametrize("order", ["symmetric", "batches"])
def test_the_kernel_runs_in_blackjax_form_on_a_pytree(order):
    rows = {"x": jax.random.normal(jax.random.key(0), (203, 2))}
    estimator = grad_estimator(
        lambda p: -jnp.sum(p["w"] ** 2) / 2,
        lambda p, row: -jnp.sum((row["x"] - p["w"]) ** 2) / 2,
        203,
    )
    alg = sg.ubu(estimator, rows, batch_size=20, step_size=0.01, friction=30.0, order=order)
    state = alg.init({"w": jnp.zeros(2)}, jax.random.key(1))
    step = jax.jit(alg.step)
    same, info = step(jax.random.key(2), state)
    again, _ = step(jax.random.key(2), state)
    assert jax.tree.all(jax.tree.map(lambda a, b: bool((a == b).all()), same, again))
    assert int(same.step) == 11 and not bool(info.diverging)
    assert same.velocity["w"].shape == (2,)


@pytest.mark.parametrize("friction", [0.0, -1.0, float("nan")])
def test_friction_must_be_positive(friction):
    with pytest.raises(ValueError, match="friction"):
        sg.ubu(lambda x, rows: -x, jnp.zeros(4), 2, 0.1, friction)


def test_a_step_that_is_too_long_is_reported():
    # So many steps overflow in double precision too.
    alg = sg.ubu(lambda x, rows: -x, jnp.zeros(4000), 1, 3.0, 1.0)
    state = alg.init(jnp.ones(()), jax.random.key(0))
    state, info = jax.jit(alg.step)(jax.random.key(1), state)
    assert bool(info.diverging) and np.isfinite(state.position)


def test_three_points_have_the_moments_of_normal_numbers():
    found = np.asarray(draw_three_point(jax.random.key(0), {"a": jnp.zeros((300, 7))}, 200)["a"])
    assert found.shape == (200, 300, 7) and len(np.unique(found)) == 3
    count = found.size
    assert abs(found.mean()) < SIGMAS / np.sqrt(count)
    assert abs((found**2).mean() - 1) < SIGMAS * np.sqrt(2 / count)
    assert abs((found**4).mean() - 3) < SIGMAS * np.sqrt(18 / count)
    flat = found.reshape(-1)
    for lag in (1, 2, 3, 4, 7, 256, 2100):
        assert abs((flat[lag:] * flat[:-lag]).mean()) < SIGMAS / np.sqrt(count - lag)


def test_three_points_of_different_leaves_and_keys_are_independent():
    """Each coordinate's sum over many steps is normal, and no two steps or leaves are alike."""
    steps, size = 4000, 500
    keys = jax.random.split(jax.random.key(1), steps)
    like = (jnp.zeros(size), {"a": jnp.zeros((size // 5, 5))})
    first, second = jax.jit(jax.vmap(lambda key: draw_three_point(key, like)))(keys)
    found = np.concatenate([first, np.asarray(second["a"]).reshape(steps, -1)], 1)
    sums = found.sum(0) / np.sqrt(steps)
    assert stats.kstest(sums, "norm").pvalue > 1e-3
    assert abs((sums**2).sum() - 2 * size) < SIGMAS * np.sqrt(2 * 2 * size)
    # Neighbouring steps, neighbouring coordinates, and the two leaves.
    pairs = (found[1:], found[:-1]), (found[:, 1:], found[:, :-1]), np.split(found, 2, axis=1)
    for one, other in pairs:
        assert abs((one * other).mean()) < SIGMAS / np.sqrt(one.size)
    rows = found @ found.T / np.sqrt(2 * size)
    away = rows[np.triu_indices(steps, 1)]
    assert abs((away**2).mean() - 1) < SIGMAS * np.sqrt(2 / steps)  # far fewer are independent
    assert np.abs(away).max() < 7  # of eight million


@pytest.mark.parametrize("seed", range(3))
def test_all_bits_of_the_words_are_fair_and_depend_on_all_bits(seed):
    seeds = jax.random.bits(jax.random.key(seed), (2,), jnp.uint32)
    words = np.asarray(random_words(seeds, 0, 2**20))
    for shift in (0, 8, 16, 24):
        assert stats.chisquare(np.bincount((words >> shift) & 255, minlength=256)).pvalue > 1e-4
    # A change of one bit of the counter, or of one of the two numbers, changes half of all bits.
    few = 2**14
    for bit in range(14):
        other = np.asarray(random_words(seeds, 0, few))[np.arange(few) ^ (1 << bit)]
        _check_half(words[:few] ^ other)
    for bit in range(32):
        for place in range(2):
            flip = np.zeros(2, np.uint32)
            flip[place] = 1 << bit
            _check_half(words[:few] ^ np.asarray(random_words(seeds ^ flip, 0, few)))


def _check_half(changed):
    """Each of the 32 bits is one in half of the words, but for a bias of a hundredth."""
    shares = ((changed[:, None] >> np.arange(32)) & 1).mean(0)
    assert np.abs(shares - 0.5).max() < 0.01 + SIGMAS * 0.5 / np.sqrt(len(changed))


@pytest.mark.slow
def test_three_points_give_the_same_law_in_short_steps():
    """Second and fourth moments of a Gaussian and of a skewed posterior."""
    chains, draws, h, friction = 4000, 150, 0.1, 1.0

    def moments(numbers, log_density):
        estimator = lambda x, rows: jax.grad(log_density)(x)  # noqa: E731
        integrator = UBU(friction, numbers)
        alg = sg.sgworld(estimator, jnp.zeros(20), 1, h, integrator=integrator)

        def chain(key):
            first, rest = jax.random.split(key)
            state = alg.init(jnp.zeros(()), first)
            move = lambda state, key: (new := alg.step(key, state)[0], new.position)  # noqa: E731
            return jax.lax.scan(move, state, jax.random.split(rest, draws))[1][20:]

        x = np.asarray(jax.jit(jax.vmap(chain))(jax.random.split(jax.random.key(1), chains)))
        powers = np.stack([(x**p).mean(1) for p in (1, 2, 3, 4)])
        return powers.mean(1), powers.std(1) / np.sqrt(chains)

    for log_density in (lambda x: -(x**2) / 2, lambda x: 2 * x - 2 * jnp.exp(x)):
        three, error = moments("three-point", log_density)
        normal, other = moments("gaussian", log_density)
        assert np.all(np.abs(three - normal) < SIGMAS * np.hypot(error, other))
        assert np.all(error < 0.05)
