"""Time series, whose rows depend on those before them."""

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
from jax.experimental.ode import odeint
from jax.scipy.special import logsumexp
from numpyro.contrib.control_flow import scan

from sgworld_benchmarks.accuracy.problem import Problem, representable

__all__ = ["TIME_SERIES"]


def ar1() -> Problem:
    """Simulate an autoregression of first order."""
    rng = np.random.default_rng(501)
    y = recursion(rng, 300, lambda y: 0.5 + 0.7 * y, 0.8)
    return Problem("AR(1), y[1:] given y[:-1]", ar1_model, (y,), ("alpha", "beta", "sigma"))


def ar1_model(y):
    """The series is its own feature, shifted by one."""
    alpha = numpyro.sample("alpha", dist.Normal(0, 2))
    beta = numpyro.sample("beta", dist.Uniform(-1, 1))
    sigma = numpyro.sample("sigma", dist.HalfNormal(2))
    numpyro.sample("y", dist.Normal(alpha + beta * y[:-1], sigma), obs=y[1:])


def ar2_scan() -> Problem:
    """Simulate an autoregression, which the model runs through step by step."""
    rng = np.random.default_rng(502)
    y = recursion(rng, 200, lambda y: 0.2 + 0.6 * y, 1.0)
    return Problem("AR(2) by scan", ar2_model, (y,), ("const", "alpha", "sigma"))


def ar2_model(y):
    """A scan whose state is the last two values."""
    const = numpyro.sample("const", dist.Normal(0, 1))
    alpha = numpyro.sample("alpha", dist.Normal(0, 1).expand([2]).to_event(1))
    sigma = numpyro.sample("sigma", dist.HalfNormal(1))

    def transition(carry, value):
        mean = const + alpha[0] * carry[0] + alpha[1] * carry[1]
        numpyro.sample("y", dist.Normal(mean, sigma), obs=value)
        return (value, carry[0]), None

    scan(transition, (y[1], y[0]), y[2:])


def local_level() -> Problem:
    """Simulate a random walk that is seen with noise."""
    rng = np.random.default_rng(503)
    y = representable(np.cumsum(0.4 * rng.normal(size=100)) + rng.normal(size=100))
    sites = ("tau", "sigma", "level")
    return Problem("local level, latent by scan", level_model, (y,), sites, draws=9000)


def level_model(y):
    """A latent level for each time, sampled inside a scan."""
    tau = numpyro.sample("tau", dist.HalfNormal(1))
    sigma = numpyro.sample("sigma", dist.HalfNormal(2))

    def transition(level, value):
        level = numpyro.sample("level", dist.Normal(level, tau))
        numpyro.sample("y", dist.Normal(level, sigma), obs=value)
        return level, None

    scan(transition, 0.0, jnp.asarray(y))


def stochastic_volatility() -> Problem:
    """Simulate returns whose volatility is a random walk."""
    rng = np.random.default_rng(504)
    s = np.cumsum(0.15 * rng.normal(size=200)) - 0.5
    returns = representable(np.exp(s) * rng.standard_t(10, 200))
    sites = ("sigma", "nu", "s")
    title = "stochastic volatility"
    return Problem(title, volatility_model, (returns,), sites, draws=2000, warmup=1000)


def volatility_model(returns):
    """A Gaussian random walk as one latent site with as many values as rows."""
    sigma = numpyro.sample("sigma", dist.Exponential(10.0))
    nu = numpyro.sample("nu", dist.Exponential(0.1))
    s = numpyro.sample("s", dist.GaussianRandomWalk(scale=sigma, num_steps=returns.shape[0]))
    numpyro.sample("returns", dist.StudentT(nu, 0.0, jnp.exp(s)), obs=returns)


def random_walk_noncentred() -> Problem:
    """Simulate a slow trend of counts."""
    rng = np.random.default_rng(505)
    y = rng.poisson(np.exp(1.5 + np.cumsum(0.15 * rng.normal(size=80))))
    sites = ("start", "tau", "trend")
    return Problem("trend by cumsum, non-centred", trend_model, (y,), sites)


def trend_model(y):
    """Standard normal steps in a plate, added up by the model."""
    start = numpyro.sample("start", dist.Normal(0, 2))
    tau = numpyro.sample("tau", dist.HalfNormal(0.5))
    with numpyro.plate("steps", y.shape[0]):
        z = numpyro.sample("z", dist.Normal(0, 1))
    trend = numpyro.deterministic("trend", start + tau * jnp.cumsum(z))
    with numpyro.plate("times", y.shape[0]):
        numpyro.sample("y", dist.Poisson(jnp.exp(trend)), obs=y)


def smoothing() -> Problem:
    """Simulate a series with a level that is smoothed exponentially."""
    rng = np.random.default_rng(506)
    time = np.arange(144)
    y = representable(5 + 0.05 * time + np.sin(time * np.pi / 6) + 0.4 * rng.normal(size=144))
    sites = ("smoothing", "noise", "season")
    return Problem("Holt-Winters by lax.scan", smoothing_model, (y,), sites)


def smoothing_model(y):
    """Level and trend follow from the data by a recursion; the season is a vector of twelve."""
    rates = numpyro.sample("smoothing", dist.Beta(2, 5).expand([2]).to_event(1))
    noise = numpyro.sample("noise", dist.HalfNormal(1))
    season = numpyro.sample("season", dist.Normal(0, 1).expand([12]).to_event(1))
    seasonal = season[jnp.arange(y.shape[0]) % 12]

    def step(carry, values):
        level, trend = carry
        value, part = values
        new = rates[0] * (value - part) + (1 - rates[0]) * (level + trend)
        return (new, rates[1] * (new - level) + (1 - rates[1]) * trend), level + trend + part

    _, mean = jax.lax.scan(step, (5.0 + 0 * noise, 0 * noise), (y, seasonal))
    numpyro.sample("y", dist.Normal(mean, noise), obs=y)


def seasonal() -> Problem:
    """Simulate daily values with a trend and a yearly cycle."""
    rng = np.random.default_rng(507)
    t = representable(np.arange(730) / 365)
    y = representable(2 + 0.3 * t + np.sin(2 * np.pi * t) + 0.5 * rng.normal(size=730))
    sites = ("intercept", "slope", "fourier", "sigma")
    return Problem("trend and Fourier season", seasonal_model, (t, y), sites)


def seasonal_model(t, y):
    """Sines and cosines that the model makes from the time."""
    angle = 2 * jnp.pi * t[:, None] * jnp.arange(1, 4)
    x = jnp.concatenate([jnp.sin(angle), jnp.cos(angle)], axis=1)
    intercept = numpyro.sample("intercept", dist.Normal(0, 5))
    slope = numpyro.sample("slope", dist.Normal(0, 1))
    fourier = numpyro.sample("fourier", dist.Normal(0, 1), sample_shape=(6,))
    sigma = numpyro.sample("sigma", dist.HalfNormal(1))
    numpyro.sample("y", dist.Normal(intercept + slope * t + x @ fourier, sigma), obs=y)


def changepoint() -> Problem:
    """Simulate yearly disasters whose rate drops once."""
    rng = np.random.default_rng(508)
    disasters = rng.poisson(np.where(np.arange(112) < 42, 3.0, 0.9))
    return Problem("change point, summed out", changepoint_model, (disasters,), ("early", "late"))


def changepoint_model(disasters):
    """The sum over all change points, which needs all rows at once."""
    early = numpyro.sample("early", dist.Exponential(1.0))
    late = numpyro.sample("late", dist.Exponential(1.0))
    before = jnp.cumsum(dist.Poisson(early).log_prob(disasters))
    after = jnp.cumsum(dist.Poisson(late).log_prob(disasters)[::-1])[::-1]
    numpyro.factor("marginal", logsumexp(before[:-1] + after[1:]))


def garch() -> Problem:
    """Simulate returns whose variance depends on the last return."""
    rng = np.random.default_rng(509)
    returns, variance = np.zeros(400), 0.5
    for t in range(400):
        returns[t] = np.sqrt(variance) * rng.normal()
        variance = 0.2 + 0.3 * returns[t] ** 2 + 0.4 * variance
    sites = ("mu", "alpha0", "alpha1", "beta1")
    title = "GARCH(1, 1)"
    return Problem(title, garch_model, (representable(returns),), sites, draws=4000)


def garch_model(returns):
    """A recursion of the variance over the rows; one bound depends on a latent."""
    mu = numpyro.sample("mu", dist.Normal(0, 1))
    alpha0 = numpyro.sample("alpha0", dist.HalfNormal(1))
    alpha1 = numpyro.sample("alpha1", dist.Uniform(0, 1))
    beta1 = numpyro.sample("beta1", dist.Uniform(0, 1 - alpha1))

    def step(variance, value):
        return alpha0 + alpha1 * (value - mu) ** 2 + beta1 * variance, variance

    _, variance = jax.lax.scan(step, 0.5 + 0 * mu, returns)
    numpyro.sample("returns", dist.Normal(mu, jnp.sqrt(variance)), obs=returns)


def lotka_volterra() -> Problem:
    """Simulate hares and lynxes over twenty years."""
    rng = np.random.default_rng(510)
    times = np.arange(20.0)
    with jax.enable_x64(True):
        theta = jnp.array([0.55, 0.28, 0.80, 0.24])
        states = np.asarray(odeint(population_change, jnp.array([3.0, 0.6]), times, theta))
    y = representable(states * np.exp(0.25 * rng.normal(size=states.shape)))
    sites = ("start", "theta", "sigma")
    title = "predators and prey, odeint"
    return Problem(title, predators_model, (times, y), sites, draws=1200, warmup=500)


def predators_model(times, y=None):
    """A differential equation solved at every evaluation."""
    start = numpyro.sample("start", dist.LogNormal(jnp.log(2.0), 1).expand([2]))
    theta = numpyro.sample(
        "theta",
        dist.TruncatedNormal(
            low=0.0,
            loc=jnp.array([0.5, 0.2, 0.8, 0.2]),
            scale=jnp.array([0.3, 0.1, 0.3, 0.1]),
        ),
    )
    sigma = numpyro.sample("sigma", dist.LogNormal(-1, 1).expand([2]))
    states = odeint(population_change, start, times, theta, rtol=1e-5, atol=1e-4, mxstep=500)
    numpyro.sample("y", dist.LogNormal(jnp.log(jnp.maximum(states, 1e-6)), sigma), obs=y)


def population_change(state, t, theta):
    """Return the growth of prey and predators."""
    prey, predators = state
    growth, hunting, death, feeding = theta
    return jnp.stack([(growth - hunting * predators) * prey, (feeding * prey - death) * predators])


def recursion(rng, size, mean, sd):
    """Return a series whose values have a mean that depends on the value before."""
    y = np.zeros(size)
    for t in range(1, size):
        y[t] = mean(y[t - 1]) + sd * rng.normal()
    return representable(y)


TIME_SERIES = {
    function.__name__: function
    for function in (
        ar1,
        ar2_scan,
        local_level,
        stochastic_volatility,
        random_walk_noncentred,
        smoothing,
        seasonal,
        changepoint,
        garch,
        lotka_volterra,
    )
}
