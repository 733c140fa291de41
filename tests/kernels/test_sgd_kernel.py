"""The kernel of stochastic gradient descent: its arithmetic, its orders, its failures."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from blackjax import GenerateSamplingAPI
from blackjax.util import run_inference_algorithm

import sgworld_mcmc as sg
from sgworld_mcmc.data.fixed_partition import partition
from sgworld_mcmc.kernels import SGDInfo, SGDState
from sgworld_mcmc.members import WITHOUT_REPLACEMENT

jit = partial(jax.jit, compiler_options={"xla_backend_optimization_level": "0"})

SIZE, BATCH_SIZE, COUNT = 10, 3, 4
ROWS = np.random.default_rng(0).normal(1.0, 1.0, (SIZE, 2))


def loss(position, rows):
    """Not quadratic, so that the order of the batches matters."""
    return jnp.mean(jnp.sum(jnp.cosh(rows - position["x"]), axis=1)) + position["y"] ** 2 / 2


def by_hand(batches, start, eta, beta, decay):
    """The recursion of docs/theory.md, section 4, in NumPy, over a list of arrays of rows."""
    x, y = np.array(start["x"], float), float(start["y"])
    vx, vy = np.zeros(2), 0.0
    for rows in batches:
        weight = len(rows) * COUNT / SIZE
        vx = beta * vx - weight * np.sinh(rows - x).mean(axis=0) + decay * x
        vy = beta * vy + weight * y + decay * y
        x, y = x - eta * vx, y - eta * vy
    return {"x": x, "y": y}, {"x": vx, "y": vy}


def batch_list(batches):
    main, extra = (np.asarray(x) for x in (batches.main, batches.extra))
    return [np.concatenate([b, *extra[i : i + 1]]) for i, b in enumerate(main)]


START = {"x": jnp.array([0.5, -0.2]), "y": jnp.array(0.7)}


def test_is_an_api_of_blackjax():
    assert isinstance(sg.sgd, GenerateSamplingAPI)
    algorithm = sg.sgd(jax.grad(loss), ROWS, BATCH_SIZE, 0.01)
    _, (states, infos) = run_inference_algorithm(
        jax.random.key(0), algorithm, num_steps=3, initial_position=START
    )
    assert isinstance(states, SGDState) and isinstance(infos, SGDInfo)
    np.testing.assert_array_equal(states.step, [4, 8, 12])
    assert not infos.diverging.any() and (infos.finite_steps == COUNT).all()


def test_epoch_is_the_recursion():
    """In float64, with batches of unequal size; momentum runs on through the next epoch."""
    beta, decay = 0.8, 0.3
    with jax.enable_x64(True):
        batches = partition(jax.random.key(0), ROWS, BATCH_SIZE)
        algorithm = sg.sgd(jax.grad(loss), ROWS, BATCH_SIZE, 0.02, beta, decay)
        position = jax.tree.map(lambda x: x.astype(jnp.float64), START)
        state = algorithm.init(position, jax.random.key(1))
        visited, step = [], jit(algorithm.step)
        for epoch in range(2):
            visited += [batch_list(batches)[i] for i in state.order]
            state, _ = step(jax.random.key(2 + epoch), state)
    expected_position, expected_velocity = by_hand(visited, START, 0.02, beta, decay)
    for name in ("x", "y"):
        np.testing.assert_allclose(state.position[name], expected_position[name], rtol=1e-12)
        np.testing.assert_allclose(state.velocity[name], expected_velocity[name], rtol=1e-11)


def test_is_sgworld_at_temperature_zero():
    """With the sign reversed: SGWORLD ascends a log density, SGD descends a loss."""
    ascent = lambda position, rows: jax.tree.map(jnp.negative, jax.grad(loss)(position, rows))  # noqa: E731
    cold = sg.sgworld(ascent, ROWS, BATCH_SIZE, 0.02, temperature=0.0)
    plain = sg.sgd(jax.grad(loss), ROWS, BATCH_SIZE, 0.02)
    state = plain.init(START, jax.random.key(1))
    other = cold.init(START, jax.random.key(5))._replace(order=state.order)
    one, _ = jit(plain.step)(jax.random.key(2), state)
    two, _ = jit(cold.step)(jax.random.key(3), other)
    jax.tree.map(partial(np.testing.assert_allclose, rtol=1e-6), one.position, two.position)


@pytest.mark.parametrize("order", ["examples", "replacement"])
def test_rows_seen_in_an_epoch(order):
    """A loss linear in the position: an epoch moves it by -eta times what the rows add up to."""
    marks = 2.0 ** np.arange(SIZE)[:, None]
    linear = lambda x, rows: jnp.mean(rows @ x)  # noqa: E731
    with jax.enable_x64(True):
        algorithm = sg.sgd(jax.grad(linear), marks, BATCH_SIZE, 1.0, order=order)
        state = algorithm.init(jnp.zeros(1), jax.random.key(0))
        keys = jax.random.split(jax.random.key(1), 400)
        # From rest each time: the sums of single epochs.
        step = jit(jax.vmap(lambda k: algorithm.step(k, algorithm.init(jnp.zeros(1), k))[0]))
        sums = -np.asarray(step(keys).position[:, 0]) * SIZE / COUNT
        assert state.order.shape == (COUNT,)
    if order in WITHOUT_REPLACEMENT:
        np.testing.assert_allclose(sums, marks.sum(), rtol=1e-12)
    else:
        assert len(np.unique(sums)) > 300  # rows repeat, and are drawn afresh
        standard_error = sums.std() / np.sqrt(len(sums))
        assert abs(sums.mean() - marks.sum()) < 4.5 * standard_error


@pytest.mark.parametrize("batch_size", [SIZE, SIZE // 4])
def test_replacement_noise_is_exactly_one_over_the_batch_size(batch_size):
    """Rows drawn independently: the covariance C of section 4 is that of the examples over B.

    An epoch of M batches adds M independent gradients.
    """
    linear = lambda x, rows: jnp.mean(rows @ x)  # noqa: E731
    algorithm = sg.sgd(jax.grad(linear), ROWS - ROWS.mean(0), batch_size, 1.0, order="replacement")
    moved = jax.vmap(lambda k: algorithm.step(k, algorithm.init(jnp.zeros(2), k))[0].position)
    gradients = np.asarray(jit(moved)(jax.random.split(jax.random.key(0), 20_000)), np.float64)
    count = -(-SIZE // batch_size)
    lengths = np.full(count, SIZE // count)
    lengths[: SIZE % count] += 1
    expected = np.cov(ROWS.T, ddof=0) * (1 / lengths).sum()
    products = gradients[:, :, None] * gradients[:, None, :]
    error = products.std(axis=0) / np.sqrt(len(products))
    assert np.all(np.abs(products.mean(axis=0) - expected) < 4.5 * error)


def test_kernel_draws_from_the_batches_it_is_given():
    """``"replacement"`` from a fixed partition visits its batches; one step per batch."""
    linear = lambda x, rows: jnp.mean(rows @ x)  # noqa: E731
    fixed = partition(jax.random.key(0), ROWS[:9], BATCH_SIZE)
    state = sg.sgd.init(jnp.zeros(2), jax.random.key(1), 3, order="replacement")
    run = lambda batches: sg.sgd.build_kernel("replacement")(  # noqa: E731
        jax.random.key(2), state, jax.grad(linear), batches, 1.0
    )[0]
    expected = -np.asarray(fixed.main).mean(axis=1)[np.asarray(state.order)].sum(axis=0)
    np.testing.assert_allclose(jit(run)(fixed).position, expected, rtol=1e-5)


def test_schedule_and_divergence_are_reported():
    schedule = lambda step: jnp.where(step < COUNT, 0.1, 1e30)  # noqa: E731
    algorithm = sg.sgd(jax.grad(loss), ROWS, BATCH_SIZE, schedule, momentum=0.5)
    step = jit(algorithm.step)
    good, info = step(jax.random.key(0), algorithm.init(START, jax.random.key(1)))
    assert not info.diverging and info.learning_rate == np.float32(0.1)
    bad, info = step(jax.random.key(0), good)
    assert info.diverging and info.finite_steps < COUNT
    assert np.isfinite(jax.flatten_util.ravel_pytree(bad[:2])[0]).all()


def test_momentum_may_be_traced():
    """One compilation serves a sweep over momentum, learning rate and weight decay."""
    batches = partition(jax.random.key(0), ROWS, BATCH_SIZE)
    kernel, state = sg.sgd.build_kernel(), sg.sgd.init(START, jax.random.key(1), COUNT)

    def run(*settings):
        return kernel(jax.random.key(2), state, jax.grad(loss), batches, *settings)[0].position["x"]

    settings = np.array([[0.01, 0.0, 0.0], [0.02, 0.9, 0.1]])
    found = jit(jax.vmap(run))(*settings.T)
    visited = [batch_list(batches)[i] for i in state.order]
    for x, values in zip(found, settings, strict=True):
        np.testing.assert_allclose(x, by_hand(visited, START, *values)[0]["x"], rtol=1e-5)


@pytest.mark.parametrize(
    ("settings", "match"),
    [
        ({"momentum": 1.0}, "`momentum` must be below 1"),
        ({"momentum": -0.1}, "`momentum` must be zero or positive"),
        ({"weight_decay": -1.0}, "`weight_decay` must be zero"),
        ({"learning_rate": 0.0}, "`learning_rate` must be positive"),
        ({"batch_size": 11}, "`batch_size` must be between 1 and 10"),
        ({"order": "replacment"}, "Did you mean 'replacement'"),
        ({"data": [ROWS, ROWS[:3]]}, "differ in their leading axis"),
    ],
)
def test_bad_settings(settings, match):
    arguments = {"data": ROWS, "batch_size": 3, "learning_rate": 0.1, **settings}
    with pytest.raises(ValueError, match=match):
        sg.sgd(jax.grad(loss), **arguments)


def test_integer_positions_are_refused():
    with pytest.raises(TypeError, match="floating-point"):
        sg.sgd(jax.grad(loss), ROWS, 3, 0.1).init({"x": jnp.arange(2)}, jax.random.key(0))
