"""Ways of giving a model its data that are common and not what a library expects."""

from functools import partial

import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
from numpyro import handlers

from sgworld_benchmarks.accuracy.problem import Problem, representable
from sgworld_benchmarks.models.simulate import features
from sgworld_benchmarks.models.straight_line import LINE, line, line_parameters, straight_line

__all__ = [
    "closed_over",
    "closed_over_features",
    "conditioned",
    "data_frame",
    "dictionary",
    "keywords_only",
    "masked_gaps",
    "method_of_class",
    "partial_arguments",
    "prior_as_long_as_data",
    "python_lists",
    "two_groups",
]


def closed_over() -> Problem:
    """Give the model all of its data by closure, so that `run` has no arguments."""
    x, y = line(801)

    def model():
        """A line through data of the enclosing function."""
        straight_line(x, y)

    return Problem("closed-over data, no arguments", model, (), LINE)


def closed_over_features() -> Problem:
    """Give the model its features by closure, and the outcomes as an argument."""
    x, y = line(802)

    def model(y=None):
        """A line through a closed-over feature."""
        straight_line(x, y)

    return Problem("closed-over features", model, (y,), LINE)


def conditioned() -> Problem:
    """Put the outcomes into the model with `handlers.condition`."""
    x, y = line(803)
    return Problem("handlers.condition", handlers.condition(straight_line, {"y": y}), (x,), LINE)


def partial_arguments() -> Problem:
    """Bind the feature with functools.partial, and give the outcome by keyword."""
    x, y = line(804)
    model = partial(straight_line, x)
    return Problem("functools.partial", model, (), LINE, keywords={"y": y})


def method_of_class() -> Problem:
    """Write the model as a method of an object that holds the data."""
    x, y = line(805)
    return Problem("method of an object with data", Experiment(x, y).model, (), LINE)


class Experiment:
    """An experiment that knows its data."""

    def __init__(self, x, y):
        self.x, self.y = x, y

    def model(self):
        """A line through the object's data."""
        straight_line(self.x, self.y)


def dictionary() -> Problem:
    """Give the model one dictionary of arrays and numbers."""
    x, y = line(814)
    data = {"x": x, "y": y, "N": len(y), "prior_scale": 5.0}
    return Problem("one dictionary as argument", dictionary_model, (data,), LINE)


def dictionary_model(data):
    """Stan's way: everything by name, with the number of rows."""
    a = numpyro.sample("a", dist.Normal(0, data["prior_scale"]))
    b = numpyro.sample("b", dist.Normal(0, data["prior_scale"]))
    sigma = numpyro.sample("sigma", dist.HalfNormal(2))
    with numpyro.plate("data", data["N"]):
        numpyro.sample("y", dist.Normal(a + b * data["x"], sigma), obs=data["y"])


def keywords_only() -> Problem:
    """Give all arguments by keyword, some of them with defaults."""
    x, y = line(815)
    keywords = {"x": x, "y": y, "degree": 1}
    return Problem("keyword arguments", keywords_model, (), LINE, keywords=keywords)


def keywords_model(*, x, y=None, degree=2, prior_scale=5.0):
    """Which of two terms there are depends on a number."""
    if y is not None:
        assert x.shape[0] == y.shape[0]
    a = numpyro.sample("a", dist.Normal(0, prior_scale))
    b = numpyro.sample("b", dist.Normal(0, prior_scale))
    mu = a + b * x
    if degree > 1:
        mu = mu + numpyro.sample("c", dist.Normal(0, prior_scale)) * x**2
    sigma = numpyro.sample("sigma", dist.HalfNormal(2))
    numpyro.sample("y", dist.Normal(mu, sigma), obs=y)


def two_groups() -> Problem:
    """Compare two groups of different size, each an array of its own."""
    rng = np.random.default_rng(824)
    drug = representable(101 + 2 * rng.standard_t(4, 47))
    placebo = representable(100 + 1.5 * rng.standard_t(4, 42))
    sites = ("mu", "sigma", "nu", "difference")
    title = "two arrays of different length"
    return Problem(title, two_groups_model, (drug, placebo), sites)


def two_groups_model(drug, placebo):
    """Kruschke's robust comparison of two groups."""
    mu = numpyro.sample("mu", dist.Normal(100, 10).expand([2]).to_event(1))
    sigma = numpyro.sample("sigma", dist.Uniform(0.1, 20).expand([2]).to_event(1))
    nu = 1 + numpyro.sample("nu_minus_one", dist.Exponential(1 / 29.0))
    numpyro.deterministic("nu", nu)
    numpyro.deterministic("difference", mu[0] - mu[1])
    numpyro.sample("drug", dist.StudentT(nu, mu[0], sigma[0]), obs=drug)
    numpyro.sample("placebo", dist.StudentT(nu, mu[1], sigma[1]), obs=placebo)


def python_lists() -> Problem:
    """Give the data as lists of Python numbers."""
    x, y = line(825, 60)
    return Problem("lists of numbers", lists_model, (x.tolist(), y.tolist()), LINE)


def lists_model(x, y):
    """The model makes arrays of its arguments."""
    straight_line(jnp.array(x), jnp.array(y))


def data_frame() -> Problem:
    """Give the data as a table of pandas."""
    import pandas  # it comes with ArviZ, and only this model needs it

    x, y = line(826)
    return Problem("pandas table", frame_model, (pandas.DataFrame({"x": x, "y": y}),), LINE)


def frame_model(table):
    """The model takes columns of the table."""
    straight_line(table["x"].values, table["y"].values)


def prior_as_long_as_data() -> Problem:
    """Give prior means as an array that happens to be as long as the data."""
    rng = np.random.default_rng(828)
    x = features(rng, 20, 20) + np.eye(20)
    y = representable(x @ np.full(20, 0.3) + rng.normal(size=20))
    data = (x, y, np.zeros(20))
    return Problem("as many coefficients as rows", square_model, data, ("beta", "sigma"))


def square_model(x, y, prior_mean):
    """Twenty coefficients and twenty rows."""
    beta = numpyro.sample("beta", dist.Normal(prior_mean, 1.0).to_event(1))
    sigma = numpyro.sample("sigma", dist.LogNormal(0, 0.3))
    numpyro.sample("y", dist.Normal(x @ beta, sigma), obs=y)


def masked_gaps() -> Problem:
    """Mask missing outcomes."""
    rng = np.random.default_rng(823)
    x, y = line(823)
    seen = rng.random(len(y)) < 0.8
    return Problem("missing outcomes masked", masked_model, (x, y, seen), LINE)


def masked_model(x, y, seen):
    """Rows that are not seen have no weight."""
    a, b, sigma = line_parameters()
    with numpyro.plate("data", len(y)), handlers.mask(mask=seen):
        numpyro.sample("y", dist.Normal(a + b * x, sigma), obs=y)
