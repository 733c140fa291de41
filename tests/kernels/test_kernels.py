"""The kernels as BlackJAX samplers: protocol, transformations, precision, failure."""

import inspect
import pickle
import subprocess
import sys
from functools import partial

import blackjax
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from blackjax.sgmcmc.gradients import grad_estimator
from blackjax.util import run_inference_algorithm
from tolerances import assert_moments, differs

import sgworld_mcmc as sg
from sgworld_mcmc.data.dealt_rows import DealtRows
from sgworld_mcmc.data.fixed_partition import partition
from sgworld_mcmc.kernels import SGLDInfo, SGLDState, SGWORLDInfo, SGWORLDState
from sgworld_mcmc.members import WITHOUT_REPLACEMENT

# Compiling takes most of the time: nothing here runs long.
jit = partial(jax.jit, compiler_options={"xla_backend_optimization_level": "0"})

SIZE, BATCH_SIZE, COUNT = 10, 3, 4
ESTIMATOR = grad_estimator(
    lambda mu: -jnp.sum(mu**2) / 2, lambda mu, y: -jnp.sum((y - mu) ** 2) / 2, SIZE
)


def rows(seed=0):
    return np.random.default_rng(seed).normal(1.0, 1.0, SIZE).astype(np.float32)


def algorithm(**settings):
    arguments = {"grad_estimator": ESTIMATOR, "data": rows(), "batch_size": BATCH_SIZE}
    return sg.sgworld(**{**arguments, "step_size": 0.02, **settings})


def assert_same(one, other, **tolerance):
    assert jax.tree.structure(one) == jax.tree.structure(other)
    check = np.testing.assert_allclose if tolerance else np.testing.assert_array_equal
    jax.tree.map(lambda a, b: check(a, b, **tolerance), one, other)


@pytest.mark.slow
def test_import_makes_no_arrays_and_changes_no_settings():
    code = (
        "import jax, blackjax, numpyro, numpyro.infer, optax, arviz; "
        "before = len(jax.live_arrays()), jax.config.values.copy(); import sgworld_mcmc; "
        "assert (len(jax.live_arrays()), jax.config.values) == before, jax.live_arrays()"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=300)


def test_signatures_are_those_of_blackjax():
    names = lambda f: list(inspect.signature(f).parameters)  # noqa: E731
    for api in (sg.sgld, sg.sgworld):
        assert isinstance(api, blackjax.GenerateSamplingAPI)
    assert names(sg.sgld.init)[:2] == names(sg.sgworld.init)[:2] == ["position", "rng_key"]
    kernel = ["rng_key", "state", "grad_estimator", "minibatch", "step_size", "temperature"]
    assert names(sg.sgld.build_kernel()) == kernel
    # BlackJAX's own state is the bare position.
    assert names(blackjax.sgld.build_kernel()) == ["rng_key", "position", *kernel[2:]]
    assert names(sg.sgworld.build_kernel()) == [*kernel[:3], "batches", *kernel[4:]]
    alg = sg.sgld(ESTIMATOR)
    assert names(alg.step) == names(blackjax.sgld(ESTIMATOR).step)
    assert names(algorithm().init) == ["position", "rng_key"]
    assert names(algorithm().step) == ["rng_key", "state"]
    assert inspect.signature(alg.step).parameters["temperature"].default == 1.0


@pytest.mark.parametrize("noise", ["independent", "averaged"])
def test_sgld_top_level_is_the_kernel_and_the_written_formula(noise):
    alg, kernel = sg.sgld(ESTIMATOR, noise=noise), sg.sgld.build_kernel(noise)
    state = alg.init(jnp.array([0.5, -0.2]), jax.random.key(0))
    batch, h, tau = jnp.asarray(rows()[:3]), 0.02, 0.5
    moved, info = alg.step(jax.random.key(1), state, batch, h, tau)
    assert isinstance(moved, SGLDState) and isinstance(info, SGLDInfo)
    assert_same((moved, info), kernel(jax.random.key(1), state, ESTIMATOR, batch, h, tau))
    gradient = ESTIMATOR(state.position, batch)
    assert_same(info.gradient, gradient)
    assert int(moved.step) == 1 and not bool(info.diverging)
    np.testing.assert_allclose(info.step_size, h, rtol=1e-6)
    rest = moved.position - state.position - h * gradient
    if noise == "averaged":
        increment = (state.noise + moved.noise) / 2
        np.testing.assert_allclose(rest, np.sqrt(2 * h * tau) * increment, atol=1e-6)
    else:
        assert moved.noise == ()
        cold = alg.step(jax.random.key(1), state, batch, h, 0.0)[0].position
        hot = alg.step(jax.random.key(1), state, batch, h, 4 * tau)[0].position
        np.testing.assert_allclose(hot - cold, 2 * (moved.position - cold), rtol=1e-5)


@pytest.mark.parametrize("order", WITHOUT_REPLACEMENT)
@pytest.mark.slow
def test_sgworld_under_jit_vmap_and_scan(order):
    """The top level is the kernel, chains under vmap are single chains, scan is a loop."""
    alg = algorithm(order=order, noise="averaged")
    keys, position = jax.random.split(jax.random.key(2), 3), jnp.array([0.3, 1.2])
    states = jax.vmap(alg.init, (None, 0))(position, keys)
    chains, infos = jit(jax.vmap(alg.step))(keys, states)
    assert isinstance(chains, SGWORLDState) and isinstance(infos, SGWORLDInfo)
    one = jax.tree.map(lambda x: x[1], states)
    state, info = jit(alg.step)(keys[1], one)
    assert_same(jax.tree.map(lambda x: x[1], (chains, infos)), (state, info), rtol=1e-5)
    batches = partition(jax.random.key(0), rows(), BATCH_SIZE)
    if order == "examples":
        batches = DealtRows(jnp.asarray(rows()), COUNT)
    kernel = sg.sgworld.build_kernel(order, "averaged")
    same = jit(lambda k, s, b: kernel(k, s, ESTIMATOR, b, 0.02))(keys[1], one, batches)
    assert_same(same, (state, info), rtol=1e-5)
    scanned, _ = jit(lambda s: jax.lax.scan(lambda s, k: alg.step(k, s), s, keys))(one)
    looped = one
    for key in keys:
        looped, _ = jit(alg.step)(key, looped)
    assert_same(scanned, looped, rtol=1e-5)
    assert int(scanned.step) == 3 * COUNT


def test_run_inference_algorithm_and_resuming():
    """It runs as it stands; stopping, pickling and going on is one long run, schedule included."""
    alg = algorithm(step_size=lambda step: 0.02 / (1 + step / 10), noise="averaged")
    final, (states, infos) = run_inference_algorithm(
        jax.random.key(0), alg, num_steps=8, initial_position=jnp.zeros(2)
    )
    assert states.position.shape == (8, 2) and infos.diverging.shape == (8,)
    assert_same(final.position, states.position[-1])
    np.testing.assert_allclose(infos.step_size, 0.02 / (1 + np.arange(8) * COUNT / 10), rtol=1e-6)
    start = alg.init(jnp.zeros(2), jax.random.key(3))
    keys = jax.random.split(jax.random.key(4), 6)
    run = jit(lambda state, keys: jax.lax.scan(lambda s, k: alg.step(k, s), state, keys)[0])
    stored = pickle.loads(pickle.dumps(jax.tree.map(np.asarray, run(start, keys[:3]))))
    assert_same(run(stored, keys[3:]), run(start, keys), rtol=1e-6)
    again, _ = run_inference_algorithm(jax.random.key(5), alg, 4, initial_state=final)
    assert int(again.step) == 12 * COUNT


def _nested(position):
    scalar, vector = position["a"], position["b"]["c"][0]
    return -(scalar**2) - jnp.sum(vector**2)


NESTED = grad_estimator(_nested, lambda p, y: -jnp.sum((y - p["a"] * p["b"]["c"][0]) ** 2), SIZE)


@pytest.mark.parametrize(
    "dtypes", [("float32", "float32"), ("float64", "float64"), ("float32", "float64")]
)
def test_nested_positions_keep_structure_and_precision(dtypes):
    with jax.enable_x64(True):
        data = jnp.asarray(rows(), dtypes[1])
        position = {
            "a": jnp.array(0.5, dtypes[0]),
            "b": {"c": (jnp.ones((3, 2), dtypes[1]),)},
        }
        alg = sg.sgworld(NESTED, data, BATCH_SIZE, 1e-3, noise="averaged")
        single = sg.sgld(NESTED)
        state = jit(alg.step)(jax.random.key(1), alg.init(position, jax.random.key(0)))[0]
        step = jit(single.step)(jax.random.key(1), single.init(position), data, 1e-3)[0]
        for moved in (state.position, state.noise, step.position):
            assert jax.tree.structure(moved) == jax.tree.structure(position)
            shapes = jax.tree.map(lambda x: (x.shape, x.dtype), moved)
            assert shapes == jax.tree.map(lambda x: (x.shape, x.dtype), position)
        assert jax.tree.all(jax.tree.map(lambda a, b: (a != b).all(), state.position, position))
        if dtypes == ("float64", "float64"):
            # Really computed in float64: the last digits are not float32 numbers.
            vector = np.asarray(state.position["b"]["c"][0])
            assert np.all(vector.astype(np.float32) != vector)


def test_keys_decide_everything():
    alg = algorithm()
    step, start = jit(alg.step), alg.init(jnp.zeros(2), jax.random.key(0))
    one, again = step(jax.random.key(1), start), step(jax.random.key(1), start)
    other, legacy = step(jax.random.key(2), start), step(jax.random.PRNGKey(1), start)
    assert_same(one, again)
    assert_same(one, legacy)
    assert np.all(np.asarray(one[0].position) != np.asarray(other[0].position))
    # All coordinates and steps have noise of their own.
    assert len(np.unique(np.asarray(one[0].position))) == 2


@pytest.mark.parametrize("order", WITHOUT_REPLACEMENT)
@pytest.mark.parametrize("noise", ["independent", "averaged"])
def test_no_key_is_used_twice_and_no_tracer_leaks(order, noise):
    with jax.debug_key_reuse(True), jax.checking_leaks():

        @jit
        def run(key):
            init_key, step_key = jax.random.split(key)
            alg = algorithm(order=order, noise=noise)
            return alg.step(step_key, alg.init(jnp.zeros(2), init_key))

        run(jax.random.key(0))


def test_sgld_uses_no_key_twice():
    with jax.debug_key_reuse(True), jax.checking_leaks():
        alg = sg.sgld(NESTED, noise="averaged")

        @jit
        def run(key):
            init_key, step_key = jax.random.split(key)
            state = alg.init({"a": 0.5, "b": {"c": (jnp.ones(2),)}}, init_key)
            return alg.step(step_key, state, jnp.asarray(rows()), 0.01)

        run(jax.random.key(0))


@pytest.mark.parametrize("order", ["batches", "examples"])
def test_other_data_of_the_same_shape_are_used_and_compile_nothing(order):
    traces = []

    def counting(position, minibatch):
        traces.append(order)
        return ESTIMATOR(position, minibatch)

    kernel = sg.sgworld.build_kernel(order)

    @jit
    def run(key, batches):
        state = sg.sgworld.init(jnp.zeros(2), jax.random.key(1), COUNT, order=order)
        return kernel(key, state, counting, batches, 0.02)[0].position

    def batches(data):
        if order == "examples":
            return DealtRows(jnp.asarray(data), COUNT)
        return partition(jax.random.key(0), data, BATCH_SIZE)

    first = run(jax.random.key(2), batches(rows(0)))
    before, moved = len(traces), rows(0) + 1
    second = run(jax.random.key(2), batches(moved))
    assert before > 0 and len(traces) == before
    # Same noise, so that the difference is that of the data: to first order h M sum(y' - y).
    fresh = algorithm(data=moved, order=order)
    state = fresh.init(jnp.zeros(2), jax.random.key(1))
    assert_same(second, fresh.step(jax.random.key(2), state)[0].position, rtol=1e-5)
    pull = 0.02 * COUNT * float(np.sum(moved - rows(0)))
    assert np.all(np.sign(second - first) == np.sign(pull))
    assert np.all(np.abs(second - first) > abs(pull) / 4)


def test_schedules_see_the_number_of_minibatch_steps():
    temperature = lambda step: jnp.where(step < COUNT, 0.0, 1.0)  # noqa: E731
    alg = algorithm(step_size=lambda step: 0.01 / (1 + step), temperature=temperature)
    start = alg.init(jnp.zeros(2), jax.random.key(0))
    step = jit(alg.step)
    first, info = step(jax.random.key(1), start)
    np.testing.assert_allclose(info.step_size, 0.01)
    assert_same(first.position, step(jax.random.key(9), start)[0].position)  # no noise yet
    second, info = step(jax.random.key(2), first)
    np.testing.assert_allclose(info.step_size, 0.01 / (1 + COUNT))
    assert np.all(second.position != step(jax.random.key(9), first)[0].position)
    single = sg.sgld(ESTIMATOR)
    state = single.init(jnp.zeros(2))._replace(step=jnp.array(4))
    _, info = single.step(jax.random.key(0), state, rows(), lambda step: 0.01 / (1 + step), 1.0)
    np.testing.assert_allclose(info.step_size, 0.01 / 5)


def test_averaged_noise_telescopes():
    """Without a gradient: sqrt(2h) (xi_0/2 + xi_1 + ... + xi_M/2), so half the ends differ."""
    nothing = lambda position, minibatch: jnp.zeros_like(position)  # noqa: E731
    averaged = algorithm(grad_estimator=nothing, noise="averaged")
    independent = algorithm(grad_estimator=nothing)
    key = jax.random.key(6)
    start = averaged.init(jnp.zeros(5), jax.random.key(0))
    one = averaged.step(key, start)[0]
    other = independent.step(key, independent.init(jnp.zeros(5), jax.random.key(0)))[0]
    ends = np.sqrt(2 * 0.02) * (start.noise - one.noise) / 2
    np.testing.assert_allclose(one.position, other.position + ends, atol=1e-6)
    assert np.all(one.noise != start.noise)
    assert_same(one.order, other.order)


@pytest.mark.slow
def test_temperature_is_the_variance():
    """Full gradients and averaged noise have no bias: variance 4 at temperature 4, exactly.

    Four draws of each of 16 384 chains: 4.5 standard errors are 4 % of the variance, which noise
    5 % off changes by 10 %; that the test sees it is shown. The variance is the same at every step
    size; what a doubled one changes is the correlation of successive draws, compared too.
    """
    estimator = lambda position, minibatch: -position  # noqa: E731
    kernel = sg.sgworld.build_kernel("batches", "averaged")
    batches = partition(jax.random.key(0), rows(), 5)

    @jit
    def run(key, step_size, temperature):
        def chain(key):
            init_key, *keys = jax.random.split(key, 12)
            state = sg.sgworld.init(jnp.zeros(2), init_key, 2, noise="averaged")
            step = lambda s, k: kernel(k, s, estimator, batches, step_size, temperature)  # noqa: E731
            states = jax.lax.scan(lambda s, k: (step(s, k)[0],) * 2, state, jnp.stack(keys))[1]
            return states.position[jnp.array([6, 7, 9, 10])]

        return jax.vmap(chain)(jax.random.split(key, 16_384))

    def correlation(draws):
        return np.mean(draws[:, 0] * draws[:, 1]) / 4

    mean, covariance = np.zeros(2), 4 * np.eye(2)
    draws = np.asarray(run(jax.random.key(1), 0.4, 4.0), np.float64)
    assert_moments(draws, mean, covariance)
    assert differs(run(jax.random.key(1), 0.4, 4.0 * 1.05**2), mean, covariance)
    assert differs(run(jax.random.key(1), 0.4, 4.0 * 0.95**2), mean, covariance)
    # Two steps apart: Cov(x_k, x_k+2) = (1 - h)(1 - h/2), since x_k - sqrt(h/2) xi_k is Markov.
    tolerance = 4.5 / np.sqrt(2 * 16_384)
    assert abs(correlation(draws) - 0.6 * 0.8) < tolerance
    assert abs(correlation(np.asarray(run(jax.random.key(1), 0.8, 4.0))) - 0.48) > tolerance


@pytest.mark.parametrize("noise", ["independent", "averaged"])
def test_unstable_step_sizes_are_reported_and_leave_finite_positions(noise):
    kernel = sg.sgworld.build_kernel("batches", noise)
    batches = partition(jax.random.key(0), rows(), BATCH_SIZE)
    keys = jax.random.split(jax.random.key(0), 2)

    @jit
    @jax.vmap
    def run(key, step_size):
        init_key, step_key, next_key = jax.random.split(key, 3)
        state = sg.sgworld.init(jnp.ones(2), init_key, COUNT, noise=noise)
        state, info = kernel(step_key, state, ESTIMATOR, batches, step_size)
        return state, info, kernel(next_key, state, ESTIMATOR, batches, step_size)[1]

    # The third of the four steps overflows, in both precisions.
    too_long = float(jnp.finfo(jnp.result_type(float)).max) ** 0.4
    state, info, later = run(keys, jnp.array([0.01, too_long]))
    np.testing.assert_array_equal(info.diverging, [False, True])
    np.testing.assert_array_equal(later.diverging, [False, True])
    assert int(info.finite_steps[0]) == COUNT and 0 < int(info.finite_steps[1]) < COUNT
    assert np.isfinite(state.position).all()
    np.testing.assert_array_equal(state.step, COUNT)


def test_sgld_stays_where_a_step_would_not_be_finite():
    alg = sg.sgld(ESTIMATOR)
    state = alg.init(jnp.array([1.0, 2.0]))
    bad = jnp.asarray(rows()).at[0].set(jnp.nan)
    moved, info = jit(alg.step)(jax.random.key(0), state, bad, 0.01)
    assert bool(info.diverging) and int(moved.step) == 1
    assert_same(moved.position, state.position)


@pytest.mark.parametrize(
    ("error", "message", "settings"),
    [
        (ValueError, "did you mean 'batches'", {"order": "batch"}),
        (ValueError, "`order`", {"order": "replacement"}),
        (ValueError, "`noise`", {"noise": "white"}),
        (ValueError, "`step_size`", {"step_size": 0.0}),
        (ValueError, "`step_size`", {"step_size": float("nan")}),
        (ValueError, "`step_size`", {"step_size": np.array([0.1, 0.1])}),
        (ValueError, "`temperature`", {"temperature": -1.0}),
        (ValueError, "`batch_size`", {"batch_size": SIZE + 1}),
        (TypeError, "`batch_size`", {"batch_size": 2.5}),
        (ValueError, "leading axis", {"data": (np.zeros(3), np.zeros(4))}),
    ],
)
def test_wrong_settings_are_named(error, message, settings):
    with pytest.raises(error, match=f"(?i){message}"):
        algorithm(**settings)


def test_wrong_positions_are_named():
    with pytest.raises(TypeError, match=r"position\['n'\].*floating"):
        sg.sgld(ESTIMATOR).init({"n": 3})
    with pytest.raises(TypeError, match="floating"):
        algorithm().init(jnp.arange(3), jax.random.key(0))
    with pytest.raises(ValueError, match="`rng_key`"):
        sg.sgld(ESTIMATOR, noise="averaged").init(jnp.zeros(2))
