"""Mixtures and hidden discrete states, enumerated or summed out by hand."""

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
from jax.scipy.special import logsumexp
from numpyro.distributions import transforms

from sgworld_benchmarks.accuracy.problem import Problem, representable
from sgworld_benchmarks.models.simulate import features

__all__ = ["MIXTURES"]


def mixture_same_family() -> Problem:
    """Simulate two overlapping normals."""
    sites = ("weights", "means", "scale")
    title = "mixture, MixtureSameFamily"
    return Problem(title, same_family_model, (two_normals(401),), sites, draws=4000)


def same_family_model(y):
    """Ordered means, and one scale."""
    weights, means, scale = two_components()
    with numpyro.plate("data", y.shape[0]):
        components = dist.Normal(means, scale)
        numpyro.sample("y", dist.MixtureSameFamily(dist.Categorical(weights), components), obs=y)


def two_components():
    """Sample the weights, ordered means and common scale of two normals."""
    weights = numpyro.sample("weights", dist.Dirichlet(jnp.ones(2) * 3.0))
    ordered = transforms.OrderedTransform()
    base = dist.Normal(0, 3).expand([2]).to_event(1)
    means = numpyro.sample("means", dist.TransformedDistribution(base, ordered))
    return weights, means, numpyro.sample("scale", dist.LogNormal(0, 0.5))


def outliers() -> Problem:
    """Simulate a line with a tenth of outliers."""
    rng = np.random.default_rng(402)
    x = representable(rng.uniform(-2, 2, 150))
    y = np.where(rng.random(150) < 0.1, rng.normal(0, 5, 150), 1 + 2 * x)
    y = representable(y + 0.3 * rng.normal(size=150))
    title = "outliers by dist.Mixture"
    return Problem(title, outliers_model, (x, y), ("line", "fraction", "sigma", "wide"))


def outliers_model(x, y):
    """A general mixture of a narrow and a wide normal."""
    line = numpyro.sample("line", dist.Normal(0, 5).expand([2]).to_event(1))
    fraction = numpyro.sample("fraction", dist.Beta(1, 4))
    sigma = numpyro.sample("sigma", dist.HalfNormal(1))
    wide = numpyro.sample("wide", dist.LogNormal(1.5, 0.5))
    mean = line[0] + line[1] * x
    mixing = dist.Categorical(probs=jnp.stack([1 - fraction, fraction]))
    parts = [dist.Normal(mean, sigma), dist.Normal(jnp.zeros_like(mean), wide)]
    with numpyro.plate("data", len(x)):
        numpyro.sample("y", dist.Mixture(mixing, parts), obs=y)


def enumerated_mixture() -> Problem:
    """Simulate two overlapping normals, whose labels are discrete latent sites."""
    return Problem(
        "mixture, enumerated labels",
        enumerated_model,
        (two_normals(401),),
        ("weights", "means", "scale"),
        reference_model=same_family_model,
        draws=4000,
    )


def enumerated_model(y):
    """A label for each row, to be enumerated."""
    weights, means, scale = two_components()
    with numpyro.plate("data", y.shape[0]):
        parallel = {"enumerate": "parallel"}
        label = numpyro.sample("label", dist.Categorical(weights), infer=parallel)
        numpyro.sample("y", dist.Normal(means[label], scale), obs=y)


def latent_indicators() -> Problem:
    """Simulate counts with additional zeros, whose indicators are discrete latent sites."""
    rng = np.random.default_rng(403)
    y = rng.poisson(2.5, 300) * (rng.random(300) < 0.7)
    return Problem(
        "zero inflation, latent indicators",
        indicators_model,
        (y,),
        ("pi", "rate"),
        reference_model=zero_inflated_model,
    )


def indicators_model(y):
    """Whether a row is a structural zero is an enumerated Bernoulli site."""
    pi = numpyro.sample("pi", dist.Beta(1, 1))
    rate = numpyro.sample("rate", dist.Gamma(2, 1))
    with numpyro.plate("data", y.shape[0]):
        zero = numpyro.sample("zero", dist.Bernoulli(pi), infer={"enumerate": "parallel"})
        numpyro.sample("y", dist.Poisson(jnp.where(zero == 1, 1e-8, rate)), obs=y)


def zero_inflated_model(y):
    """The same with the indicators summed out."""
    pi = numpyro.sample("pi", dist.Beta(1, 1))
    rate = numpyro.sample("rate", dist.Gamma(2, 1))
    mixing = dist.Categorical(probs=jnp.stack([1 - pi, pi]))
    # A structural zero is a Poisson variable of rate 1e-8 in both models, so the densities agree.
    parts = dist.Poisson(jnp.stack([rate, jnp.full_like(rate, 1e-8)]))
    numpyro.sample("y", dist.MixtureSameFamily(mixing, parts).expand(y.shape), obs=y)


def hidden_markov() -> Problem:
    """Simulate a chain of two states that is seen with noise."""
    rng = np.random.default_rng(404)
    state = np.cumsum(rng.random(250) < 0.1) % 2
    y = representable(np.where(state, 1.5, -1.0) + 0.8 * rng.normal(size=250))
    title = "hidden Markov, forward algorithm"
    return Problem(title, hidden_markov_model, (y,), ("stay", "means", "sigma"))


def hidden_markov_model(y):
    """The forward algorithm in a scan, as one factor that is no sum over rows."""
    stay = numpyro.sample("stay", dist.Beta(8, 2).expand([2]).to_event(1))
    ordered = transforms.OrderedTransform()
    base = dist.Normal(0, 2).expand([2]).to_event(1)
    means = numpyro.sample("means", dist.TransformedDistribution(base, ordered))
    sigma = numpyro.sample("sigma", dist.HalfNormal(1))
    log_move = jnp.log(jnp.array([[stay[0], 1 - stay[0]], [1 - stay[1], stay[1]]]))
    emission = dist.Normal(means, sigma).log_prob(y[:, None])

    def step(forward, log_likelihood):
        return logsumexp(forward[:, None] + log_move, axis=0) + log_likelihood, None

    forward, _ = jax.lax.scan(step, jnp.log(0.5) + emission[0], emission[1:])
    numpyro.factor("likelihood", logsumexp(forward))


def unordered_mixture() -> Problem:
    """Simulate three normals whose labels can be exchanged."""
    rng = np.random.default_rng(405)
    y = representable(rng.choice([-4.0, 0.0, 4.0], 200) + 0.8 * rng.normal(size=200))
    note = "labels can be exchanged: nothing to compare"
    return Problem("mixture, unordered", unordered_model, (y,), (), note=note)


def unordered_model(y):
    """Three components in a plate, without an order."""
    weights = numpyro.sample("weights", dist.Dirichlet(jnp.ones(3)))
    with numpyro.plate("components", 3):
        means = numpyro.sample("means", dist.Normal(0, 5))
        scales = numpyro.sample("scales", dist.LogNormal(0, 0.5))
    with numpyro.plate("data", y.shape[0]):
        mixture = dist.MixtureSameFamily(dist.Categorical(weights), dist.Normal(means, scales))
        numpyro.sample("y", mixture, obs=y)


def mixture_of_regressions() -> Problem:
    """Simulate two lines of different slope."""
    rng = np.random.default_rng(406)
    x = features(rng, 400)
    slope = np.where(rng.random(400) < 0.4, -1.0, 1.5)
    y = representable(0.5 + slope * x + 0.5 * rng.normal(size=400))
    sites = ("theta", "slopes", "intercept", "sigma")
    return Problem("mixture of two lines, logsumexp", lines_model, (x, y), sites)


def lines_model(x, y):
    """Log densities of two lines, summed out by hand."""
    theta = numpyro.sample("theta", dist.Beta(2, 2))
    low = numpyro.sample("low", dist.Normal(0, 2))
    gap = numpyro.sample("gap", dist.HalfNormal(3))
    slopes = numpyro.deterministic("slopes", jnp.stack([low, low + gap]))
    intercept = numpyro.sample("intercept", dist.Normal(0, 2))
    sigma = numpyro.sample("sigma", dist.HalfNormal(1))
    first = jnp.log(theta) + dist.Normal(intercept + slopes[0] * x, sigma).log_prob(y)
    second = jnp.log1p(-theta) + dist.Normal(intercept + slopes[1] * x, sigma).log_prob(y)
    with numpyro.plate("data", x.shape[0]):
        numpyro.factor("mixture", jnp.logaddexp(first, second))


def raters() -> Problem:
    """Simulate five raters who sort 150 items into three categories."""
    rng = np.random.default_rng(407)
    truth = rng.choice(3, 150, p=[0.5, 0.3, 0.2])
    confusion = rng.dirichlet(np.ones(3), (5, 3)) * 0.3 + 0.7 * np.eye(3)
    given = np.array([[rng.choice(3, p=confusion[j, k]) for j in range(5)] for k in truth])
    # Chains of NUTS stay where a rater's or all raters' categories are exchanged.
    note = "categories can be exchanged: nothing to compare"
    return Problem("raters, categories summed out", raters_model, (given,), (), note=note)


def raters_model(given):
    """Each rater has a table of confusion; the true category is summed out."""
    share = numpyro.sample("share", dist.Dirichlet(jnp.ones(3)))
    prior = jnp.ones((3, 3)) + 4 * jnp.eye(3)
    with numpyro.plate("raters", given.shape[1], dim=-2), numpyro.plate("category", 3, dim=-1):
        skill = numpyro.sample("skill", dist.Dirichlet(prior))
    chances = jnp.log(skill)[jnp.arange(given.shape[1]), :, given]  # items, raters, categories
    with numpyro.plate("items", given.shape[0]):
        numpyro.factor("given", logsumexp(jnp.log(share) + chances.sum(1), axis=-1))


def two_normals(seed):
    """Return 300 draws of two normals that overlap."""
    rng = np.random.default_rng(seed)
    return representable(np.where(rng.random(300) < 0.4, -1.2, 1.5) + 0.8 * rng.normal(size=300))


MIXTURES = {
    function.__name__: function
    for function in (
        mixture_same_family,
        outliers,
        enumerated_mixture,
        latent_indicators,
        hidden_markov,
        unordered_mixture,
        mixture_of_regressions,
        raters,
    )
}
