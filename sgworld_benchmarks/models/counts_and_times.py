"""Survival times, censored data and aggregated counts, as textbooks write them."""

import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist

from sgworld_benchmarks.accuracy.problem import Problem, representable
from sgworld_benchmarks.models.simulate import features

__all__ = ["COUNTS_AND_TIMES"]


def weibull_survival() -> Problem:
    """Simulate survival times in two treatments, some of them censored at time 3."""
    rng = np.random.default_rng(201)
    treated = rng.integers(0, 2, 300).astype(float)
    time = np.exp(0.5 + 0.4 * treated) * rng.weibull(1.5, 300)
    event = (time < 3).astype(float)
    data = (treated, representable(np.minimum(time, 3)), event)
    return Problem("Weibull survival, censored", weibull_model, data, ("a", "b", "shape"))


def weibull_model(treated, time, event):
    """Log density of events and log survival of the censored, by numpyro.factor."""
    a = numpyro.sample("a", dist.Normal(0, 2))
    b = numpyro.sample("b", dist.Normal(0, 1))
    shape = numpyro.sample("shape", dist.Gamma(2, 1))
    scale = jnp.exp(a + b * treated)
    log_hazard = jnp.log(shape / scale) + (shape - 1) * jnp.log(time / scale)
    cumulative = (time / scale) ** shape
    with numpyro.plate("patients", time.shape[0]):
        numpyro.factor("survival", event * log_hazard - cumulative)


def adoption() -> Problem:
    """Simulate days until cats of two colours are adopted, or leave otherwise."""
    rng = np.random.default_rng(202)
    colour = rng.integers(0, 2, 1000)
    time, left = rng.exponential(np.array([50.0, 40.0])[colour]), rng.exponential(90.0, 1000)
    adopted = (time < left).astype(int)
    data = (colour, representable(np.minimum(time, left) + 0.01), adopted)
    return Problem("exponential times, censored", adoption_model, data, ("a", "days"))


def adoption_model(colour, days_to_event, adopted):
    """An observed and a censored part, each with half of the rows masked out."""
    a = numpyro.sample("a", dist.Normal(0, 1).expand([2]))
    numpyro.deterministic("days", jnp.exp(4 + a))
    rate = jnp.exp(-4 - a[colour])
    with numpyro.plate("cats", len(colour)):
        with numpyro.handlers.mask(mask=adopted == 1):
            numpyro.sample("event", dist.Exponential(rate), obs=days_to_event)
        with numpyro.handlers.mask(mask=adopted == 0):
            numpyro.factor("censored", -rate * days_to_event)


def tobit() -> Problem:
    """Simulate measurements of which those below a limit are only known to be there."""
    rng = np.random.default_rng(203)
    x = features(rng, 250)
    y = representable(np.maximum(0.5 + x + rng.normal(size=250), 0.0))
    return Problem("normal, censored from below", tobit_model, (x, y), ("a", "b", "sigma"))


def tobit_model(x, y):
    """The limit's rows contribute their probability."""
    a = numpyro.sample("a", dist.Normal(0, 2))
    b = numpyro.sample("b", dist.Normal(0, 2))
    sigma = numpyro.sample("sigma", dist.HalfNormal(2))
    normal = dist.Normal(a + b * x, sigma)
    log_density = jnp.where(y > 0, normal.log_prob(y), jnp.log(normal.cdf(0.0)))
    numpyro.factor("likelihood", log_density.sum())


def truncated_observations() -> Problem:
    """Simulate normal rows of which only those above a limit are seen."""
    rng = np.random.default_rng(204)
    y = rng.normal(1.0, 1.0, 2000)
    y = representable(y[y > 0.5][:600])
    return Problem("truncated normal rows", truncated_model, (y,), ("mu", "sigma"))


def truncated_model(y):
    """A truncated normal likelihood, and a truncated normal prior."""
    mu = numpyro.sample("mu", dist.TruncatedNormal(1.0, 1.0, low=0.0, high=3.0))
    sigma = numpyro.sample("sigma", dist.TruncatedNormal(1.0, 0.5, low=0.1))
    with numpyro.plate("rows", y.shape[0]):
        numpyro.sample("y", dist.TruncatedNormal(mu, sigma, low=0.5), obs=y)


def admissions() -> Problem:
    """Simulate admissions to twelve departments, as counts out of applications."""
    rng = np.random.default_rng(205)
    gender, department = np.arange(12) % 2, np.arange(12) // 2
    applications = rng.integers(20, 600, 12)
    logits = np.array([0.6, 0.5, -0.5, -0.6, -1.0, -2.5])[department] + 0.1 * gender
    admitted = rng.binomial(applications, 1 / (1 + np.exp(-logits)))
    data = (gender, department, applications, admitted)
    title = "binomial counts, 12 rows"
    return Problem(title, admissions_model, data, ("a", "delta"))


def admissions_model(gender, department, applications, admitted=None):
    """An effect of gender and one for each department."""
    a = numpyro.sample("a", dist.Normal(0, 0.5))
    delta = numpyro.sample("delta", dist.Normal(0, 1.5).expand([6]))
    logits = a * gender + delta[department]
    with numpyro.plate("rows", gender.shape[0]):
        numpyro.sample("admitted", dist.Binomial(applications, logits=logits), obs=admitted)


def beta_binomial() -> Problem:
    """Simulate counts that vary more than binomial ones."""
    rng = np.random.default_rng(206)
    gender, total = rng.integers(0, 2, 60), rng.integers(10, 80, 60)
    p = rng.beta(np.array([3.0, 4.0])[gender], 5.0)
    admitted = rng.binomial(total, p)
    data = (gender, total, admitted)
    return Problem("beta-binomial counts", beta_binomial_model, data, ("a", "theta"))


def beta_binomial_model(gender, total, admitted):
    """Mean by gender, and a concentration above two."""
    a = numpyro.sample("a", dist.Normal(0, 1.5).expand([2]))
    phi = numpyro.sample("phi", dist.Exponential(1))
    theta = numpyro.deterministic("theta", phi + 2)
    mean = 1 / (1 + jnp.exp(-a[gender]))
    numpyro.sample(
        "admitted", dist.BetaBinomial(mean * theta, (1 - mean) * theta, total), obs=admitted
    )


def globe() -> Problem:
    """Six times water in nine tosses of a globe, as two Python numbers."""
    return Problem("9 tosses, Python numbers", globe_model, (6, 3), ("p",))


def globe_model(water, land):
    """One observation, which is no array."""
    p = numpyro.sample("p", dist.Uniform(0, 1))
    numpyro.sample("water", dist.Binomial(water + land, p), obs=water)


def two_proportions() -> Problem:
    """Successes and trials of two variants, as two pairs of Python numbers."""
    return Problem("A/B test, Python numbers", variants_model, (41, 480, 62, 495), ("lift",))


def variants_model(successes_a, trials_a, successes_b, trials_b):
    """Two rates and their difference."""
    rate_a = numpyro.sample("rate_a", dist.Beta(1, 1))
    rate_b = numpyro.sample("rate_b", dist.Beta(1, 1))
    numpyro.deterministic("lift", rate_b - rate_a)
    numpyro.sample("a", dist.Binomial(trials_a, rate_a), obs=successes_a)
    numpyro.sample("b", dist.Binomial(trials_b, rate_b), obs=successes_b)


def bioassay() -> Problem:
    """Deaths among five animals at each of four doses."""
    dose = np.array([-0.86, -0.30, -0.05, 0.73])
    data = (dose, np.full(4, 5), np.array([0, 1, 3, 5]))
    return Problem("bioassay, 4 rows", bioassay_model, data, ("alpha", "beta"))


def bioassay_model(dose, animals, deaths):
    """A logistic dose response with a correlated prior."""
    covariance = jnp.array([[4.0, 10.0], [10.0, 100.0]])
    theta = numpyro.sample("theta", dist.MultivariateNormal(jnp.array([0.0, 10.0]), covariance))
    alpha = numpyro.deterministic("alpha", theta[0])
    beta = numpyro.deterministic("beta", theta[1])
    numpyro.sample("deaths", dist.Binomial(animals, logits=alpha + beta * dose), obs=deaths)


def dose_response() -> Problem:
    """Simulate a response that falls from one level to another as the dose grows."""
    rng = np.random.default_rng(207)
    log_dose = representable(np.repeat(np.linspace(-3, 3, 12), 6))
    mean = 0.1 + 0.8 / (1 + np.exp(1.5 * (log_dose - 0.4)))
    response = representable(mean + 0.05 * rng.normal(size=72))
    sites = ("top", "bottom", "slope", "middle", "sigma")
    return Problem("dose response", response_model, (log_dose, response), sites)


def response_model(log_dose, response):
    """A logistic curve with four parameters."""
    top = numpyro.sample("top", dist.Normal(1, 0.5))
    bottom = numpyro.sample("bottom", dist.Normal(0, 0.5))
    slope = numpyro.sample("slope", dist.LogNormal(0, 1))
    middle = numpyro.sample("middle", dist.Normal(0, 2))
    sigma = numpyro.sample("sigma", dist.HalfNormal(0.5))
    mean = bottom + (top - bottom) / (1 + jnp.exp(slope * (log_dose - middle)))
    with numpyro.plate("wells", log_dose.shape[0]):
        numpyro.sample("response", dist.Normal(mean, sigma), obs=response)


COUNTS_AND_TIMES = {
    function.__name__: function
    for function in (
        weibull_survival,
        adoption,
        tobit,
        truncated_observations,
        admissions,
        beta_binomial,
        globe,
        two_proportions,
        bioassay,
        dose_response,
    )
}
