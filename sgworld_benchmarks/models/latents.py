"""Textbook models with many latent values: tests, tournaments, missing data, sparse weights."""

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
from jax.scipy.special import logsumexp

from sgworld_benchmarks.accuracy.problem import Problem, representable
from sgworld_benchmarks.models.simulate import binary, features

__all__ = ["LATENTS"]


def measurement_error() -> Problem:
    """Simulate a regression whose feature is measured with error."""
    rng = np.random.default_rng(701)
    true = rng.normal(size=50)
    error = representable(rng.uniform(0.2, 0.5, 50))
    x = representable(true + error * rng.normal(size=50))
    y = representable(0.3 - 0.7 * true + 0.5 * rng.normal(size=50))
    sites = ("a", "b", "sigma", "true")
    return Problem("measurement error", measurement_model, (x, error, y), sites)


def measurement_model(x, error, y):
    """The true feature is a latent value for each row."""
    a = numpyro.sample("a", dist.Normal(0, 0.5))
    b = numpyro.sample("b", dist.Normal(0, 1))
    sigma = numpyro.sample("sigma", dist.Exponential(1))
    true = numpyro.sample("true", dist.Normal(0, 1).expand([x.shape[0]]))
    numpyro.sample("x", dist.Normal(true, error), obs=x)
    numpyro.sample("y", dist.Normal(a + b * true, sigma), obs=y)


def imputation() -> Problem:
    """Simulate a regression, a tenth of whose feature is missing."""
    rng = np.random.default_rng(702)
    x = rng.normal(0.5, 1.0, 120)
    y = representable(1 + 0.8 * x + 0.6 * rng.normal(size=120))
    x[rng.choice(120, 12, replace=False)] = np.nan
    sites = ("a", "b", "sigma", "mu_x", "sigma_x", "missing")
    return Problem("missing data as latent values", imputation_model, (representable(x), y), sites)


def imputation_model(x, y):
    """The model looks for the gaps itself, and fills them with latent values."""
    a = numpyro.sample("a", dist.Normal(0, 2))
    b = numpyro.sample("b", dist.Normal(0, 1))
    sigma = numpyro.sample("sigma", dist.Exponential(1))
    mu_x = numpyro.sample("mu_x", dist.Normal(0, 1))
    sigma_x = numpyro.sample("sigma_x", dist.Exponential(1))
    gaps = np.nonzero(np.isnan(x))[0]
    missing = numpyro.sample("missing", dist.Normal(mu_x, sigma_x).expand([len(gaps)]).mask(False))
    complete = jnp.asarray(x).at[gaps].set(missing)
    numpyro.sample("x", dist.Normal(mu_x, sigma_x), obs=complete)
    numpyro.sample("y", dist.Normal(a + b * complete, sigma), obs=y)


def item_response() -> Problem:
    """Simulate answers of 80 students to 12 questions, one row for each answer."""
    rng = np.random.default_rng(703)
    ability, difficulty, slope = rng.normal(size=80), rng.normal(size=12), rng.lognormal(0, 0.3, 12)
    student, item = (index.ravel() for index in np.meshgrid(np.arange(80), np.arange(12)))
    answer = binary(rng, slope[item] * (ability[student] - difficulty[item]))
    data = (student, item, answer)
    sites = ("theta", "b", "a")
    return Problem("item response, 2PL", item_model, data, sites, draws=2000)


def item_model(student, item, answer=None):
    """Abilities, difficulties and discriminations."""
    with numpyro.plate("students", 80):
        theta = numpyro.sample("theta", dist.Normal(0, 1))
    with numpyro.plate("items", 12):
        b = numpyro.sample("b", dist.Normal(0, 2))
        a = numpyro.sample("a", dist.LogNormal(0, 0.5))
    logits = a[item] * (theta[student] - b[item])
    with numpyro.plate("answers", len(student)):
        numpyro.sample("answer", dist.Bernoulli(logits=logits), obs=answer)


def tournament() -> Problem:
    """Simulate matches among twelve players."""
    rng = np.random.default_rng(704)
    skill = rng.normal(0, 1, 12)
    pair = np.array([rng.choice(12, 2, replace=False) for _ in range(600)])
    won = binary(rng, skill[pair[:, 0]] - skill[pair[:, 1]])
    data = (pair[:, 0], pair[:, 1], won)
    return Problem("Bradley-Terry, 12 players", tournament_model, data, ("sigma", "skill"))


def tournament_model(first, second, won):
    """Skills around zero, with unknown spread."""
    sigma = numpyro.sample("sigma", dist.LogNormal(0, 0.5))
    skill = numpyro.sample("skill", dist.Normal(0, sigma).expand([12]).to_event(1))
    with numpyro.plate("matches", won.shape[0]):
        numpyro.sample("won", dist.Bernoulli(logits=skill[first] - skill[second]), obs=won)


def capture_recapture() -> Problem:
    """Simulate animals that are marked, survive and are caught again, or not."""
    rng = np.random.default_rng(705)
    seen, alive = np.zeros((200, 7)), np.ones(200, bool)
    seen[:, 0] = 1
    for t in range(1, 7):
        alive &= rng.random(200) < 0.75
        seen[:, t] = alive & (rng.random(200) < 0.6)
    return Problem("capture-recapture, forward sum", capture_model, (seen,), ("phi", "p"))


def capture_model(seen):
    """Whether an animal is alive is summed out by a recursion over occasions."""
    phi = numpyro.sample("phi", dist.Uniform(0, 1))
    p = numpyro.sample("p", dist.Uniform(0, 1))
    log_phi, log_p = jnp.log(phi), jnp.log(p)
    alive, dead = jnp.zeros(seen.shape[0]), jnp.full(seen.shape[0], -1e3)
    for t in range(1, seen.shape[1]):
        dead = jnp.logaddexp(dead, alive + jnp.log1p(-phi)) + jnp.where(seen[:, t] == 1, -1e3, 0)
        alive = alive + log_phi + jnp.where(seen[:, t] == 1, log_p, jnp.log1p(-p))
    with numpyro.plate("animals", seen.shape[0]):
        numpyro.factor("history", jnp.logaddexp(alive, dead))


def topics() -> Problem:
    """Simulate words of 20 documents about three topics."""
    rng = np.random.default_rng(706)
    topic_words, shares = rng.dirichlet(np.full(25, 0.3), 3), rng.dirichlet(np.full(3, 0.5), 20)
    document = np.repeat(np.arange(20), 60)
    word = np.array([rng.choice(25, p=shares[d] @ topic_words) for d in document])
    note = "topics can be exchanged: nothing to compare"
    return Problem("topics (LDA), summed out", topics_model, (document, word), (), note=note)


def topics_model(document, word):
    """Shares of topics by document and of words by topic; assignments are summed out."""
    with numpyro.plate("topics", 3):
        phi = numpyro.sample("phi", dist.Dirichlet(jnp.full(25, 0.5)))
    with numpyro.plate("documents", 20):
        theta = numpyro.sample("theta", dist.Dirichlet(jnp.full(3, 1.0)))
    joint = jnp.log(theta[document]) + jnp.log(phi[:, word].T)
    with numpyro.plate("words", word.shape[0]):
        numpyro.factor("word", logsumexp(joint, axis=-1))


def matrix_factorisation() -> Problem:
    """Simulate ratings of 15 films by 30 people with two hidden factors."""
    rng = np.random.default_rng(707)
    person, film = rng.integers(0, 30, 800), rng.integers(0, 15, 800)
    u, v = rng.normal(size=(30, 2)), rng.normal(size=(15, 2))
    rating = representable((u[person] * v[film]).sum(1) + 0.5 * rng.normal(size=800))
    note = "factors can be rotated: nothing to compare"
    data = (person, film, rating)
    return Problem("matrix factorisation", factorisation_model, data, (), note=note)


def factorisation_model(person, film, rating):
    """Two factors for each person and each film."""
    u = numpyro.sample("u", dist.Normal(0, 1).expand([30, 2]).to_event(2))
    v = numpyro.sample("v", dist.Normal(0, 1).expand([15, 2]).to_event(2))
    sigma = numpyro.sample("sigma", dist.HalfNormal(1))
    mean = jnp.sum(u[person] * v[film], axis=-1)
    with numpyro.plate("ratings", rating.shape[0]):
        numpyro.sample("rating", dist.Normal(mean, sigma), obs=rating)


def horseshoe() -> Problem:
    """Simulate a regression of which two coefficients in fifteen are not zero."""
    rng = np.random.default_rng(708)
    x = features(rng, 200, 15)
    y = representable(x[:, :2] @ [1.5, -1.0] + rng.normal(size=200))
    sites = ("tau", "beta", "sigma")
    note = "half-Cauchy funnels"
    return Problem(
        "horseshoe prior", horseshoe_model, (x, y), sites, draws=6000, warmup=1500, note=note
    )


def horseshoe_model(x, y=None):
    """Local and global half-Cauchy scales."""
    lambdas = numpyro.sample("lambdas", dist.HalfCauchy(jnp.ones(x.shape[1])))
    tau = numpyro.sample("tau", dist.HalfCauchy(1.0))
    z = numpyro.sample("z", dist.Normal(jnp.zeros(x.shape[1]), jnp.ones(x.shape[1])))
    beta = numpyro.deterministic("beta", tau * lambdas * z)
    precision = numpyro.sample("precision", dist.Gamma(3.0, 1.0))
    sigma = numpyro.deterministic("sigma", 1.0 / jnp.sqrt(precision))
    numpyro.sample("y", dist.Normal(x @ beta, sigma), obs=y)


def neural_network() -> Problem:
    """Simulate a curve for a network with one hidden layer."""
    rng = np.random.default_rng(709)
    x = representable(rng.uniform(-1, 1, (100, 1)))
    y = representable(np.sin(3 * x) + 0.1 * rng.normal(size=(100, 1)))
    note = "hidden units can be exchanged: nothing to compare"
    return Problem("neural network, 5 units", network_model, (x, y, 5), (), note=note)


def network_model(x, y, hidden):
    """Weights of two layers with standard normal priors, and the precision of the noise."""
    inner = numpyro.sample("w1", dist.Normal(jnp.zeros((x.shape[1], hidden)), 1.0).to_event(2))
    outer = numpyro.sample("w2", dist.Normal(jnp.zeros((hidden, 1)), 1.0).to_event(2))
    precision = numpyro.sample("precision", dist.Gamma(3.0, 1.0))
    output = jax.nn.tanh(x @ inner) @ outer
    assert output.shape == y.shape
    with numpyro.plate("data", x.shape[0]):
        numpyro.sample("y", dist.Normal(output, 1 / jnp.sqrt(precision)).to_event(1), obs=y)


def monotonic_effect() -> Problem:
    """Simulate an outcome that grows with the level of education."""
    rng = np.random.default_rng(710)
    education = rng.integers(0, 5, 300)
    gain = np.cumsum([0.0, 0.1, 0.4, 0.2, 0.3])
    y = representable(1 + 1.2 * gain[education] + 0.8 * rng.normal(size=300))
    sites = ("a", "b", "delta", "sigma")
    return Problem("monotonic effect, simplex", monotonic_model, (education, y), sites)


def monotonic_model(education, y):
    """The steps between levels are a simplex."""
    a = numpyro.sample("a", dist.Normal(0, 2))
    b = numpyro.sample("b", dist.Normal(0, 2))
    delta = numpyro.sample("delta", dist.Dirichlet(jnp.full(4, 2.0)))
    sigma = numpyro.sample("sigma", dist.Exponential(1))
    cumulative = jnp.concatenate([jnp.zeros(1), jnp.cumsum(delta)])
    numpyro.sample("y", dist.Normal(a + b * cumulative[education], sigma), obs=y)


def seemingly_unrelated() -> Problem:
    """Simulate three outcomes whose errors are correlated."""
    rng = np.random.default_rng(711)
    x = features(rng, 250, 2)
    root = np.linalg.cholesky(np.full((3, 3), 0.5) + 0.5 * np.eye(3))
    y = representable(x @ [[1.0, 0.0, -0.5], [0.3, 0.8, 0.0]] + rng.normal(size=(250, 3)) @ root.T)
    title = "three outcomes, LKJCholesky"
    return Problem(title, outcomes_model, (x, y), ("beta", "scale", "correlation"))


def outcomes_model(x, y):
    """Rows are multivariate normal, with the Cholesky factor of a correlation matrix."""
    beta = numpyro.sample("beta", dist.Normal(0, 2).expand([x.shape[1], 3]).to_event(2))
    scale = numpyro.sample("scale", dist.HalfCauchy(2.0).expand([3]).to_event(1))
    factor = numpyro.sample("factor", dist.LKJCholesky(3, concentration=1.0))
    numpyro.deterministic("correlation", factor @ factor.T)
    root = scale[:, None] * factor
    with numpyro.plate("data", x.shape[0]):
        numpyro.sample("y", dist.MultivariateNormal(x @ beta, scale_tril=root), obs=y)


LATENTS = {
    function.__name__: function
    for function in (
        measurement_error,
        imputation,
        item_response,
        tournament,
        capture_recapture,
        topics,
        matrix_factorisation,
        horseshoe,
        neural_network,
        monotonic_effect,
        seemingly_unrelated,
    )
}
