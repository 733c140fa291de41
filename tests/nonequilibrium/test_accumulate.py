"""Moments recorded while a chain runs, against those of its whole trajectory."""

from itertools import pairwise
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from linear_chains import linearised_sgd, reversible, simulate
from scipy import stats

import sgworld_mcmc as sg
from sgworld_mcmc import SGLD, SGWORLD, exact
from sgworld_mcmc import nonequilibrium as ne
from sgworld_mcmc.compilation import quick_jit
from sgworld_mcmc.report.detailed_balance import measured_detailed_balance
from sgworld_mcmc.report.draws import Draws
from sgworld_mcmc.sampling import lagged_moments as moments

pytestmark = pytest.mark.slow
REVERSIBLE = reversible([1.0, 3.0, 8.0], 0.1)
ROTATING = np.array([[0.9, 0.1, 0.0], [-0.1, 0.9, 0.0], [0.0, 0.0, 0.5]]), np.eye(3)
AWAY = np.array([5.0, 0.0, -5.0])


@jax.jit
def record(path):
    """Return the moments of a path (chains, steps, D), as a user scans it."""
    start = moments.init(path[:, 0], jnp.zeros(path.shape[2]), chains=True)
    step = lambda r, x: (moments.update(r, x), None)  # noqa: E731
    return jax.lax.scan(step, start, path.swapaxes(0, 1))[0]


@pytest.fixture(scope="module")
def path():
    """Rotating and far from the origin; 500 steps fill 64 blocks three times over."""
    return (simulate(*ROTATING, 500, 4, seed=1) + AWAY).astype(np.float32)


def test_moments_are_those_of_the_trajectory(path):
    found = ne.recorded_moments(record(path))
    assert found.num_pairs == 4 * 499 and len(found.pairs) <= 64
    ours, theirs = found.moments(), ne.trajectory_moments(path)
    np.testing.assert_allclose(ours.mean, theirs.mean, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(ours.covariance, theirs.covariance, rtol=1e-4, atol=2e-5)
    np.testing.assert_allclose(ours.lagged[1], theirs.lagged[1], rtol=1e-4, atol=2e-5)
    np.testing.assert_allclose(found.areal_velocity(), ne.areal_velocity(path), atol=2e-5)
    center = np.array([4.0, 1.0, -6.0])
    np.testing.assert_allclose(
        found.areal_velocity(center), ne.areal_velocity(path, center), atol=2e-4
    )


def test_every_block_is_that_stretch_of_the_trajectory(path):
    found = ne.recorded_moments(record(path))
    edges = np.concatenate([[0], np.cumsum(found.pairs)])
    for block, (first, last) in enumerate(pairwise(edges)):
        x = path[:, first : last + 1].astype(float)
        moved = np.einsum("cki,ckj->cij", x[:, :-1], np.diff(x, axis=1))
        np.testing.assert_allclose(found.moved[:, block], moved, rtol=1e-4, atol=1e-3)
        np.testing.assert_allclose(found.sums[:, block], x[:, :-1].sum(1), rtol=1e-5, atol=1e-3)
        np.testing.assert_allclose(found.edges[:, block], x[:, 0], rtol=1e-6)
    np.testing.assert_allclose(found.edges[:, -1], path[:, -1], rtol=1e-6)


def test_entropy_production_afterwards(path):
    """What needs circulation, covariance and diffusion is had once these are known."""
    found = ne.recorded_moments(record(path))
    _, noise = ROTATING
    covariance = found.moments().covariance
    q = ne.areal_velocity(path)
    sigma = ne.entropy_production(path, q, covariance, noise / 2, AWAY)
    measured = found.entropy_production(q, covariance, noise / 2, AWAY)
    assert measured.rate == pytest.approx(sigma.mean(), rel=1e-3)
    assert 0.3 < measured.standard_error / (sigma.std() / np.sqrt(sigma.size)) < 3
    plug_in, direct = found.plug_in_entropy_production(), ne.plug_in_entropy_production(path)
    assert plug_in.rate == pytest.approx(direct.rate, rel=0.02)
    assert plug_in.standard_error == pytest.approx(direct.standard_error, rel=0.5)
    exact_rate = ne.linear_chain_entropy_production_rate(*ROTATING)
    assert abs(plug_in.rate - exact_rate) < 4.5 * plug_in.standard_error
    # 16 blocks of ten correlation times.
    assert found.detailed_balance_violation().p_value < 1e-3
    assert "4 chains" in str(found) and "nats" in str(measured)


@pytest.mark.slow
def test_p_values_are_uniform_under_detailed_balance():
    runs = 250
    # float32 positions with a small step, where what is accumulated nearly cancels.
    x = simulate(*REVERSIBLE, 800, 4 * runs, seed=2)
    # The last 40 with a drift that does not commute with the noise.
    hessian, diffusion = linearised_sgd(0.1)
    seen = simulate(np.eye(3) - 0.1 * hessian, 2 * diffusion, 800, 40, seed=3)
    everything = record(np.concatenate([x, seen]).astype(np.float32))

    def p_value(some):
        part = jax.tree.map(lambda v: v[some], everything)
        return ne.recorded_moments(part).detailed_balance_violation().p_value

    p_values = [p_value(slice(4 * k, 4 * k + 4)) for k in range(runs)]
    assert stats.kstest(p_values, "uniform").pvalue > 1e-3
    assert p_value(slice(4 * runs, None)) < 1e-4


def test_chains_alone_or_about_their_own_centers(path):
    """The record of one chain; and chains joined whose centers differ."""
    shared = ne.recorded_moments(record(path)).moments()

    def one(path):
        step = lambda r, x: (moments.update(r, {"a": x[:1], "b": x[1:]}), None)  # noqa: E731
        return jax.lax.scan(step, moments.init({"a": path[0, :1], "b": path[0, 1:]}), path)[0]

    records = [jax.jit(one)(chain) for chain in path[:2]]
    single = ne.recorded_moments(records[0]).moments()
    np.testing.assert_allclose(single.mean, path[0].mean(0), atol=1e-5)
    with jax.enable_x64(True):
        double = ne.recorded_moments(jax.jit(one)(jnp.asarray(path[0], float)))
    exact_moments = ne.trajectory_moments(path[0])
    np.testing.assert_allclose(double.moments().lagged[1], exact_moments.lagged[1], rtol=1e-9)
    stacked = jax.tree.map(lambda *x: jnp.stack(x), *records)
    joined = ne.recorded_moments(stacked).moments()
    expected = ne.trajectory_moments(path[:2])
    np.testing.assert_allclose(joined.lagged[1], expected.lagged[1], atol=1e-4)
    assert np.abs(joined.mean - shared.mean).max() > 1e-3  # two chains of the four


def test_errors_say_what_to_do(path):
    found = ne.recorded_moments(record(path))
    with pytest.raises(ValueError, match="at most 32"):
        moments.init(np.zeros(33))
    with pytest.raises(ValueError, match="even"):
        moments.init(np.zeros(3), num_blocks=7)
    with pytest.raises(ValueError, match="fewer than two positions"):
        ne.recorded_moments(moments.init(np.zeros(3)))
    with pytest.raises(ValueError, match="single coordinate"):
        found.project(np.eye(3)[:, :1]).detailed_balance_violation()
    with pytest.raises(ValueError, match="constant"):
        ne.recorded_moments(record(path * np.float32([1, 1, 0]))).detailed_balance_violation()
    with pytest.raises(ValueError, match="run longer"):
        some = [found.edges[:1, :3], *(x[:1, :2] for x in found[2:5])]
        short = ne.RecordedMoments(found.pairs[:2], *some, found.center)
        short.detailed_balance_violation()
    with pytest.raises(ValueError, match="NaN or infinity"):
        ne.recorded_moments(record(np.where(path > 9, np.inf, path)))


# --- the NumPyro interface -------------------------------------------------------------------

TARGET = exact.LinearRegression(num_data=60, dim=3)
SIZES = dict(batch_size=15, gradient="plain", preconditioner="diagonal")


@pytest.fixture(scope="module")
def runs():
    """The same minibatch steps twice, all kept and thinned; and epochs cut across by draws."""
    made = {}

    def run(name, kind, samples, **settings):
        mcmc = kind(TARGET.model, num_samples=samples, step_size=0.05, **SIZES, **settings)
        for other in made.values():
            mcmc.sampler.share(other.sampler)
            break
        mcmc.run(jax.random.key(5), *TARGET.data)
        made[name] = mcmc

    run("all", SGLD, 60, steps_per_draw=1, num_warmup=0)
    run("thinned", SGLD, 60, steps_per_draw=1, num_warmup=0, thinning=20, record_moments=True)
    run("epochs", SGWORLD, 40, steps_per_draw=6, num_warmup=2, record_moments=True, num_chains=2)
    return made


def test_thinning_loses_nothing(runs):
    every, thinned = runs["all"], runs["thinned"]
    assert every.last_state.moments == ()
    with pytest.raises(ValueError, match="record_moments=True"):
        ne.recorded_moments(every)
    path = every.draws().positions
    np.testing.assert_allclose(path[:, 19::20], thinned.draws().positions, atol=1e-6)  # same run
    found, expected = ne.recorded_moments(thinned).moments(), ne.trajectory_moments(path)
    assert found.num_steps == 4 * 60
    np.testing.assert_allclose(found.mean, expected.mean, atol=1e-5)
    np.testing.assert_allclose(found.covariance, expected.covariance, atol=1e-5)
    np.testing.assert_allclose(found.lagged[1], expected.lagged[1], atol=1e-5)


def test_epochs_are_the_steps_without_replacement(runs):
    """Draws 1.5 epochs of four batches apart; what is recorded are the ends of all epochs."""
    path = runs["epochs"].draws().positions
    found = ne.recorded_moments(runs["epochs"])
    assert found.num_pairs == 2 * (40 * 6 // 4 - 1)
    # Each draw is a block as yet, but for the first, with a single position: no pair.
    np.testing.assert_array_equal(found.pairs[:4], [2, 1, 2, 1])
    # Every second draw is itself at the end of an epoch, and the next block starts there.
    np.testing.assert_allclose(found.edges[:, 1::2], path[:, 1::2], atol=1e-6)


def test_report_shows_what_was_recorded(runs):
    report = runs["thinned"].bias_report()
    assert report.detailed_balance.num_blocks >= 6
    assert "moments recorded at every step" in str(report) and "p = " in str(report)
    # A run that goes on records on.
    mcmc = runs["thinned"]
    mcmc.post_warmup_state = mcmc.last_state
    mcmc.run(mcmc.last_state.rng_key, *TARGET.data)
    assert ne.recorded_moments(mcmc).moments().num_steps == 4 * 120


def test_report_from_draws_or_without(runs):
    report = runs["all"].bias_report()
    assert 0 <= report.detailed_balance.p_value <= 1
    assert "draws, " in str(report)


def balance_of(positions, diverged=(-1, -1)):
    state = SimpleNamespace(moments=(), diverged_at=np.array(diverged))
    return measured_detailed_balance(Draws(positions, state))


def test_measurement_never_fails():
    rng = np.random.default_rng(0)
    x = rng.standard_normal((2, 400, 3))
    result, line = balance_of(x)
    assert result.p_value > 1e-3 and "draws, " in line
    result, line = balance_of(x[:, :7])
    assert result is None and "7 draws" in line
    result, line = balance_of(x, (3, 5))
    assert result is None and "no chain moved" in line
    result, line = balance_of(np.ones((2, 400, 3)))
    assert result is None and "no chain moved" in line
    result, _ = balance_of(x, (-1, 17))  # the other chain is used
    assert result.num_blocks == result.num_blocks_per_chain
    for odd in (np.where(x > 3, np.nan, x), x * [1, 1, 0], x[..., [0, 0, 1]], x[..., :1], x[:1]):
        balance_of(odd, (-1,) * len(odd))
    wide = rng.standard_normal((2, 300, 2000))
    result, _ = balance_of(wide)
    assert len(result.names) == 10 and result.p_value > 1e-3
    # A rotation in the leading coordinates of many is seen.
    wide = rng.standard_normal((4, 1000, 200))
    wide[..., :3] = simulate(*ROTATING, 1000, 4, seed=4)
    assert balance_of(wide, (-1,) * 4)[0].p_value < 1e-4
    recorded = ne.recorded_moments(record(wide[..., :30].astype(np.float32)))
    result = recorded.detailed_balance_violation()
    assert result.p_value < 1e-4 and 2 <= len(result.names) < 30
    assert recorded.detailed_balance_violation(num_components=3).p_value < 1e-4


def test_diverged_run_has_a_report(runs):
    mcmc = runs["thinned"]
    gone = mcmc.last_state._replace(diverged_at=np.array([2, 3, 2, 1]))
    result, line = measured_detailed_balance(Draws(mcmc.draws().positions, gone))
    assert result is None and "3 draws" in line and "every chain has diverged" in line
    one = mcmc.last_state._replace(diverged_at=np.array([-1, -1, 2, -1]))
    assert ne.recorded_moments(SimpleNamespace(last_state=one)).sums.shape[0] == 3
    report = mcmc.bias_report()._replace(detailed_balance=None, detailed_balance_source=line)
    assert "Detailed balance: not tested, there are 3 draws" in str(report)


def test_setting_is_checked():
    with pytest.raises(TypeError, match="record_moments"):
        SGLD(TARGET.model, record_moments="yes")


def test_blackjax_kernel_in_a_scan():
    """Plain SGD, temperature 0: the record is made beside the state, which is unchanged."""
    y = np.random.default_rng(0).standard_normal((40, 2)).astype(np.float32)
    loss = lambda w, rows: jnp.mean((rows - w) ** 2)  # noqa: E731
    alg = sg.sgd(jax.grad(loss), y, batch_size=10, learning_rate=0.1)
    state = alg.init(jnp.zeros(2), jax.random.key(0))

    def epoch(carry, key):
        state, record = carry
        state, _ = alg.step(key, state)
        return (state, moments.update(record, state.position)), state.position

    keys = jax.random.split(jax.random.key(1), 200)
    scan = quick_jit(lambda start, keys: jax.lax.scan(epoch, start, keys))
    (_, made), path = scan((state, moments.init(state.position)), keys)
    found, expected = ne.recorded_moments(made).moments(), ne.trajectory_moments(np.asarray(path))
    np.testing.assert_allclose(found.lagged[1], expected.lagged[1], rtol=1e-3, atol=1e-8)
