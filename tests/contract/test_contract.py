"""The contract: every integrator, order, gradient, feed and kind of coordinates, together.

The members are found in their folders, so that a new file is tested without a line here. A
quadratic target makes every step an affine map, which NumPy then does too: the product of all
members is compared number by number.
"""

from functools import partial
from itertools import product

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tolerances import SIGMAS

from sgworld_mcmc.gradients.weighting import batch_estimate, epoch_mean
from sgworld_mcmc.kernels.epoch import run_epoch, start
from sgworld_mcmc.members import COORDINATES, FEEDS, GRADIENTS, INTEGRATORS, ORDERS
from sgworld_mcmc.sampling.chain import clock_of, draw, initial_state
from sgworld_mcmc.sampling.dynamics import Dynamics
from sgworld_mcmc.theory.affine_recursion import stationary_variance

SIZE, BATCH_SIZE, COUNT, DIM = 11, 3, 4, 2
RNG = np.random.default_rng(7)
X, Y = RNG.normal(size=(SIZE, DIM)), RNG.normal(size=SIZE)
CENTER = np.array([0.3, -0.2])
COVARIANCE = np.array([[0.2, 0.05], [0.05, 0.1]])


def log_density(theta, rows):
    """Linear regression with a standard normal prior, estimated as a mean over rows."""
    x, y = rows
    return -theta @ theta / 2 - SIZE * jnp.mean((y - x @ theta) ** 2) / 2


def target_in(coordinates):
    return lambda z, rows: log_density(coordinates.to_model(z), rows)


quick = partial(jax.jit, compiler_options={"xla_backend_optimization_level": "0"})


def of_integrator(name):
    integrator = INTEGRATORS[name]()
    count = max(integrator.normals, 0)
    return integrator, count


@pytest.mark.parametrize("name", INTEGRATORS)
def test_a_step_of_an_integrator_is_the_affine_map_that_it_says(name):
    integrator, count = of_integrator(name)
    hessian = np.linalg.inv(COVARIANCE) / 3
    offset, h, tau = np.array([0.7, -0.4]), 0.1, 0.8
    with jax.enable_x64(True):
        state = integrator.init(jax.random.key(0), jnp.asarray([0.5, -1.0]))
        for number in range(3):
            normals = [RNG.normal(size=DIM) for _ in range(count)]
            given = tuple(normals) if count != 1 else normals[0]
            said = integrator.affine(h, hessian, tau)
            flat = np.concatenate([np.ravel(x) for x in jax.tree.leaves(state)])
            expected = said.advance @ flat + said.push @ offset
            if count:
                expected = expected + said.kick @ np.concatenate(normals)
            np.testing.assert_allclose(said.read @ flat, integrator.position(state), rtol=1e-12)
            state = integrator.step(state, lambda x: offset - hessian @ x, given, h, tau)
            flat = np.concatenate([np.ravel(x) for x in jax.tree.leaves(state)])
            np.testing.assert_allclose(flat, expected, rtol=1e-12, err_msg=f"step {number}")


def test_a_step_with_momentum_is_the_affine_map_that_it_says():
    """The default momentum is zero: here it is not, and neither is the weight decay."""
    integrator, hessian = INTEGRATORS["momentum"](0.9, 0.3), np.linalg.inv(COVARIANCE) / 3
    offset, h = np.array([0.7, -0.4]), 0.1
    with jax.enable_x64(True):
        state = integrator.init(None, jnp.asarray([0.5, -1.0]))
        said = integrator.affine(h, hessian)
        by_hand = np.array([0.5, -1.0]), np.zeros(DIM)
        for _ in range(3):
            flat = np.concatenate([np.ravel(x) for x in jax.tree.leaves(state)])
            state = integrator.step(state, lambda x: offset - hessian @ x, (), h, 1.0)
            found = np.concatenate([np.ravel(x) for x in jax.tree.leaves(state)])
            np.testing.assert_allclose(found, said.advance @ flat + said.push @ offset, rtol=1e-12)
            x, v = by_hand
            v = 0.9 * v + hessian @ x - offset + 0.3 * x
            by_hand = x - h * v, v
            np.testing.assert_allclose(found, np.concatenate(by_hand), rtol=1e-12)


@pytest.mark.parametrize("name", INTEGRATORS)
def test_integrators_keep_the_structure_and_precision_of_positions(name):
    integrator, count = of_integrator(name)
    position = {"w": jnp.ones((2, 3), jnp.float32), "b": jnp.zeros((), jnp.bfloat16)}
    state = integrator.init(jax.random.key(0), position)
    normals = position if count == 1 else (position,) * count
    new = integrator.step(state, lambda x: x, normals, 0.1, 1.0)
    like = lambda tree: jax.tree.map(lambda x: (jnp.shape(x), x.dtype), tree)  # noqa: E731
    assert like(new) == like(state) and like(integrator.position(new)) == like(position)
    assert hash(integrator) == hash(INTEGRATORS[name]()) and integrator == INTEGRATORS[name]()


@pytest.mark.parametrize("name", ORDERS)
def test_an_order_visits_batches_as_it_says(name):
    order = ORDERS[name]()
    keys = jax.random.split(jax.random.key(1), 6)
    orders = [order.init(keys[0], COUNT)]
    for epoch in range(1, 6):
        orders.append(order.next(keys[epoch], orders[-1], epoch))
    assert all(each.shape == (COUNT,) and each.dtype == jnp.int32 for each in orders)
    once = all(sorted(np.asarray(each)) == list(range(COUNT)) for each in orders)
    assert once == (order.period > 0)
    assert hash(order) == hash(ORDERS[name]()) and order == ORDERS[name]()


@pytest.mark.parametrize("name", FEEDS)
def test_the_batches_of_a_feed_hold_its_rows(name):
    feed = FEEDS[name].deal(jax.random.key(0), {"row": np.arange(SIZE)}, BATCH_SIZE)
    assert (feed.size, feed.num_batches) == (SIZE, COUNT)
    dealing = feed.init(jax.random.key(1))
    for epoch in range(3):
        rows = []
        for index in range(COUNT):
            batch = feed.fetch(dealing, index)
            rows += [int(row) for row in batch.main["row"]]
            if batch.extra is not None and bool(batch.has_extra):
                rows.append(int(batch.extra["row"][0]))
        assert len(rows) == SIZE and set(rows) <= set(range(SIZE))
        assert not feed.partitions or sorted(rows) == list(range(SIZE))
        dealing = feed.renew(jax.random.key(2 + epoch), dealing)


@pytest.mark.parametrize("name", COORDINATES)
@pytest.mark.parametrize("library", [np.asarray, jnp.asarray], ids=["numpy", "jax"])
def test_coordinates_are_one_linear_map(name, library):
    with jax.enable_x64(True):
        made = COORDINATES[name].from_covariance(CENTER, COVARIANCE)
        coordinates = jax.tree.map(library, made)
        z, other = library(RNG.normal(size=(5, DIM))), library(RNG.normal(size=DIM))
        K = np.stack([np.asarray(coordinates.apply(library(e))) for e in np.eye(DIM)], axis=1)
        close = lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-9, atol=1e-12)  # noqa: E731
        close(coordinates.to_model(z), CENTER + np.asarray(z) @ K.T)
        close(coordinates.to_z(coordinates.to_model(z)), z)
        close(coordinates.to_z(coordinates.to_model(other)), other)
        close(coordinates.pull_back(z), np.asarray(z) @ K)
        close(coordinates.pull_back(other), K.T @ np.asarray(other))
        covariance = coordinates.covariance()
        close(covariance if covariance.ndim == 2 else np.diag(covariance), K @ K.T)
        hessian = np.linalg.inv(COVARIANCE)
        close(coordinates.whiten(library(hessian)), K.T @ hessian @ K)
        close(coordinates.scaled(1.5).apply(z), 1.5 * np.asarray(z) @ K.T)
        close(coordinates.distance(np.asarray(other)), np.linalg.norm(np.linalg.solve(K, other)))
        # The directions are those along which a parameter of the model changes.
        sd = np.sqrt(np.diag(K @ K.T))
        close(coordinates.along(z), np.asarray(z) @ (K / sd[:, None]).T)
        close(coordinates.projector()(z), coordinates.along(coordinates.pull_back(z)))
        errors = np.array([0.1, 0.2])
        close(coordinates.error_of(errors), np.sqrt(np.linalg.inv(K) ** 2 @ errors**2))


@pytest.mark.parametrize("name", GRADIENTS)
@pytest.mark.parametrize("cache", [True, False])
@pytest.mark.parametrize("feed", [n for n, kind in FEEDS.items() if kind.partitions])
def test_gradients_are_unbiased_and_need_what_they_say(name, cache, feed):
    """For a target that is not quadratic, too."""
    gradient = GRADIENTS[name].make(cache=cache)
    with jax.enable_x64(True):
        feed = FEEDS[feed].deal(jax.random.key(0), (X, Y), BATCH_SIZE)
        dealing = feed.init(jax.random.key(1))
        if gradient.visits_batches and dealing != ():
            return  # what is kept of each batch is of no use where batches are dealt anew

        def target(z, rows):
            return log_density(z, rows) - SIZE * jnp.mean(jnp.cosh(rows[0] @ z))

        z, origin = jnp.asarray([0.4, -0.7]), jnp.zeros(DIM)
        full = jax.grad(target)(z, (jnp.asarray(X), jnp.asarray(Y)))
        known = {}
        if gradient.needs > 0:
            known["gradient"] = epoch_mean(jax.grad(target), origin, feed, dealing=dealing)
        if gradient.needs > 1:
            known["jacobian"] = epoch_mean(jax.hessian(target), origin, feed, dealing=dealing)
        controls = gradient.prepare(target, feed, origin, **known)
        each = [
            gradient(target, controls, feed, z, feed.fetch(dealing, b), b) for b in range(COUNT)
        ]
        np.testing.assert_allclose(np.mean(each, axis=0), full, rtol=1e-10)
        assert np.ptp(each, axis=0).max() > 1e-3  # the batches differ
        assert hash(gradient) == hash(GRADIENTS[name].make(cache=cache))


@pytest.mark.parametrize("name", GRADIENTS)
@pytest.mark.parametrize("cache", [True, False])
def test_the_residual_of_a_gradient_is_what_differs_from_batch_to_batch(name, cache):
    gradient = GRADIENTS[name].make(cache=cache)
    with jax.enable_x64(True):
        feed = FEEDS["fixed partition"].deal(jax.random.key(0), (X, Y), BATCH_SIZE)

        def target(z, rows):
            return log_density(z, rows) - SIZE * jnp.mean(jnp.cosh(rows[0] @ z))

        z, origin = jnp.asarray([0.4, -0.7]), jnp.zeros(DIM)
        controls = gradient.prepare(target, feed, origin)
        estimate, left = [], []
        for index in range(COUNT):
            batch = feed.fetch((), index)
            there, here, change = (
                batch_estimate(function, z, batch, feed)
                for function in (
                    jax.grad(target),
                    lambda z, rows: jax.grad(target)(origin, rows),
                    lambda z, rows: jax.hessian(target)(origin, rows) @ z,
                )
            )
            estimate.append(gradient(target, controls, feed, z, batch, index))
            left.append(gradient.residual(there, here, change))
        differ = lambda x: np.asarray(x) - np.mean(x, axis=0)  # noqa: E731
        np.testing.assert_allclose(differ(estimate), differ(left), rtol=1e-9)


@pytest.mark.parametrize("name", COORDINATES)
def test_coordinates_from_a_hessian_have_unit_curvatures(name):
    hessian = np.linalg.inv(COVARIANCE)
    for known in (hessian, np.diag(hessian)):
        made = COORDINATES[name].from_hessian(CENTER, known)
        np.testing.assert_array_equal(made.center, CENTER)
        if made.whitens:
            full = known if known.ndim == 2 else np.diag(known)
            np.testing.assert_allclose(np.diag(made.whiten(full)), 1, rtol=1e-12)


# The triples that meet every kind of coordinates and every feed; the others meet one of each.
EVERYWHERE = ("averaged", "batches")
PRODUCT = [
    pytest.param(*names, marks=() if names == (*EVERYWHERE, "plain") else pytest.mark.slow)
    for names in product(INTEGRATORS, ORDERS, GRADIENTS)
]
PLACES = [
    *((kind, "fixed partition") for kind in COORDINATES),
    *(("dense", name) for name in FEEDS if name != "fixed partition"),
]


@pytest.mark.parametrize(("integrator", "order", "gradient"), PRODUCT)
def test_a_draw_is_the_product_of_its_parts(integrator, order, gradient):
    """Two epochs at temperature 0, against the affine maps of the batches that were visited."""
    places = PLACES if (integrator, order) == EVERYWHERE else PLACES[:1]
    integrator, order, gradient = INTEGRATORS[integrator](), ORDERS[order](), GRADIENTS[gradient]
    for kind, feed in places:
        with jax.enable_x64(True):
            _check_draw(integrator, order, gradient, kind, feed)


def _check_draw(integrator, order, gradient, kind, feed):
    coordinates = COORDINATES[kind].from_covariance(CENTER, COVARIANCE)
    feed = FEEDS[feed].deal(jax.random.key(3), (X, Y), BATCH_SIZE)
    dealing, origin, h = feed.init(jax.random.key(4)), jnp.zeros(DIM), 0.03
    gradient = gradient.make(cache=dealing == ())
    dynamics = Dynamics(
        order=order,
        gradient=gradient,
        integrator=integrator,
        temperature=0.0,
        num_batches=COUNT,
        steps_per_draw=2 * COUNT,
        steps_per_warmup=COUNT,
        limit=1e4,
    )
    state = initial_state(
        jax.random.key(5),
        jnp.asarray([0.8, -0.5]),
        z={},
        step_size=h,
        dealing=dealing,
        num_warmup=0,
        dynamics=dynamics,
    )

    @quick
    def both(state, feed, coordinates):
        """The state after a draw, and (epoch, step, 1 + D, D) gradients at the origin and axes."""
        target = target_in(coordinates)
        whole = (jnp.asarray(X), jnp.asarray(Y))
        known = (jax.grad(target)(origin, whole), jax.hessian(target)(origin, whole))
        controls = gradient.prepare(target, feed, origin, *known)
        parts = {"feed": feed, "target": target, "controls": controls, "dynamics": dynamics}
        after = draw(state, clock_of(state), to_sites=lambda z: {}, **parts)

        def of_epoch(order, dealing):
            def of_batch(index):
                batch = feed.fetch(dealing, index)
                one = lambda z: gradient(target, controls, feed, z, batch, index)  # noqa: E731
                return jax.vmap(one)(jnp.concatenate([origin[None], jnp.eye(DIM)]))

            return jax.lax.map(of_batch, order)

        # Two epochs: the state before holds the order of the first, that after of the second.
        return after, [of_epoch(s.order, s.dealing) for s in (state, after)]

    after, epochs = both(state, feed, coordinates)
    said = np.concatenate([np.ravel(x) for x in jax.tree.leaves(state.motion)])
    for offset, *moved in np.concatenate(epochs):
        step = integrator.affine(h, offset[:, None] - np.stack(moved, axis=1), 0.0)
        said = step.advance @ said + step.push @ offset
    np.testing.assert_allclose(after.position, step.read @ said, rtol=1e-9, atol=1e-12)
    assert int(after.step) == 2 * COUNT and not bool(after.diverging)


CHAINS, STEP, EPOCHS, BURN = 4000, 0.2, 12, 40


@pytest.mark.slow
@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("integrator", INTEGRATORS)
def test_many_chains_have_the_variance_of_the_exact_recursion(integrator, order):
    """A Gaussian of unit curvature whose batches differ in their offsets alone: all is exact."""
    integrator, order = INTEGRATORS[integrator](), ORDERS[order]()
    offsets = np.array([1.5, -0.5, -2.0, 1.0])
    feed = FEEDS["fixed partition"](jnp.asarray(offsets)[:, None])
    estimator = lambda x, rows: jnp.mean(rows) - x  # noqa: E731

    def chain(key):
        first, noise, rest = jax.random.split(key, 3)
        state = start(integrator.init(noise, jnp.zeros(())), first, order, COUNT)

        def epochs(state, keys):
            def one(state, key):
                made, _ = run_epoch(
                    jax.random.split(key, 3),
                    state,
                    estimator,
                    feed,
                    order=order,
                    integrator=integrator,
                    step_size=STEP,
                    temperature=1.0,
                )
                return made, None

            return jax.lax.scan(one, state, keys)[0]

        length = max(1, order.period)
        burn, *keys = jnp.split(jax.random.split(rest, BURN + EPOCHS), [BURN])
        state = epochs(state, burn)
        pairs = keys[0].reshape(EPOCHS // length, length)
        final = lambda state, keys: (s := epochs(state, keys), integrator.position(s.motion))  # noqa: E731
        return jax.lax.scan(final, state, pairs)[1]

    draws = np.asarray(jax.jit(jax.vmap(chain))(jax.random.split(jax.random.key(9), CHAINS)))
    if order.name == "once":  # each order has a mean of its own
        assert draws.std() > 0
        return
    expected = float(
        stationary_variance(integrator, STEP, COUNT, np.mean(offsets**2), law=order.law)
    )
    means = (draws**2).mean(1)
    error = means.std(ddof=1) / np.sqrt(CHAINS)
    assert abs(means.mean() - expected) < SIGMAS * error
    assert error < 0.03 * expected


def test_weights_make_batches_of_any_size_add_up():
    """The identity of docs/theory.md, section 1, that all cancellations rest on."""
    with jax.enable_x64(True):
        feed = FEEDS["fixed partition"].deal(jax.random.key(0), (X, Y), BATCH_SIZE)
        theta = jnp.asarray([0.2, 0.1])
        estimate = jax.grad(log_density)
        each = [batch_estimate(estimate, theta, feed.fetch((), b), feed) for b in range(COUNT)]
        full = estimate(theta, (jnp.asarray(X), jnp.asarray(Y)))
        np.testing.assert_allclose(np.mean(each, axis=0), full, rtol=1e-12)
