"""Posteriors of some hundred parameters whose density has no usable mode.

A scale that goes to zero takes its latents with it, and the density to infinity.
"""

import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
from numpyro.handlers import reparam
from numpyro.infer.reparam import LocScaleReparam

from sgworld_benchmarks.accuracy.problem import Problem, representable
from sgworld_benchmarks.models.simulate import binary

__all__ = ["WITHOUT_MODE"]


def many_errors() -> Problem:
    """Simulate a regression on 400 features that are measured with error."""
    rng = np.random.default_rng(801)
    true = rng.normal(2.0, 1.5, 400)
    x = representable(true + 0.8 * rng.normal(size=400))
    y = representable(1 + 0.7 * true + 0.5 * rng.normal(size=400))
    sites = ("mean", "spread", "a", "b", "sigma", "true")
    return Problem("measurement error, 400 rows", errors_model, (x, y), sites, acceptance=0.95)


def errors_model(x, y):
    """The mean and the spread of the true features, and the error of y, are unknown."""
    mean = numpyro.sample("mean", dist.Normal(0, 5))
    spread = numpyro.sample("spread", dist.HalfNormal(3))
    a = numpyro.sample("a", dist.Normal(0, 5))
    b = numpyro.sample("b", dist.Normal(0, 2))
    sigma = numpyro.sample("sigma", dist.HalfCauchy(1.0))
    with numpyro.plate("rows", len(y)):
        true = numpyro.sample("true", dist.Normal(mean, spread))
        numpyro.sample("x", dist.Normal(true, 0.8), obs=x)
        numpyro.sample("y", dist.Normal(a + b * true, sigma), obs=y)


def items_of_two_scales() -> Problem:
    """Simulate answers of 150 persons to 15 questions."""
    rng = np.random.default_rng(802)
    person, item = (index.ravel() for index in np.meshgrid(np.arange(150), np.arange(15)))
    slope, level = np.exp(0.3 * rng.normal(size=15)), 0.2 + rng.normal(size=15)
    answer = binary(rng, slope[item] * (rng.normal(size=150)[person] - level[item]))
    sites = ("mean", "sd_level", "sd_slope", "ability", "level", "log_slope")
    data = (person, item, answer)
    return Problem("item response, items with priors", items_model, data, sites, acceptance=0.95)


def items_model(person, item, answer):
    """The spreads of the questions' levels and slopes are unknown."""
    mean = numpyro.sample("mean", dist.Normal(0, 1))
    sd_level = numpyro.sample("sd_level", dist.HalfNormal(1))
    sd_slope = numpyro.sample("sd_slope", dist.HalfNormal(0.5))
    with numpyro.plate("persons", 150):
        ability = numpyro.sample("ability", dist.Normal(0, 1))
    with numpyro.plate("items", 15):
        level = numpyro.sample("level", dist.Normal(mean, sd_level))
        log_slope = numpyro.sample("log_slope", dist.Normal(0, sd_slope))
    logits = jnp.exp(log_slope)[item] * (ability[person] - level[item])
    with numpyro.plate("answers", len(answer)):
        numpyro.sample("answer", dist.Bernoulli(logits=logits), obs=answer)


def slopes_centred() -> Problem:
    """Simulate intercepts and slopes of 40 counties with ten houses each."""
    rng = np.random.default_rng(803)
    county, floor = np.repeat(np.arange(40), 10), (rng.random(400) < 0.3).astype(float)
    level, step = rng.normal(1.3, 0.35, 40), rng.normal(-0.7, 0.3, 40)
    y = representable(level[county] + step[county] * floor + 0.75 * rng.normal(size=400))
    sites = ("mean", "spread", "a", "b", "sigma")
    data = (county, floor, y)
    config = {"a": LocScaleReparam(0.0), "b": LocScaleReparam(0.0)}
    suits_nuts = reparam(slopes_model, config=config)
    return Problem(
        "varying slopes, centred", slopes_model, data, sites, None, suits_nuts, acceptance=0.95
    )


def slopes_model(county, floor, y):
    """Both coefficients of a county are drawn around the mean of all counties."""
    mean = numpyro.sample("mean", dist.Normal(0, 5).expand([2]).to_event(1))
    spread = numpyro.sample("spread", dist.HalfCauchy(1).expand([2]).to_event(1))
    sigma = numpyro.sample("sigma", dist.HalfCauchy(1))
    with numpyro.plate("counties", 40):
        a = numpyro.sample("a", dist.Normal(mean[0], spread[0]))
        b = numpyro.sample("b", dist.Normal(mean[1], spread[1]))
    with numpyro.plate("houses", len(y)):
        numpyro.sample("y", dist.Normal(a[county] + b[county] * floor, sigma), obs=y)


WITHOUT_MODE = {
    function.__name__: function for function in (many_errors, items_of_two_scales, slopes_centred)
}
