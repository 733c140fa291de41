"""Regressions with one row for each observation, as tutorials and textbooks write them."""

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
from numpyro import handlers
from numpyro.distributions import transforms

from sgworld_benchmarks.accuracy.problem import Problem, representable
from sgworld_benchmarks.models.simulate import binary, features

__all__ = ["REGRESSIONS"]


def gaussian_regression() -> Problem:
    """Simulate heights that depend on weights."""
    rng = np.random.default_rng(101)
    weight = features(rng, 352)
    height = representable(154 + 6 * weight + 5 * rng.normal(size=352))
    sites = ("a", "b", "sigma")
    return Problem("Gaussian regression", gaussian_model, (weight, height), sites)


def gaussian_model(weight, height=None):
    """A straight line with normal errors; the observations are optional."""
    a = numpyro.sample("a", dist.Normal(150, 20))
    b = numpyro.sample("b", dist.LogNormal(0, 1))
    sigma = numpyro.sample("sigma", dist.Uniform(0, 50))
    mu = a + b * weight
    with numpyro.plate("data", len(weight)):
        numpyro.sample("height", dist.Normal(mu, sigma), obs=height)


def robust_regression() -> Problem:
    """Simulate a regression with a few gross errors."""
    rng = np.random.default_rng(102)
    x = features(rng, 200, 2)
    y = 1 + x @ [0.8, -0.4] + 0.5 * rng.standard_t(3, 200)
    sites = ("alpha", "beta", "sigma", "nu")
    return Problem("robust regression, Student-t", robust_model, (x, representable(y)), sites)


def robust_model(x, y=None):
    """Student-t errors whose degrees of freedom are unknown."""
    alpha = numpyro.sample("alpha", dist.Normal(0, 5))
    with numpyro.plate("features", x.shape[1]):
        beta = numpyro.sample("beta", dist.Normal(0, 2.5))
    sigma = numpyro.sample("sigma", dist.HalfCauchy(2.5))
    nu = numpyro.sample("nu", dist.Gamma(2, 0.1))
    with numpyro.plate("data", x.shape[0]):
        numpyro.sample("y", dist.StudentT(nu, alpha + jnp.dot(x, beta), sigma), obs=y)


def logistic_switch() -> Problem:
    """Simulate households that switch wells or not."""
    rng = np.random.default_rng(103)
    distance, arsenic = rng.gamma(1.6, 0.3, 3000), 0.5 + rng.gamma(1.2, 0.9, 3000)
    switch = binary(rng, 0.1 - 0.9 * distance + 0.5 * arsenic)
    data = (representable(distance), representable(arsenic), switch.astype(int))
    return Problem("logistic regression, interaction", switch_model, data, ("b",))


def switch_model(distance, arsenic, switch):
    """Two features and their product, by way of a matrix that the model makes."""
    x = jnp.stack([jnp.ones_like(distance), distance, arsenic, distance * arsenic], axis=-1)
    b = numpyro.sample("b", dist.StudentT(4, 0, 2.5).expand([4]))
    numpyro.sample("switch", dist.Bernoulli(logits=x @ b), obs=switch)


def poisson_offset() -> Problem:
    """Simulate counts of stops, with the number of arrests as exposure."""
    rng = np.random.default_rng(104)
    group, exposure = rng.integers(0, 3, 225), representable(rng.gamma(2.0, 50.0, 225) + 1)
    stops = rng.poisson(exposure * np.exp(np.array([-0.5, 0.1, 0.4])[group]))
    data = (group, exposure, stops)
    return Problem("Poisson regression with exposure", offset_model, data, ("a",))


def offset_model(group, exposure, stops=None):
    """Rates of three groups relative to an exposure."""
    a = numpyro.sample("a", dist.Normal(0, 2).expand([3]))
    rate = jnp.exp(a[group] + jnp.log(exposure))
    with numpyro.plate("obs", group.shape[0]):
        numpyro.sample("stops", dist.Poisson(rate), obs=stops)


def negative_binomial() -> Problem:
    """Simulate overdispersed counts of insects in treated and other flats."""
    rng = np.random.default_rng(105)
    x = np.stack([features(rng, 262), rng.integers(0, 2, 262)], 1)
    y = rng.poisson(np.exp(1.5 + x @ [0.6, -0.5]) * rng.gamma(0.8, 1 / 0.8, 262))
    sites = ("alpha", "beta", "phi")
    return Problem("negative binomial regression", negative_binomial_model, (x, y), sites)


def negative_binomial_model(x, y=None):
    """Log-linear mean, and a concentration with a prior of its reciprocal root."""
    alpha = numpyro.sample("alpha", dist.Normal(0, 5))
    beta = numpyro.sample("beta", dist.Normal(0, 2.5).expand([2]).to_event(1))
    inverse_root = numpyro.sample("inverse_root", dist.HalfNormal(1))
    phi = numpyro.deterministic("phi", inverse_root**-2)
    mean = jnp.exp(alpha + x @ beta)
    with numpyro.plate("data", x.shape[0]):
        numpyro.sample("y", dist.NegativeBinomial2(mean, phi), obs=y)


def zero_inflated_poisson() -> Problem:
    """Simulate the catch of visitors, some of whom do not fish."""
    rng = np.random.default_rng(106)
    camper, persons = rng.integers(0, 2, 250).astype(float), rng.integers(1, 5, 250).astype(float)
    catch = rng.poisson(np.exp(-0.5 + 0.6 * camper + 0.4 * persons)) * (rng.random(250) < 0.6)
    data = (camper, persons, catch)
    return Problem("zero-inflated Poisson", zero_inflated_model, data, ("gate", "b0", "b"))


def zero_inflated_model(camper, persons, catch):
    """Zeros by two ways, with NumPyro's distribution for it."""
    gate = numpyro.sample("gate", dist.Beta(1, 1))
    b0 = numpyro.sample("b0", dist.Normal(0, 2))
    b = numpyro.sample("b", dist.Normal(0, 1).expand([2]).to_event(1))
    rate = jnp.exp(b0 + b[0] * camper + b[1] * persons)
    with numpyro.plate("visitors", catch.shape[0]):
        numpyro.sample("catch", dist.ZeroInflatedPoisson(gate, rate=rate), obs=catch)


def ordinal() -> Problem:
    """Simulate ratings from 0 to 6 of stories with action, intention and contact."""
    rng = np.random.default_rng(107)
    x = rng.integers(0, 2, (1500, 3)).astype(float)
    latent = x @ [-0.5, -0.3, -0.4] + rng.logistic(size=1500)
    rating = np.digitize(latent, [-2.5, -1.7, -1.2, -0.2, 0.6, 1.6])
    return Problem("ordered logistic, 7 levels", ordinal_model, (x, rating), ("b", "cutpoints"))


def ordinal_model(x, rating):
    """Ordered cutpoints as a transformed normal vector."""
    b = numpyro.sample("b", dist.Normal(0, 0.5).expand([3]))
    cutpoints = numpyro.sample(
        "cutpoints",
        dist.TransformedDistribution(
            dist.Normal(0, 1.5).expand([6]).to_event(1), transforms.OrderedTransform()
        ),
    )
    numpyro.sample("rating", dist.OrderedLogistic(x @ b, cutpoints), obs=rating)


def multinomial() -> Problem:
    """Simulate the choice among three careers, given an income."""
    rng = np.random.default_rng(108)
    income = features(rng, 500)
    logits = np.stack([0.5 + 0.8 * income, 0.2 - 0.5 * income, 0 * income], 1)
    career = np.argmax(logits + rng.gumbel(size=logits.shape), 1)
    return Problem("multinomial logit, 3 classes", multinomial_model, (income, career), ("a", "b"))


def multinomial_model(income, career=None):
    """Intercepts and slopes of two classes against the third."""
    a = numpyro.sample("a", dist.Normal(0, 1).expand([2]).to_event(1))
    b = numpyro.sample("b", dist.Normal(0, 1).expand([2]).to_event(1))
    scores = [a[k] + b[k] * income for k in range(2)] + [jnp.zeros_like(income)]
    p = jax.nn.softmax(jnp.stack(scores, axis=-1), axis=-1)
    with numpyro.plate("people", income.shape[0]):
        numpyro.sample("career", dist.Categorical(probs=p), obs=career)


def beta_regression() -> Problem:
    """Simulate proportions between 0 and 1."""
    rng = np.random.default_rng(109)
    x = features(rng, 150, 2)
    mean = 1 / (1 + np.exp(-(0.3 + x @ [0.5, -0.3])))
    y = np.clip(representable(rng.beta(12 * mean, 12 * (1 - mean))), 1e-4, 1 - 1e-4)
    return Problem("beta regression", beta_model, (x, y), ("intercept", "beta", "phi"))


def beta_model(x, y):
    """A beta distribution by mean and precision."""
    intercept = numpyro.sample("intercept", dist.Normal(0, 2))
    beta = numpyro.sample("beta", dist.Normal(0, 1).expand([x.shape[1]]).to_event(1))
    phi = numpyro.sample("phi", dist.Gamma(2, 0.1))
    mean = jax.nn.sigmoid(intercept + x @ beta)
    with numpyro.plate("N", y.shape[0]):
        numpyro.sample("y", dist.BetaProportion(mean, phi), obs=y)


def hurdle() -> Problem:
    """Simulate earnings, a third of which are zero."""
    rng = np.random.default_rng(110)
    x = features(rng, 400)
    earns = rng.random(400) < 1 / (1 + np.exp(-(0.8 + 0.5 * x)))
    amount = np.where(earns, np.exp(1 + 0.3 * x + 0.6 * rng.normal(size=400)), 0.0)
    sites = ("a", "b", "sigma")
    return Problem("hurdle, rows picked by y > 0", hurdle_model, (x, representable(amount)), sites)


def hurdle_model(x, y):
    """Whether y is positive, and the positive ones, which the model picks out of the data."""
    a = numpyro.sample("a", dist.Normal(0, 2).expand([2]))
    b = numpyro.sample("b", dist.Normal(0, 1).expand([2]))
    sigma = numpyro.sample("sigma", dist.Exponential(1))
    numpyro.sample("positive", dist.Bernoulli(logits=a[0] + b[0] * x), obs=(y > 0) * 1.0)
    chosen = y > 0
    mu = a[1] + b[1] * x[chosen]
    numpyro.sample("amount", dist.LogNormal(mu, sigma), obs=y[chosen])


def spline() -> Problem:
    """Simulate the day of first bloom over the years, with a basis of hat functions."""
    rng = np.random.default_rng(111)
    year = np.sort(rng.uniform(0, 1, 600))
    knots = np.linspace(0, 1, 12)
    basis = representable(np.maximum(0, 1 - np.abs(year[:, None] - knots) * 11))
    day = representable(105 + 4 * np.sin(7 * year) + 5 * rng.normal(size=600))
    return Problem("spline with 12 knots", spline_model, (basis, day), ("a", "w", "sigma"))


def spline_model(basis, day=None):
    """Weights of basis functions in a plate of their own."""
    a = numpyro.sample("a", dist.Normal(100, 10))
    with numpyro.plate("knots", basis.shape[1]):
        w = numpyro.sample("w", dist.Normal(0, 10))
    sigma = numpyro.sample("sigma", dist.Exponential(1))
    mu = numpyro.deterministic("mu", a + basis @ w)
    numpyro.sample("day", dist.Normal(mu, sigma), obs=day)


def polynomial() -> Problem:
    """Simulate a cubic curve."""
    rng = np.random.default_rng(112)
    x = representable(rng.uniform(-2, 2, 250))
    y = representable(1 + x - 0.5 * x**2 + 0.3 * x**3 + rng.normal(size=250))
    return Problem("polynomial of degree 3", polynomial_model, (x, y), ("b", "sigma"))


def polynomial_model(x, y):
    """Powers that a loop in the model adds up, with a scalar site for each coefficient."""
    b = numpyro.sample("b", dist.Normal(0, 3).expand([4]).to_event(1))
    sigma = numpyro.sample("sigma", dist.HalfNormal(2))
    mu = 0.0
    for power in range(4):
        mu = mu + b[power] * x**power
    with numpyro.plate("data", x.size):
        numpyro.sample("y", dist.Normal(mu, sigma), obs=y)


def ruggedness() -> Problem:
    """Simulate the wealth of nations by ruggedness, with another slope in Africa."""
    rng = np.random.default_rng(113)
    africa, rugged = rng.integers(0, 2, 170), representable(rng.gamma(1.2, 1.0, 170))
    gdp = representable(9 - 0.2 * rugged - 1.5 * africa + 0.4 * africa * rugged)
    gdp = representable(gdp + 0.9 * rng.normal(size=170))
    sites = ("a", "bR", "bA", "bAR", "sigma")
    data = (africa, rugged, gdp)
    return Problem("interaction of two features", ruggedness_model, data, sites)


def ruggedness_model(africa, rugged, gdp=None):
    """A slope that differs between two groups."""
    a = numpyro.sample("a", dist.Normal(0.0, 10.0))
    b_a = numpyro.sample("bA", dist.Normal(0.0, 1.0))
    b_r = numpyro.sample("bR", dist.Normal(0.0, 1.0))
    b_ar = numpyro.sample("bAR", dist.Normal(0.0, 1.0))
    sigma = numpyro.sample("sigma", dist.Uniform(0.0, 10.0))
    mu = a + b_a * africa + b_r * rugged + b_ar * africa * rugged
    numpyro.sample("gdp", dist.Normal(mu, sigma), obs=gdp)


def weighted() -> Problem:
    """Simulate a survey whose rows have weights."""
    rng = np.random.default_rng(114)
    x, weight = features(rng, 300, 2), representable(rng.gamma(3.0, 1 / 3.0, 300))
    y = binary(rng, 0.2 + x @ [0.7, -0.3])
    return Problem("weights by handlers.scale", weighted_model, (x, weight, y), ("a", "b"))


def weighted_model(x, weight, y):
    """Each row counts as often as its weight says."""
    a = numpyro.sample("a", dist.Normal(0, 2))
    b = numpyro.sample("b", dist.Normal(0, 2).expand([x.shape[1]]).to_event(1))
    with numpyro.plate("data", x.shape[0]), handlers.scale(scale=weight):
        numpyro.sample("y", dist.Bernoulli(logits=a + x @ b), obs=y)


def lasso() -> Problem:
    """Simulate a regression of which most coefficients are zero."""
    rng = np.random.default_rng(115)
    x = features(rng, 20_000, 15)
    y = representable(x[:, :3] @ [1.0, -0.5, 0.2] + rng.normal(size=20_000))
    return Problem("Laplace priors, 20 000 rows", lasso_model, (x, y), ("beta", "scale", "sigma"))


def lasso_model(x, y):
    """A Laplace prior whose scale is unknown, and conjugate-looking noise."""
    scale = numpyro.sample("scale", dist.HalfCauchy(1.0))
    beta = numpyro.sample("beta", dist.Laplace(0, scale).expand([x.shape[1]]).to_event(1))
    precision = numpyro.sample("precision", dist.Gamma(1.0, 1.0))
    sigma = numpyro.deterministic("sigma", 1 / jnp.sqrt(precision))
    with numpyro.plate("data", x.shape[0]):
        numpyro.sample("y", dist.Normal(x @ beta, sigma), obs=y)


REGRESSIONS = {
    function.__name__: function
    for function in (
        gaussian_regression,
        robust_regression,
        logistic_switch,
        poisson_offset,
        negative_binomial,
        zero_inflated_poisson,
        ordinal,
        multinomial,
        beta_regression,
        hurdle,
        spline,
        polynomial,
        ruggedness,
        weighted,
        lasso,
    )
}
