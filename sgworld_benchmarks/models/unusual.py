"""Ways of writing a model that are common and not what a library expects."""

from functools import partial

import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
from numpyro import handlers
from numpyro.distributions import constraints

from sgworld_benchmarks.accuracy.problem import Problem, representable
from sgworld_benchmarks.models.simulate import binary, features

__all__ = ["UNUSUAL"]


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


def subsample() -> Problem:
    """Ask for minibatches in the model itself, by `subsample_size` and the plate's indices."""
    x, y = line(806, 2000)
    title = "plate with subsample_size"
    return Problem(title, subsample_model, (x, y), LINE, reference_model=straight_line)


def subsample_model(x, y):
    """A tenth of the rows in each evaluation."""
    a, b, sigma = line_parameters()
    with numpyro.plate("data", x.shape[0], subsample_size=200) as index:
        numpyro.sample("y", dist.Normal(a + b * x[index], sigma), obs=y[index])


def subsample_primitive() -> Problem:
    """Ask for minibatches with `numpyro.subsample`."""
    x, y = line(807, 2000)
    title = "numpyro.subsample"
    return Problem(title, primitive_model, (x, y), LINE, reference_model=straight_line)


def primitive_model(x, y):
    """The plate picks the rows of both arrays."""
    a, b, sigma = line_parameters()
    with numpyro.plate("data", len(x), subsample_size=100):
        batch_x, batch_y = numpyro.subsample(x, event_dim=0), numpyro.subsample(y, event_dim=0)
        numpyro.sample("y", dist.Normal(a + b * batch_x, sigma), obs=batch_y)


def factor_likelihood() -> Problem:
    """Write the whole likelihood as one numpyro.factor with a sum."""
    x, y = line(808)
    return Problem("factor of a sum", factor_model, (x, y), LINE)


def factor_model(x, y):
    """A scalar factor, from which rows cannot be told."""
    a, b, sigma = line_parameters()
    log_density = -0.5 * jnp.sum(((y - a - b * x) / sigma) ** 2) - len(y) * jnp.log(sigma)
    numpyro.factor("log_likelihood", log_density)


def to_event_rows() -> Problem:
    """Declare all rows as one event."""
    x, y = line(809)
    return Problem("rows by to_event(1)", event_model, (x, y), LINE)


def event_model(x, y):
    """The log density of the observed site is one number."""
    a, b, sigma = line_parameters()
    numpyro.sample("y", dist.Normal(a + b * x, sigma).to_event(1), obs=y)


def loop_of_sites() -> Problem:
    """Sample every row by a site of its own, in a Python loop."""
    x, y = line(810, 50)
    return Problem("a site for each row", loop_model, (x, y), LINE)


def loop_model(x, y):
    """Fifty observed sites."""
    a, b, sigma = line_parameters()
    for i in range(len(y)):
        numpyro.sample(f"y_{i}", dist.Normal(a + b * x[i], sigma), obs=y[i])


def scoped() -> Problem:
    """Use one submodel twice, by `handlers.scope`."""
    (x, y), (u, v) = line(811, 300), line(812, 300)
    sites = ("first/a", "first/b", "second/sigma")
    return Problem("handlers.scope, twice", scoped_model, (x, y, u, v), sites)


def scoped_model(x, y, u, v):
    """Two independent lines."""
    for prefix, data in (("first", (x, y)), ("second", (u, v))):
        handlers.scope(straight_line, prefix)(*data)


def plate_stack() -> Problem:
    """Observe a table in a stack of two plates."""
    rng = np.random.default_rng(813)
    y = representable(
        rng.normal(size=(60, 1)) * 0 + [1.0, 2.0, 0.0, -1.0] + rng.normal(size=(60, 4))
    )
    return Problem("numpyro.plate_stack", stack_model, (y,), ("mu", "sigma"))


def stack_model(y):
    """A mean for each column."""
    mu = numpyro.sample("mu", dist.Normal(0, 3).expand([y.shape[1]]).to_event(1))
    sigma = numpyro.sample("sigma", dist.HalfNormal(2))
    with numpyro.plate_stack("cells", y.shape):
        numpyro.sample("y", dist.Normal(mu, sigma), obs=y)


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


def groups_by_maximum() -> Problem:
    """Count the groups in the model by their largest number."""
    sites = ("mu", "tau", "effect", "sigma")
    return Problem("int(group.max()) + 1", maximum_model, groups(816), sites)


def maximum_model(group, y):
    """The number of latent values is taken from the data."""
    normal_groups(group, y, int(group.max()) + 1)


def groups_by_unique() -> Problem:
    """Count the groups in the model with np.unique."""
    sites = ("mu", "tau", "effect", "sigma")
    return Problem("len(np.unique(group))", unique_model, groups(817), sites)


def unique_model(group, y):
    """The number of latent values is the number of different values."""
    normal_groups(group, y, len(np.unique(group)))


def standardised_inside() -> Problem:
    """Standardise the feature in the model."""
    x, y = line(818)
    return Problem("standardising in the model", standardised_model, (10 + 3 * x, y), LINE)


def standardised_model(x, y):
    """Mean and standard deviation are those of the rows that the model is given."""
    straight_line((x - x.mean()) / x.std(), y)


def priors_from_data() -> Problem:
    """Scale the outcome and the prior by the outcome's own spread."""
    x, y = line(819)
    return Problem("priors from the data", scaled_prior_model, (x, 20 + 5 * y), LINE)


def scaled_prior_model(x, y):
    """Weakly informative priors in units of the data, as some packages choose by default."""
    a = numpyro.sample("a", dist.Normal(y.mean(), 2.5 * y.std()))
    b = numpyro.sample("b", dist.Normal(0, 2.5 * y.std() / x.std()))
    sigma = numpyro.sample("sigma", dist.Exponential(1 / y.std()))
    numpyro.sample("y", dist.Normal(a + b * x, sigma), obs=y)


def numpy_inside() -> Problem:
    """Prepare the data with NumPy in the model."""
    x, y = line(820)
    return Problem("np.log and np.asarray inside", numpy_model, (np.exp(x), y), LINE)


def numpy_model(x, y):
    """NumPy rather than jax.numpy."""
    log_x = np.log(np.asarray(x))
    design = np.column_stack([np.ones(len(y)), log_x])
    a, b, sigma = line_parameters()
    numpyro.sample("y", dist.Normal(jnp.dot(design, jnp.array([a, b])), sigma), obs=y)


def deterministic_rows() -> Problem:
    """Keep fitted values and residuals of all rows."""
    x, y = line(821, 200)
    return Problem("deterministic sites by row", fitted_model, (x, y), (*LINE, "fitted"))


def fitted_model(x, y):
    """Two deterministic sites with a value for each row."""
    a, b, sigma = line_parameters()
    fitted = numpyro.deterministic("fitted", a + b * x)
    numpyro.deterministic("residual", (y - fitted) / sigma)
    numpyro.sample("y", dist.Normal(fitted, sigma), obs=y)


def improper_ordered() -> Problem:
    """Give ordered cutpoints an improper prior."""
    rng = np.random.default_rng(822)
    x = features(rng, 400)
    y = np.digitize(0.8 * x + rng.logistic(size=400), [-1.0, 0.5, 2.0])
    return Problem("ImproperUniform, ordered", improper_model, (x, y), ("b", "cutpoints"))


def improper_model(x, y):
    """Flat over all ordered vectors."""
    b = numpyro.sample("b", dist.ImproperUniform(constraints.real, (), ()))
    ordered = dist.ImproperUniform(constraints.ordered_vector, (), event_shape=(3,))
    cutpoints = numpyro.sample("cutpoints", ordered)
    numpyro.sample("y", dist.OrderedLogistic(b * x, cutpoints), obs=y)


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


def plate_of_indices() -> Problem:
    """Take the rows in a plate by the indices that it returns."""
    x, y = line(827)
    return Problem("indices of a full plate", indices_model, (x, y), LINE)


def indices_model(x, y):
    """The plate has all rows, and its indices are all of them."""
    a, b, sigma = line_parameters()
    with numpyro.plate("data", 250) as index:
        numpyro.sample("y", dist.Normal(a + b * x[index], sigma), obs=y[index])


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


def branch_on_data() -> Problem:
    """Choose the likelihood by a look at the data."""
    rng = np.random.default_rng(829)
    x = features(rng, 300)
    return Problem("if (y > 1).any()", branch_model, (x, binary(rng, 0.3 + x)), ("a", "b"))


def branch_model(x, y):
    """Counts are Poisson, and zeros and ones are Bernoulli."""
    a = numpyro.sample("a", dist.Normal(0, 2))
    b = numpyro.sample("b", dist.Normal(0, 2))
    if (y > 1).any():
        numpyro.sample("y", dist.Poisson(jnp.exp(a + b * x)), obs=y)
    else:
        numpyro.sample("y", dist.Bernoulli(logits=a + b * x), obs=y)


LINE = ("a", "b", "sigma")


def straight_line(x, y=None):
    """A straight line with normal errors."""
    a, b, sigma = line_parameters()
    with numpyro.plate("data", len(x)):
        numpyro.sample("y", dist.Normal(a + b * x, sigma), obs=y)


def line_parameters():
    """Sample intercept, slope and noise."""
    a = numpyro.sample("a", dist.Normal(0, 5))
    b = numpyro.sample("b", dist.Normal(0, 5))
    return a, b, numpyro.sample("sigma", dist.HalfNormal(2))


def normal_groups(group, y, num_groups):
    """Means of groups around a common one."""
    mu = numpyro.sample("mu", dist.Normal(0, 5))
    tau = numpyro.sample("tau", dist.HalfNormal(2))
    sigma = numpyro.sample("sigma", dist.HalfNormal(2))
    with numpyro.plate("groups", num_groups):
        effect = numpyro.sample("effect", dist.Normal(mu, tau))
    with numpyro.plate("data", y.shape[0]):
        numpyro.sample("y", dist.Normal(effect[group], sigma), obs=y)


def line(seed, size=250):
    """Simulate a feature and an outcome."""
    rng = np.random.default_rng(seed)
    x = features(rng, size)
    return x, representable(1 + 0.7 * x + 0.8 * rng.normal(size=size))


def groups(seed):
    """Simulate rows of twelve groups."""
    rng = np.random.default_rng(seed)
    group = rng.permutation(np.arange(500) % 12)
    return group, representable(rng.normal(1, 0.8, 12)[group] + rng.normal(size=500))


UNUSUAL = {
    function.__name__: function
    for function in (
        closed_over,
        closed_over_features,
        conditioned,
        partial_arguments,
        method_of_class,
        subsample,
        subsample_primitive,
        factor_likelihood,
        to_event_rows,
        loop_of_sites,
        scoped,
        plate_stack,
        dictionary,
        keywords_only,
        groups_by_maximum,
        groups_by_unique,
        standardised_inside,
        priors_from_data,
        numpy_inside,
        deterministic_rows,
        improper_ordered,
        masked_gaps,
        two_groups,
        python_lists,
        data_frame,
        plate_of_indices,
        prior_as_long_as_data,
        branch_on_data,
    )
}
