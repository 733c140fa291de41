"""Many latents by group with a few rows for each, as the auditor sees the draws."""

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest

from sgworld_benchmarks.hierarchies.problems import intercepts
from sgworld_mcmc import SGWORLD, audit
from sgworld_mcmc.gradients.weighting import epoch_mean
from sgworld_mcmc.model.target import target_of
from sgworld_mcmc.setup import row_derivatives
from sgworld_mcmc.setup.row_derivatives import _crossings


@pytest.mark.slow
def test_few_rows_in_each_of_thousands_of_groups():
    # The Hessian at the center says that tau is three times as uncertain as it is: in its place
    # stands a mean Hessian. The gradients at the draws are the judge.
    groups = 5000
    rng = np.random.default_rng(0)
    group = np.repeat(np.arange(groups), 10)
    own = 0.8 * rng.normal(size=groups) - 0.5
    y = (rng.random(len(group)) < 1 / (1 + np.exp(-own[group]))).astype(np.float32)

    def model(group, y):
        mu = numpyro.sample("mu", dist.Normal(0, 1.5))
        tau = numpyro.sample("tau", dist.HalfNormal(1.0))
        z = numpyro.sample("z", dist.Normal(0, 1).expand([groups]).to_event(1))
        with numpyro.plate("rows", len(y)):
            numpyro.sample("y", dist.Bernoulli(logits=(mu + tau * z)[group]), obs=y)

    mcmc = SGWORLD(model, num_samples=400)
    mcmc.run(jax.random.key(0), group, y)
    assert mcmc.plan.fit.mean
    report = audit(model, mcmc, group, y)
    shared = [report.names.index("mu"), report.names.index("tau")]
    assert (np.abs(report.mean_shift) / report.mean_shift_se)[shared].max() < 4
    assert report.p_values["joint mean"] > 1e-3 and report.p_values["joint width"] > 1e-3
    tau = mcmc.get_samples()["tau"]
    assert 0.01 < tau.std() < 0.04 and abs(tau.mean() - 0.8) < 5 * tau.std()


@pytest.mark.slow
def test_the_center_is_found_whatever_the_key():
    # At some centers on the way the Hessian is hardly convex: steps made from it lead to a scale of
    # zero, or never settle.
    model, data = intercepts(30_000, 3000)
    first = SGWORLD(model, progress_bar=False)
    for key in (1, 0, 4, 8):
        mcmc = SGWORLD(model, progress_bar=False)
        mcmc.sampler.share(first.sampler)
        plan = mcmc.set_up(jax.random.key(key), *data)
        center = mcmc.data.model.unravel(jnp.asarray(plan.fit.coordinates.center))
        # Their Monte Carlo error is 0.01, and the posterior's standard deviation 0.03.
        assert abs(float(center["tau"]) + 0.24) < 0.05 and abs(float(center["mu"]) + 0.493) < 0.01
        assert plan.kinetic is None and plan.fit.converged


def crossed(person, item, y):
    """Products of latents of two groupings, with twenty rows for each of 310 persons."""
    spread = numpyro.sample("spread", dist.HalfNormal(1))
    ability = numpyro.sample("ability", dist.Normal(0, 1).expand([310]).to_event(1))
    slope = numpyro.sample("slope", dist.LogNormal(0, 0.5).expand([20]).to_event(1))
    level = numpyro.sample("level", dist.Normal(0, spread).expand([20]).to_event(1))
    with numpyro.plate("rows", len(y)):
        logits = slope[item] * (ability[person] - level[item])
        numpyro.sample("y", dist.Bernoulli(logits=logits), obs=y)


@pytest.fixture(scope="module")
def answers():
    rng = np.random.default_rng(0)
    person, item = (x.ravel() for x in np.meshgrid(range(310), range(20), indexing="ij"))
    slope, level = np.exp(0.3 * rng.normal(size=20)), rng.normal(size=20)
    logits = slope[item] * (rng.normal(size=310)[person] - level[item])
    return person, item, (rng.random(len(item)) < 1 / (1 + np.exp(-logits))).astype(np.float32)


@pytest.mark.slow
@pytest.mark.parametrize(
    "given",
    [{"batch_size": 310}, {"step_size": 0.05, "batch_size": 310, "steps_per_draw": 9}],
    ids=["chosen", "given"],
)
def test_batches_add_up_to_the_gradient_where_groups_cross(answers, given):
    """Around a mean Hessian, rows share what it has between two groupings.

    The curvature of a cell of persons and items is there not that at the center. With everything
    given the rows' derivatives are computed for the first time when the data are laid out.
    """
    mcmc = SGWORLD(crossed, gradient="taylor", num_samples=5, **given)
    plan = mcmc.set_up(jax.random.key(0), *answers)
    assert plan.fit.mean and len(mcmc.data.tuning.controls.batches.crossings) == 1
    data, feed = mcmc.data, mcmc.data.feed
    target = target_of(data.model, data.constants, data.tuning.coordinates)
    gradient, controls = plan.dynamics.gradient, data.tuning.controls._replace(reach=None)
    z = jnp.asarray(np.random.default_rng(1).normal(size=data.model.dimension), jnp.float32)

    def each(index):
        return gradient(target, controls, feed, z, feed.fetch((), index), index)

    estimates = np.asarray(jax.lax.map(each, jnp.arange(feed.num_batches)))
    whole = np.asarray(epoch_mean(jax.grad(target), z, feed))
    assert estimates.std(0).max() > 0.01 and np.abs(whole).max() > 1
    np.testing.assert_allclose(estimates.mean(0), whole, atol=3e-5)


@pytest.mark.slow
def test_all_rows_in_one_batch_and_batches_that_are_dealt_anew(answers):
    """Both have no expansions of batches: the one needs none, the other takes another gradient."""
    whole = SGWORLD(crossed, gradient="taylor", batch_size=6200, num_samples=5)
    whole.run(jax.random.key(0), *answers)
    assert np.isfinite(whole.get_samples()["level"]).all()
    anew = SGWORLD(crossed, order="examples", num_samples=5)
    assert anew.set_up(jax.random.key(0), *answers).dynamics.gradient.name != "taylor"
    with pytest.raises(ValueError, match=r"deals batches anew.*Use `order='batches'`"):
        SGWORLD(crossed, order="examples", gradient="taylor").set_up(jax.random.key(0), *answers)


def test_batches_that_do_not_add_up_are_refused(monkeypatch):
    """A fault in the expansions ends the set-up: no step size would mend the draws."""
    rng = np.random.default_rng(0)
    one, other = rng.integers(0, 400, 8000), rng.integers(0, 30, 8000)
    y = rng.normal(size=400)[one] + rng.normal(size=30)[other] + rng.normal(size=8000)

    def model(one, other, y):
        a = numpyro.sample("a", dist.Normal(0, 1).expand([400]).to_event(1))
        b = numpyro.sample("b", dist.Normal(0, 1).expand([30]).to_event(1))
        with numpyro.plate("rows", len(y)):
            numpyro.sample("y", dist.Normal(a[one] + b[other], 1), obs=y)

    def faulty(*given):
        for crossing in _crossings(*given):
            yield crossing._replace(values=0.9 * crossing.values)

    mcmc = SGWORLD(model, gradient="taylor", batch_size=200, num_samples=5)
    mcmc.set_up(jax.random.key(0), one, other, y)
    assert mcmc.data.tuning.controls.batches.crossings
    monkeypatch.setattr(row_derivatives, "_crossings", faulty)
    again = SGWORLD(model, gradient="taylor", batch_size=200, num_samples=5)
    with pytest.raises(RuntimeError, match=r'do not add up .* please report .* gradient="plain"'):
        again.set_up(jax.random.key(0), one, other, y)
