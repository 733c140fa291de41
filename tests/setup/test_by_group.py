"""Latents by group: finding them, their Hessian and coordinates, their batches, and whole runs."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from tolerances import SIGMAS

from sgworld_benchmarks.repeated_runs import deal_anew
from sgworld_mcmc import SGWORLD
from sgworld_mcmc.coordinates.arrow import Arrow, join, size_of, split
from sgworld_mcmc.data.dealt_by_group import deal_by_group
from sgworld_mcmc.data.in_memory import cut, joined
from sgworld_mcmc.gradients.plain import Plain
from sgworld_mcmc.gradients.taylor import Taylor
from sgworld_mcmc.model.target import target_of
from sgworld_mcmc.settings import make_settings
from sgworld_mcmc.setup import arrow_search
from sgworld_mcmc.setup.arrow_hessian import arrow_scale
from sgworld_mcmc.setup.arrow_rows import ArrowRows
from sgworld_mcmc.setup.batch_noise import batch_ladder
from sgworld_mcmc.setup.checked_model import check_model
from sgworld_mcmc.setup.compiled_functions import functions_of
from sgworld_mcmc.setup.coordinates_from_mode import set_up_feed
from sgworld_mcmc.setup.groups import find_structure
from sgworld_mcmc.setup.lay_out import posterior_of

pytestmark = pytest.mark.slow

KEY = jax.random.key(0)
SIZE, GROUPS = 6001, 310
RNG = np.random.default_rng(3)
FIRST = RNG.integers(0, GROUPS, SIZE).astype(np.int32)
SECOND = RNG.integers(0, 40, SIZE).astype(np.int32)
FEATURE = RNG.normal(size=SIZE).astype(np.float32)
EFFECT = RNG.normal(size=GROUPS)
LABEL = (RNG.random(SIZE) < 1 / (1 + np.exp(-EFFECT[FIRST] - FEATURE))).astype(np.float32)
OUTCOME = (EFFECT[FIRST] + FEATURE + RNG.normal(size=SIZE)).astype(np.float32)


def observe(logits, y):
    with numpyro.plate("rows", len(y)):
        numpyro.sample("y", dist.Bernoulli(logits=logits), obs=y)


def non_centred(x, g, y):
    mu, tau = numpyro.sample("mu", dist.Normal(0, 1)), numpyro.sample("tau", dist.HalfNormal(1))
    z = numpyro.sample("z", dist.Normal(0, 1).expand([GROUPS]).to_event(1))
    observe(mu + tau * z[g] + numpyro.sample("b", dist.Normal(0, 1)) * x, y)


def slopes(x, g, y):
    mu = numpyro.sample("mu", dist.Normal(0, 1).expand([2]).to_event(1))
    with numpyro.plate("groups", GROUPS):
        own = numpyro.sample("own", dist.MultivariateNormal(mu, jnp.eye(2)))
    observe(own[g, 0] + own[g, 1] * x, y)


def components_first(x, g, y):
    own = numpyro.sample("own", dist.Normal(0, 1).expand([2, GROUPS]).to_event(2))
    scale = numpyro.sample("scale", dist.HalfNormal(1))
    observe(own[0, g] + scale * own[1, g] * x, y)


def two_sites(x, g, y):
    a = numpyro.sample("a", dist.Normal(0, 1).expand([GROUPS]).to_event(1))
    m = numpyro.sample("m", dist.Normal(0, 1))
    slope = numpyro.sample("slope", dist.Normal(m, 1).expand([GROUPS]).to_event(1))
    observe(a[g] + slope[g] * x, y)


def crossed(x, g, y, h):
    tau = numpyro.sample("tau", dist.HalfNormal(1))
    a = numpyro.sample("a", dist.Normal(0, 1).expand([GROUPS]).to_event(1))
    b = numpyro.sample("b", dist.Normal(0, tau).expand([40]).to_event(1))
    observe(a[g] + tau * b[h] + x * numpyro.sample("m", dist.Normal(0, 1)), y)


def neighbours(x, g, y):
    a = numpyro.sample("a", dist.Normal(0, 1).expand([GROUPS + 1]).to_event(1))
    observe(a[g] + a[g + 1] * x, y)


def random_walk(x, g, y):
    a = numpyro.sample("a", dist.GaussianRandomWalk(1.0, num_steps=GROUPS))
    observe(a[g], y)


def rows_of(model, *more):
    data, generator = (FEATURE, FIRST, LABEL, *more), np.random.default_rng(0)
    checked = check_model(generator, model, make_settings(), data, {}, {})
    functions = functions_of(checked.model, None)
    rows = checked.rows(True)
    feed, constants = set_up_feed(rows), checked.constants(True)
    structure = find_structure(generator, functions, feed, constants)
    return ArrowRows(functions, feed, constants, structure), checked.order


@pytest.mark.parametrize(
    ("model", "segments"),
    [
        (non_centred, ((3,), (1, GROUPS, 1))),
        (slopes, ((2,), (1, GROUPS, 2))),
        (components_first, ((2, GROUPS, 1), (1,))),
        (two_sites, ((1, GROUPS, 1), (1,), (1, GROUPS, 1))),
        (crossed, ((1, GROUPS, 1), (42,))),
    ],
)
def test_groups_are_found_and_the_arrow_is_the_hessian(model, segments):
    with jax.enable_x64(True):
        data, order = rows_of(model, *((SECOND,) if model is crossed else ()))
        structure, dimension = data.structure, data.dimension
        assert structure.segments == segments
        np.testing.assert_array_equal(structure.first.index, FIRST[order])
        x = 0.3 * np.random.default_rng(1).standard_normal(dimension)
        found = data.expand(x, data.feed.num_batches)
        made = data.functions.hessian(
            jnp.asarray(x), data.feed, data.constants, data.feed.num_batches
        )
        whole = np.stack([found.hessian.product(e) for e in np.eye(dimension)])
        np.testing.assert_allclose(whole, made, atol=1e-9 * np.abs(made).max())
        if model is crossed:
            np.testing.assert_array_equal(structure.groupings[1].index, SECOND[order])
        coordinates, indefinite = arrow_scale(found.hessian)
        if indefinite == 0:
            inverse = np.linalg.inv(made)
            covariance = coordinates.covariance()
            np.testing.assert_allclose(covariance, inverse, atol=1e-8 * np.abs(inverse).max())


def test_rows_that_touch_several_entries_are_no_groups():
    with jax.enable_x64(True):
        assert rows_of(neighbours)[0].structure is None


def test_coupled_groups_are_seen_by_the_random_product():
    with jax.enable_x64(True):
        data, _ = rows_of(random_walk)
        assert data.structure is not None
        assert data.expand(np.zeros(data.dimension) + 0.1, 1) is None


def test_split_and_join_are_inverse():
    segments = ((2,), (2, 5, 3), (1,), (1, 5, 1))
    x = RNG.normal(size=(4, 38))
    grouped, shared = split(x, segments)
    assert (grouped.shape, shared.shape) == ((4, 5, 7), (4, 3))
    assert size_of(segments) == (5, 7, 3)
    np.testing.assert_array_equal(join(grouped, shared, segments), x)
    np.testing.assert_array_equal(grouped[0, 2, :6], x[0, 2:32].reshape(2, 5, 3)[:, 2].ravel())


def test_coordinates_with_groups_are_one_linear_map():
    segments, rng = ((2,), (1, 4, 2)), np.random.default_rng(0)
    blocks, coupling = rng.normal(size=(4, 2, 2)), rng.normal(size=(4, 2, 2))
    made = Arrow.make(rng.normal(size=10), blocks, coupling, rng.normal(size=(2, 2)), segments)
    K = made.apply(np.eye(10)).T
    z, errors = rng.normal(size=(3, 10)), rng.uniform(size=10)
    np.testing.assert_allclose(made.pull_back(z), z @ K)
    np.testing.assert_allclose(made.solve(z), np.linalg.solve(K, z.T).T)
    np.testing.assert_allclose(made.covariance(), K @ K.T)
    np.testing.assert_allclose(made.deviations(), np.sqrt(np.diag(K @ K.T)))
    np.testing.assert_allclose(made.log_volume(), np.linalg.slogdet(K)[1])
    np.testing.assert_allclose(made.whiten(np.diag(errors)), K.T @ np.diag(errors) @ K)
    np.testing.assert_allclose(
        made.error_of(errors), np.sqrt(np.linalg.inv(K) ** 2 @ errors**2), rtol=1e-9
    )
    np.testing.assert_allclose(made.scaled(2.0).apply(z), 2 * made.apply(z))


@pytest.mark.parametrize("count", [7, 60])
def test_dealt_batches_share_every_group_evenly(count):
    value = RNG.normal(size=SIZE)
    order = deal_by_group(np.random.default_rng(0), FIRST, value, count)
    assert sorted(order) == list(range(SIZE))
    length = SIZE // count
    batches = FIRST[order[: count * length]].reshape(count, length)
    held = np.stack([np.bincount(batch, minlength=GROUPS) for batch in batches])
    assert np.ptp(held, axis=0).max() <= 2  # rounds that two groups share
    if count == 7:  # where every batch has rows of every group
        sums = value[order[: count * length]].reshape(count, length).sum(1)
        assert sums.std() < 0.5 * value.std() * length**0.5


def gaussian(x, g, y):
    """All is Gaussian, so that the posterior is known."""
    mu, b = numpyro.sample("mu", dist.Normal(0, 1)), numpyro.sample("b", dist.Normal(0, 1))
    a = numpyro.sample("a", dist.Normal(mu, 0.8).expand([GROUPS]).to_event(1))
    with numpyro.plate("rows", len(y)):
        numpyro.sample("y", dist.Normal(a[g] + b * x, 1.0), obs=y)


def exact_moments():
    """Return the mean and covariance of (a, b, mu)."""
    design = np.zeros((SIZE, GROUPS + 2))
    design[np.arange(SIZE), FIRST], design[:, GROUPS] = 1, FEATURE
    precision = design.T @ design + np.diag([0.8**-2] * GROUPS + [1, 1 + GROUPS * 0.8**-2])
    precision[:GROUPS, -1] = precision[-1, :GROUPS] = -(0.8**-2)
    covariance = np.linalg.inv(precision)
    return covariance @ design.T @ OUTCOME, covariance


def test_the_errors_of_all_parameters_are_within_the_tolerance():
    """With control variates of first order, whose noise is that of the batches' curvature."""
    mcmc = SGWORLD(gaussian, gradient="control_variate", num_samples=6000, num_chains=2)
    mcmc.run(KEY, FEATURE, FIRST, OUTCOME)
    plan, samples = mcmc.plan, mcmc.get_samples()
    assert isinstance(plan.fit.coordinates, Arrow) and plan.choice.met and plan.num_batches > 1
    draws = np.column_stack([samples["a"], samples["b"], samples["mu"]]).astype(float)
    mean, covariance = exact_moments()
    y = (draws - mean) / np.sqrt(np.diag(covariance))
    count = len(y) / 3  # independent draws, from the spacing that the set-up aims at
    error = y.var(0) - 1
    most = np.sqrt(2 / count) * (SIGMAS + 1)
    assert np.abs(error).max() < 0.02 + most
    # The mean over the exchangeable groups is known much better than each of them.
    assert abs(error[:GROUPS].mean()) < 0.02
    assert np.abs(y.mean(0)).max() < 0.04 + (SIGMAS + 1) / count**0.5
    assert not mcmc.bias_report().notes


def test_a_saved_plan_gives_the_same_draws(tmp_path):
    data = (FEATURE, FIRST, LABEL)
    mcmc = SGWORLD(non_centred, num_samples=20, num_warmup=2)
    mcmc.run(KEY, *data)
    assert isinstance(mcmc.plan.fit.coordinates, Arrow) and mcmc.plan.num_batches > 1
    mcmc.save_plan(tmp_path / "plan")
    again = SGWORLD(non_centred, num_samples=20, num_warmup=2, plan=tmp_path / "plan")
    again.run(KEY, *data)
    for name, value in mcmc.get_samples().items():
        np.testing.assert_array_equal(again.get_samples()[name], value)


def crossed_slopes(x, g, y, h):
    """Two groupings, of which the second has slopes too."""
    tau = numpyro.sample("tau", dist.HalfNormal(1))
    sigma = numpyro.sample("sigma", dist.HalfNormal(1))
    a = numpyro.sample("a", dist.Normal(0, 1).expand([GROUPS]).to_event(1))
    b = numpyro.sample("b", dist.Normal(0, 0.5).expand([40, 2]).to_event(2))
    with numpyro.plate("rows", len(y)):
        mean = tau * a[g] + b[h, 0] + b[h, 1] * x
        numpyro.sample("y", dist.Normal(mean, sigma), obs=y)


@pytest.mark.parametrize("model", [non_centred, slopes, two_sites, crossed_slopes])
def test_kept_derivatives_of_batches_give_the_same_taylor_gradients(model, monkeypatch):
    """Also with batches of two sizes, for which the prior has two weights.

    Around a mean Hessian they would differ, by what is taken for a part of the prior.
    """
    monkeypatch.setattr(arrow_search, "UNLIKE", np.inf)
    data = (FEATURE, FIRST, LABEL)
    data = (FEATURE, FIRST, OUTCOME, SECOND) if model is crossed_slopes else data
    with jax.enable_x64(True):
        mcmc = SGWORLD(model, gradient="taylor", batch_size=700, num_samples=2, num_warmup=1)
        mcmc.run(KEY, *data)
        plan, made = mcmc.plan, mcmc.data
        feed, controls = made.feed, plan.tuning.controls
        target = target_of(made.model, made.constants, plan.tuning.coordinates)
        assert feed.extra is not None and controls.batches is not None
        z = jnp.asarray(np.random.default_rng(0).standard_normal(plan.fit.dimension))

        @jax.jit
        def gradient(controls, index):
            return Taylor()(target, controls, feed, z, feed.fetch((), index), index)

        for index in (0, feed.num_batches - 1):
            found = gradient(controls, index)
            again = gradient(controls._replace(batches=None), index)
            plain = Plain()(target, (), feed, z, feed.fetch((), index), index)
            distance = np.linalg.norm(plain - again)
            assert np.linalg.norm(found - again) < 1e-5 * distance  # they are kept in short numbers


def test_taylor_gradients_are_unbiased_in_any_coordinates():
    """Coordinates from a mean Hessian are not those of the Hessian at the center."""
    with jax.enable_x64(True):
        mcmc = SGWORLD(slopes, gradient="taylor", batch_size=1500, num_samples=2, num_warmup=1)
        mcmc.run(KEY, FEATURE, FIRST, LABEL)
        fit = mcmc.plan.fit
        other = replace(fit.coordinates, blocks=1.3 * fit.coordinates.blocks)
        posterior = posterior_of(mcmc.plan, mcmc.data, None)
        generator = np.random.default_rng(0)
        functions, feed, constants = posterior.functions, posterior.feed_double, ()
        structure = find_structure(generator, functions, feed, constants)
        posterior = posterior._replace(fit=fit._replace(coordinates=other, mean=True))
        posterior = posterior._replace(structure=structure).with_row_derivatives()
        count = 5
        batches = np.full((count, SIZE // count + 1), SIZE)
        batches[:, :-1] = np.arange(count * (SIZE // count)).reshape(count, -1)
        batches[: SIZE % count, -1] = np.arange(count * (SIZE // count), SIZE)
        gradient, controls = posterior.taylor(batches, count)
        parts = cut(posterior.rows, count)
        target = target_of(functions.model, constants, other)
        z = jnp.asarray(generator.standard_normal(fit.dimension))
        made = [
            gradient(target, controls, parts, z, parts.fetch((), index), index)
            for index in range(count)
        ]
        whole = jax.grad(target)(z, posterior.rows)
        scatter = np.linalg.norm(np.std(made, axis=0))
        assert scatter > 0.1  # the batches differ
        assert np.linalg.norm(np.mean(made, axis=0) - whole) < 1e-4 * scatter


def test_rows_that_are_dealt_anew_are_dealt_by_group_again():
    """With as many groups as to leave a Taylor gradient of the whole Hessian out of reach."""
    size, groups = 8000, 1005
    index = np.arange(size, dtype=np.int32) % groups
    x = np.random.default_rng(0).normal(size=size).astype(np.float32)

    def model(x, g, y):
        a = numpyro.sample("a", dist.Normal(0, 1).expand([groups]).to_event(1))
        b = numpyro.sample("b", dist.Normal(0, 1))
        with numpyro.plate("rows", len(y)):
            numpyro.sample("y", dist.Poisson(jnp.exp(a[g] + b * x)), obs=y)

    y = np.random.default_rng(1).poisson(np.exp(0.5 * x)).astype(np.float32)
    mcmc = SGWORLD(model, gradient="taylor", batch_size=2000, num_samples=2, num_warmup=1)
    mcmc.run(KEY, x, index, y)
    before = mcmc.data.feed.main[1]
    assert mcmc.plan.dynamics.gradient.name == "taylor" and before.shape == (4, 2000)
    deal_anew(mcmc, np.random.default_rng(0))
    after, controls = mcmc.data.feed.main[1], mcmc.plan.tuning.controls
    assert controls.batches is not None and (after != before).any()
    for feed in (before, after):
        held = np.stack([np.bincount(batch, minlength=groups) for batch in np.asarray(feed)])
        assert np.ptp(held, axis=0).max() <= 2
    assert np.sort(after, axis=None).tolist() == np.sort(index).tolist()
    # The derivatives belong to the new batches: their mean over an epoch is that of all rows.
    mean = np.asarray(controls.batches.gradients).mean(0)
    full = mcmc.plan.fit.gradient
    scatter = np.asarray(controls.batches.gradients).std(0)
    assert np.abs(mean - full).max() < 1e-4 * scatter.max()


def test_the_ladder_of_sizes_does_not_end_where_groups_are_many():
    assert batch_ladder(1000, 400) == (250,)
    sizes = batch_ladder(10_000_000, 20_000)
    assert len(sizes) == 4 and all(10_000_000 % size == 0 for size in sizes)


def test_slopes_that_cancel_at_one_point_hide_no_group():
    """Among many counts some are close to exp(eta) anywhere: their slopes there are rounding."""
    size, rng = 100_000, np.random.default_rng(3)
    g = rng.integers(0, GROUPS, size).astype(np.int32)
    x = rng.standard_normal(size).astype(np.float32)
    y = rng.poisson(np.exp(0.2 + 0.5 * EFFECT[g] + 0.3 * x)).astype(np.float32)

    def counts(x, g, y):
        tau = numpyro.sample("tau", dist.HalfNormal(1))
        a = numpyro.sample("a", dist.Normal(0, tau).expand([GROUPS]).to_event(1))
        rate = jnp.exp(a[g] + numpyro.sample("b", dist.Normal(0, 1)) * x)
        with numpyro.plate("rows", len(y)):
            numpyro.sample("y", dist.Poisson(rate), obs=y)

    for seed in range(3):
        generator = np.random.default_rng(seed)
        checked = check_model(generator, counts, make_settings(), (x, g, y), {}, {})
        functions, precise = functions_of(checked.model, None), checked.model.precise
        with jax.enable_x64(precise):
            structure = find_structure(generator, functions, set_up_feed(checked.rows(precise)), ())
        np.testing.assert_array_equal(structure.first.index, g[checked.order])


def test_small_models_are_not_looked_at():
    data = (FEATURE, SECOND, LABEL)

    def few(x, g, y):
        a = numpyro.sample("a", dist.Normal(0, 1).expand([40]).to_event(1))
        observe(a[g] + x, y)

    checked = check_model(np.random.default_rng(0), few, make_settings(), data, {}, {})
    functions = functions_of(checked.model, None)
    feed = set_up_feed(checked.rows(checked.model.precise))
    assert find_structure(np.random.default_rng(0), functions, feed, ()) is None


@pytest.mark.parametrize("used", [2, 4])
def test_the_first_batches_are_a_posterior_of_their_own(used):
    """Prior and likelihood of these rows alone: value, gradient, and averages away from zero."""
    with jax.enable_x64(True):
        data, _ = rows_of(slopes)
        whole = joined(data.feed)
        data = data._replace(feed=cut(whole, 4))
        batches = [data.feed.fetch((), index) for index in range(used)]
        pieces = [batch.main for batch in batches]
        pieces += [batch.extra for batch in batches if batch.has_extra]
        some = jax.tree.map(lambda *x: jnp.concatenate(x), *pieces)
        model, constants = data.functions.model, data.constants

        def density(x):
            prior = model.log_density(x, whole, constants) - model.log_likelihood(
                x, whole, constants
            )
            # The prior counts in proportion to the rows, which differ by one between batches.
            share = len(some[0]) * 4 / (used * len(whole[0]))
            return share * prior + model.log_likelihood(x, some, constants)

        rng = np.random.default_rng(2)
        x, z = 0.3 * rng.standard_normal((2, data.dimension))
        made = data.expand(x, used)
        assert made.value == pytest.approx(float(density(x)))
        np.testing.assert_allclose(made.gradient, jax.grad(density)(x), rtol=1e-8, atol=1e-8)
        coordinates, _ = arrow_scale(made.hessian)
        coordinates = replace(coordinates, center=x)
        value, shift = data.averages(coordinates, made.gradient, np.stack([z, z]), used)
        there = coordinates.to_model(z)
        assert value == pytest.approx(float(density(there)))
        wanted = coordinates.pull_back(np.asarray(jax.grad(density)(there)))
        np.testing.assert_allclose(shift, wanted, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("number", range(3))
def test_what_groups_share_and_the_data_do_not_know_keeps_its_width(number):
    """The curvature of log s grows as s^2: the largest of a few draws decided about its mean."""
    size, groups, rng = 100_000, 1000, np.random.default_rng(1)
    g = rng.integers(0, groups, size).astype(np.int32)
    x = rng.standard_normal(size).astype(np.float32)
    effect = 0.2 + 0.5 * rng.standard_normal(groups)
    y = rng.poisson(np.exp(effect[g] + 0.3 * x)).astype(np.float32)

    def model(g, x, y):
        tau = numpyro.sample("tau", dist.HalfNormal(1))
        m, b = numpyro.sample("m", dist.Normal(0, 1)), numpyro.sample("b", dist.Normal(0, 1))
        numpyro.sample("s", dist.HalfNormal(1))
        with numpyro.plate("groups", groups):
            u, v = (
                numpyro.sample("u", dist.Normal(m, tau)),
                numpyro.sample("v", dist.Normal(0, tau)),
            )
        with numpyro.plate("rows", len(y)):
            numpyro.sample("y", dist.Poisson(jnp.exp(u[g] + (b + v[g]) * x)), obs=y)

    mcmc = SGWORLD(model, progress_bar=False)
    plan = mcmc.set_up(jax.random.key(number), g, x, y)
    deviations = mcmc.data.model.unravel(jnp.asarray(plan.fit.coordinates.deviations()))
    # The Gaussian closest to the logarithm of a half-normal has a deviation of sqrt(1/2); the
    # pilot chains move the center by their noise.
    assert float(deviations["s"]) == pytest.approx(np.sqrt(0.5), rel=0.25)
