"""Ways of writing a model that are common and not what a library expects."""

import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
from numpyro import handlers
from numpyro.distributions import constraints

from sgworld_benchmarks.accuracy.problem import Problem, representable
from sgworld_benchmarks.models.simulate import binary, features
from sgworld_benchmarks.models.straight_line import LINE, line, line_parameters, straight_line
from sgworld_benchmarks.models.unusual_arguments import (
    closed_over,
    closed_over_features,
    conditioned,
    data_frame,
    dictionary,
    keywords_only,
    masked_gaps,
    method_of_class,
    partial_arguments,
    prior_as_long_as_data,
    python_lists,
    two_groups,
)

__all__ = ["UNUSUAL"]


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


def plate_of_indices() -> Problem:
    """Take the rows in a plate by the indices that it returns."""
    x, y = line(827)
    title = "indices of a full plate"
    return Problem(title, indices_model, (x, y), LINE, reference_model=straight_line)


def indices_model(x, y):
    """The plate has all rows, and its indices are all of them."""
    a, b, sigma = line_parameters()
    with numpyro.plate("data", 250) as index:
        numpyro.sample("y", dist.Normal(a + b * x[index], sigma), obs=y[index])


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


def normal_groups(group, y, num_groups):
    """Means of groups around a common one."""
    mu = numpyro.sample("mu", dist.Normal(0, 5))
    tau = numpyro.sample("tau", dist.HalfNormal(2))
    sigma = numpyro.sample("sigma", dist.HalfNormal(2))
    with numpyro.plate("groups", num_groups):
        effect = numpyro.sample("effect", dist.Normal(mu, tau))
    with numpyro.plate("data", y.shape[0]):
        numpyro.sample("y", dist.Normal(effect[group], sigma), obs=y)


def groups(seed):
    """Simulate rows of twelve groups."""
    rng = np.random.default_rng(seed)
    group = rng.permutation(np.arange(500) % 12)
    return group, representable(rng.normal(1, 0.8, 12)[group] + rng.normal(size=500))


# The order decides the models' random keys.
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
