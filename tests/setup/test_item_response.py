"""Item response models: products of latents, of which each has few of the rows."""

import warnings

import arviz
import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest

from sgworld_mcmc import SGWORLD, TuningWarning
from sgworld_mcmc.data.in_memory import cut, minibatches
from sgworld_mcmc.infer import SGMCMCKernel
from sgworld_mcmc.setup.checked_model import check_model
from sgworld_mcmc.setup.tied_latents import has_tied_latents

PERSONS, ITEMS = 200, 30


def two_parameters(person, item, correct):
    """Priors that are fixed."""
    with numpyro.plate("persons", PERSONS):
        ability = numpyro.sample("theta", dist.Normal(0, 1))
    with numpyro.plate("items", ITEMS):
        slope = numpyro.sample("a", dist.LogNormal(0, 0.5))
        difficulty = numpyro.sample("b", dist.Normal(0, 1.5))
    logits = slope[item] * (ability[person] - difficulty[item])
    numpyro.sample("correct", dist.Bernoulli(logits=logits), obs=correct)


def hierarchical(person, item, correct):
    """Items have distributions of their own: the density is infinite where a width is zero."""
    width = numpyro.sample("s_a", dist.HalfNormal(1))
    middle = numpyro.sample("mu_b", dist.Normal(0, 2))
    scatter = numpyro.sample("s_b", dist.HalfNormal(2))
    with numpyro.plate("persons", PERSONS):
        ability = numpyro.sample("theta", dist.Normal(0, 1))
    with numpyro.plate("items", ITEMS):
        slope = numpyro.sample("a", dist.LogNormal(0, width))
        difficulty = numpyro.sample("b", dist.Normal(middle, scatter))
    logits = slope[item] * (ability[person] - difficulty[item])
    numpyro.sample("correct", dist.Bernoulli(logits=logits), obs=correct)


def answers():
    """More rows than pilot chains would use of other models."""
    rng = np.random.default_rng(4)
    person, item = (x.ravel() for x in np.meshgrid(range(PERSONS), range(ITEMS), indexing="ij"))
    ability, slope = rng.normal(size=PERSONS), np.exp(0.4 * rng.normal(size=ITEMS))
    logits = slope[item] * (ability[person] - rng.normal(size=ITEMS)[item])
    return person, item, (rng.random(len(item)) < 1 / (1 + np.exp(-logits))).astype(float), ability


@pytest.mark.slow
@pytest.mark.parametrize("model", [two_parameters, hierarchical])
def test_all_parameters_mix_with_few_steps_for_a_draw(model):
    """With minibatches the pilots saw stiffness that was noise, and steps were 1000 times smaller.

    The hierarchy was sampled as a network is, whose parameters need not mix.
    """
    *rows, ability = answers()
    mcmc = SGWORLD(model, num_samples=500)
    with warnings.catch_warnings():
        warnings.simplefilter("error", TuningWarning)
        mcmc.run(jax.random.key(0), *rows)
    assert mcmc.plan.choice.step_size > 0.05 and mcmc.plan.choice.steps_per_draw < 50
    draws = {name: np.asarray(x) for name, x in mcmc.get_samples(group_by_chain=True).items()}
    each = arviz.convert_to_dataset(draws)
    assert max(float(x.max()) for x in arviz.rhat(each).values()) < 1.05
    assert min(float(x.min()) for x in arviz.ess(each).values()) > 200
    z = (draws["theta"].mean((0, 1)) - ability) / draws["theta"].std((0, 1))
    # Truths are draws of the posteriors, but for what the model's other priors say.
    assert np.sqrt((z**2).mean()) == pytest.approx(1, abs=4 / np.sqrt(2 * PERSONS))


@pytest.mark.parametrize(
    ("size", "count", "rows", "most", "wanted"),
    [(4320, 1, 512, 64, 8), (12_000, 3, 512, 6, 6), (600, 2, 512, 64, 2), (4000, 10, 100, 5, 10)],
)
def test_minibatches_are_of_different_rows(size, count, rows, most, wanted):
    feed = minibatches(cut((jnp.arange(size),), count), rows, most)
    found = np.asarray(feed.main[0])
    assert feed.num_batches == wanted and found.shape == (wanted, min(rows, size // count))
    assert len(np.unique(found)) == found.size
    # Each batch has given equally many.
    assert len(set(np.bincount(found.ravel() // (size // count)))) == 1


def test_priors_that_depend_on_other_latents_are_a_hierarchy():
    def noise_only(x, y):
        slope = numpyro.sample("slope", dist.Normal(0, 1).expand([3]).to_event(1))
        sigma = numpyro.sample("sigma", dist.HalfNormal(1))
        numpyro.sample("y", dist.Normal(x @ slope, sigma), obs=y)

    def tied(x, y):
        tau = numpyro.sample("tau", dist.HalfNormal(1))
        slope = numpyro.sample("slope", dist.Normal(0, tau).expand([3]).to_event(1))
        numpyro.sample("y", dist.Normal(x @ slope, 1), obs=y)

    def scaled(x, y):
        tau = numpyro.sample("tau", dist.HalfNormal(1))
        slope = numpyro.sample("slope", dist.Normal(0, 1).expand([3]).to_event(1))
        numpyro.sample("y", dist.Normal(tau * (x @ slope), 1), obs=y)

    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(50, 3)), rng.normal(size=50)
    for model, wanted in ((noise_only, False), (tied, True), (scaled, False)):
        checked = check_model(rng, model, SGMCMCKernel(model).settings, (x, y), {}, {})
        few = cut(tuple(jnp.asarray(leaf[:2]) for leaf in (x, y)), 1).fetch((), 0).main
        point = np.full(4, 0.3, np.float32)
        assert has_tied_latents(checked.model, point, few, ()) is wanted
