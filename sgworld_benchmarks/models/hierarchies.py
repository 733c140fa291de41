"""Hierarchical models: schools, counties, cafes, tanks, actors and rats."""

import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
from numpyro.handlers import reparam
from numpyro.infer.reparam import LocScaleReparam, TransformReparam

from sgworld_benchmarks.accuracy.problem import Problem, representable
from sgworld_benchmarks.models.simulate import binary, features

__all__ = ["HIERARCHIES"]

EFFECT = np.array([28.0, 8.0, -3.0, 7.0, -1.0, 1.0, 18.0, 12.0])
ERROR = np.array([15.0, 10.0, 16.0, 11.0, 9.0, 11.0, 10.0, 18.0])


def schools_centred() -> Problem:
    """Eight schools as NumPyro's introduction has them, a funnel."""
    return Problem(
        "8 schools, centred",
        centred_model,
        (8, ERROR, EFFECT),
        ("mu", "tau", "theta"),
        reference_model=transform_model,
        note="funnel",
    )


def centred_model(num_schools, error, effect=None):
    """A latent effect in the same plate as the observation."""
    mu = numpyro.sample("mu", dist.Normal(0, 5))
    tau = numpyro.sample("tau", dist.HalfCauchy(5))
    with numpyro.plate("schools", num_schools):
        theta = numpyro.sample("theta", dist.Normal(mu, tau))
        numpyro.sample("effect", dist.Normal(theta, error), obs=effect)


def schools_reparam() -> Problem:
    """Eight schools, non-centred by the `reparam` handler with TransformReparam."""
    sites = ("mu", "tau", "theta")
    return Problem("8 schools, TransformReparam", transform_model, (8, ERROR, EFFECT), sites)


def transform_model(num_schools, error, effect=None):
    """A standard normal latent, transformed."""
    mu = numpyro.sample("mu", dist.Normal(0, 5))
    tau = numpyro.sample("tau", dist.HalfCauchy(5))
    with numpyro.plate("schools", num_schools), reparam(config={"theta": TransformReparam()}):
        theta = numpyro.sample(
            "theta",
            dist.TransformedDistribution(
                dist.Normal(0.0, 1.0), dist.transforms.AffineTransform(mu, tau)
            ),
        )
    with numpyro.plate("rows", num_schools):
        numpyro.sample("effect", dist.Normal(theta, error), obs=effect)


def schools_loc_scale() -> Problem:
    """Eight schools, with a handler around the whole model."""
    model = reparam(centred_model, config={"theta": LocScaleReparam(centered=0)})
    sites = ("mu", "tau", "theta")
    return Problem("8 schools, LocScaleReparam", model, (8, ERROR, EFFECT), sites)


def radon() -> Problem:
    """Simulate radon in the houses of 60 counties."""
    rng = np.random.default_rng(301)
    county, floor = rng.integers(0, 60, 900), (rng.random(900) < 0.2).astype(float)
    level = rng.normal(1.3, 0.35, 60)
    y = representable(level[county] - 0.7 * floor + 0.75 * rng.normal(size=900))
    sites = ("mu_a", "sigma_a", "a", "b", "sigma")
    return Problem("varying intercepts, 60 counties", radon_model, (county, floor, y), sites)


def radon_model(county, floor, log_radon=None):
    """A county's intercept is drawn around the mean of all counties."""
    mu_a = numpyro.sample("mu_a", dist.Normal(0, 5))
    sigma_a = numpyro.sample("sigma_a", dist.HalfCauchy(1))
    with numpyro.plate("counties", 60):
        a = numpyro.sample("a", dist.Normal(mu_a, sigma_a))
    b = numpyro.sample("b", dist.Normal(0, 1))
    sigma = numpyro.sample("sigma", dist.HalfCauchy(1))
    mu = a[county] + b * floor
    with numpyro.plate("houses", len(county)):
        numpyro.sample("log_radon", dist.Normal(mu, sigma), obs=log_radon)


def radon_uranium() -> Problem:
    """Simulate radon with uranium as a feature of the county."""
    rng = np.random.default_rng(302)
    uranium = features(rng, 40)
    level = 1.3 + 0.7 * uranium + 0.3 * rng.normal(size=40)
    county, floor = rng.integers(0, 40, 700), (rng.random(700) < 0.2).astype(float)
    y = representable(level[county] - 0.7 * floor + 0.75 * rng.normal(size=700))
    data = (county, floor, uranium, y)
    sites = ("gamma", "tau", "b", "sigma", "a")
    return Problem("group-level predictor", uranium_model, data, sites)


def uranium_model(county, floor, uranium, y):
    """Non-centred intercepts, with a feature for each county rather than each row."""
    gamma = numpyro.sample("gamma", dist.Normal(0, 2).expand([2]).to_event(1))
    tau = numpyro.sample("tau", dist.HalfNormal(1))
    b = numpyro.sample("b", dist.Normal(0, 1))
    sigma = numpyro.sample("sigma", dist.HalfNormal(1))
    with numpyro.plate("county", uranium.shape[0]):
        z = numpyro.sample("z", dist.Normal(0, 1))
    a = numpyro.deterministic("a", gamma[0] + gamma[1] * uranium + tau * z)
    with numpyro.plate("data", y.shape[0]):
        numpyro.sample("y", dist.Normal(a[county] + b * floor, sigma), obs=y)


def cafes() -> Problem:
    """Simulate waits in twenty cafes, in mornings and afternoons."""
    rng = np.random.default_rng(303)
    effects = rng.multivariate_normal([3.5, -1.0], [[1.0, -0.35], [-0.35, 0.25]], 20)
    cafe, afternoon = np.repeat(np.arange(20), 10), np.tile([0.0, 1.0], 100)
    wait = effects[cafe, 0] + effects[cafe, 1] * afternoon + 0.5 * rng.normal(size=200)
    sites = ("a", "b", "sigma_cafe", "sigma", "Rho", "ab")
    data = (cafe, afternoon, representable(wait))
    return Problem("varying slopes, LKJ", cafes_model, data, sites, draws=4000, acceptance=0.99)


def cafes_model(cafe, afternoon, wait):
    """Intercepts and slopes with a correlation matrix of their own."""
    a = numpyro.sample("a", dist.Normal(5, 2))
    b = numpyro.sample("b", dist.Normal(-1, 0.5))
    sigma_cafe = numpyro.sample("sigma_cafe", dist.Exponential(1).expand([2]))
    sigma = numpyro.sample("sigma", dist.Exponential(1))
    rho = numpyro.sample("Rho", dist.LKJ(2, concentration=2))
    covariance = jnp.outer(sigma_cafe, sigma_cafe) * rho
    ab = numpyro.sample("ab", dist.MultivariateNormal(jnp.stack([a, b]), covariance).expand([20]))
    mu = ab[cafe, 0] + ab[cafe, 1] * afternoon
    numpyro.sample("wait", dist.Normal(mu, sigma), obs=wait)


def slopes_cholesky() -> Problem:
    """Simulate use of contraception in 30 districts, urban and rural."""
    rng = np.random.default_rng(304)
    effects = rng.multivariate_normal([-0.7, 0.6], [[0.3, -0.15], [-0.15, 0.3]], 30)
    district, urban = rng.integers(0, 30, 1500), rng.integers(0, 2, 1500).astype(float)
    use = binary(rng, effects[district, 0] + effects[district, 1] * urban)
    data = (district, urban, use)
    title = "varying slopes, LKJCholesky"
    return Problem(title, cholesky_model, data, ("mean", "tau", "correlation", "effects"))


def cholesky_model(district, urban, use):
    """Non-centred slopes by the Cholesky factor of their correlation matrix."""
    mean = numpyro.sample("mean", dist.Normal(0, 1).expand([2]).to_event(1))
    tau = numpyro.sample("tau", dist.HalfNormal(1).expand([2]).to_event(1))
    factor = numpyro.sample("factor", dist.LKJCholesky(2, concentration=2.0))
    numpyro.deterministic("correlation", (factor @ factor.T)[0, 1])
    with numpyro.plate("districts", 30):
        z = numpyro.sample("z", dist.Normal(0, 1).expand([2]).to_event(1))
    effects = numpyro.deterministic("effects", mean + z @ (tau[:, None] * factor).T)
    logits = effects[district, 0] + effects[district, 1] * urban
    with numpyro.plate("data", use.shape[0]):
        numpyro.sample("use", dist.Bernoulli(logits=logits), obs=use)


def tadpoles() -> Problem:
    """Simulate survivors in 48 tanks, one row for each tank."""
    rng = np.random.default_rng(305)
    density = np.repeat([10, 25, 35], 16)
    surviving = rng.binomial(density, 1 / (1 + np.exp(-rng.normal(1.3, 1.5, 48))))
    data = (np.arange(48), density, surviving)
    title = "partial pooling, group = row"
    return Problem(title, tadpoles_model, data, ("a_bar", "sigma", "a"))


def tadpoles_model(tank, density, surviving):
    """A log-odds for each tank, whose number is that of the rows."""
    a_bar = numpyro.sample("a_bar", dist.Normal(0, 1.5))
    sigma = numpyro.sample("sigma", dist.Exponential(1))
    a = numpyro.sample("a", dist.Normal(a_bar, sigma), sample_shape=tank.shape)
    numpyro.sample("surviving", dist.Binomial(density, logits=a[tank]), obs=surviving)


def baseball() -> Problem:
    """Simulate hits of 18 players in 45 times at bat."""
    rng = np.random.default_rng(306)
    at_bats = np.full(18, 45)
    hits = rng.binomial(at_bats, rng.beta(26.0, 74.0, 18))
    sites = ("m", "phi")
    return Problem(
        "baseball, latent in the data plate",
        baseball_model,
        (at_bats, hits),
        sites,
        reference_model=marginal_baseball_model,
    )


def baseball_model(at_bats, hits=None):
    """A chance of success for each player, in the plate of the rows."""
    m = numpyro.sample("m", dist.Uniform(0, 1))
    log_kappa = numpyro.sample("log_kappa", dist.Normal(3, 1))
    kappa = numpyro.deterministic("kappa", jnp.exp(log_kappa))
    numpyro.deterministic("phi", log_kappa)
    with numpyro.plate("num_players", at_bats.shape[0]):
        p = numpyro.sample("p", dist.Beta(m * kappa, (1 - m) * kappa))
        numpyro.sample("hits", dist.Binomial(at_bats, probs=p), obs=hits)


def marginal_baseball_model(at_bats, hits):
    """The same hyperparameters with the players' chances integrated out."""
    m = numpyro.sample("m", dist.Uniform(0, 1))
    log_kappa = numpyro.sample("log_kappa", dist.Normal(3, 1))
    kappa = numpyro.deterministic("kappa", jnp.exp(log_kappa))
    numpyro.deterministic("phi", log_kappa)
    numpyro.sample("hits", dist.BetaBinomial(m * kappa, (1 - m) * kappa, at_bats), obs=hits)


def chimpanzees() -> Problem:
    """Simulate choices of levers by seven actors in six blocks under four treatments."""
    rng = np.random.default_rng(307)
    actor, block = np.repeat(np.arange(7), 72), np.tile(np.arange(6), 84)
    treatment = rng.integers(0, 4, 504)
    logits = rng.normal(0.5, 1.0, 7)[actor] + np.array([-0.1, 0.4, -0.5, 0.3])[treatment]
    data = (actor, block, treatment, binary(rng, logits).astype(int))
    sites = ("b", "a_bar", "sigma_a", "sigma_g", "a", "g")
    return Problem("crossed effects, non-centred", chimpanzees_model, data, sites)


def chimpanzees_model(actor, block, treatment, pulled_left=None):
    """Two crossed groups of intercepts."""
    a_bar = numpyro.sample("a_bar", dist.Normal(0, 1.5))
    sigma_a = numpyro.sample("sigma_a", dist.Exponential(1))
    sigma_g = numpyro.sample("sigma_g", dist.Exponential(1))
    z = numpyro.sample("z", dist.Normal(0, 1).expand([7]))
    x = numpyro.sample("x", dist.Normal(0, 1).expand([6]))
    b = numpyro.sample("b", dist.Normal(0, 0.5).expand([4]))
    a = numpyro.deterministic("a", a_bar + z * sigma_a)
    g = numpyro.deterministic("g", x * sigma_g)
    logits = a[actor] + g[block] + b[treatment]
    numpyro.sample("pulled_left", dist.Binomial(1, logits=logits), obs=pulled_left)


def rats() -> Problem:
    """Simulate weights of thirty rats in five weeks, as a matrix."""
    rng = np.random.default_rng(308)
    days = np.array([8.0, 15.0, 22.0, 29.0, 36.0]) - 22
    level, slope = rng.normal(242, 14, (30, 1)), rng.normal(6.2, 0.5, (30, 1))
    y = representable(level + slope * days + 6 * rng.normal(size=(30, 5)))
    sites = ("mu", "tau", "sigma", "alpha", "beta")
    return Problem("growth of rats, matrix of rows", rats_model, (days, y), sites, warmup=1000)


def rats_model(days, y):
    """A line for each rat; the data are one matrix with a rat in each row."""
    mu = numpyro.sample("mu", dist.Normal(jnp.array([240.0, 6.0]), jnp.array([50.0, 5.0])))
    tau = numpyro.sample("tau", dist.HalfNormal(jnp.array([20.0, 1.0])))
    sigma = numpyro.sample("sigma", dist.HalfNormal(10))
    with numpyro.plate("rats", y.shape[0]):
        alpha = numpyro.sample("alpha", dist.Normal(mu[0], tau[0]))
        beta = numpyro.sample("beta", dist.Normal(mu[1], tau[1]))
    mean = alpha[:, None] + beta[:, None] * days
    with numpyro.plate("time", y.shape[1], dim=-1), numpyro.plate("rat", y.shape[0], dim=-2):
        numpyro.sample("y", dist.Normal(mean, sigma), obs=y)


def pumps() -> Problem:
    """Failures of ten pumps over different times."""
    time = np.array([94.3, 15.7, 62.9, 126.0, 5.24, 31.4, 1.05, 1.05, 2.1, 10.5])
    failures = np.array([5, 1, 5, 14, 3, 19, 1, 1, 4, 22])
    sites = ("alpha", "beta", "theta")
    return Problem("gamma-Poisson, 10 pumps", pumps_model, (time, failures), sites, draws=5000)


def pumps_model(time, failures):
    """A rate for each pump in the plate of the rows."""
    alpha = numpyro.sample("alpha", dist.Exponential(1.0))
    beta = numpyro.sample("beta", dist.Gamma(2.0, 1.0))
    with numpyro.plate("pumps", len(time)):
        theta = numpyro.sample("theta", dist.Gamma(alpha, beta))
        numpyro.sample("failures", dist.Poisson(theta * time), obs=failures)


def poll() -> Problem:
    """Simulate a poll with states, ages and their interaction with education."""
    rng = np.random.default_rng(309)
    state, age, education = (rng.integers(0, k, 4000) for k in (40, 4, 4))
    female = rng.integers(0, 2, 4000).astype(float)
    logits = 0.2 + 0.3 * female + rng.normal(0, 0.5, 40)[state] + 0.2 * (age - 1.5)
    data = {"state": state, "age": age, "education": education, "female": female}
    vote = binary(rng, logits)
    sites = ("intercept", "female", "scales", "state")
    title, given = "poll with four groupings", dict(draws=8000, acceptance=0.995)
    return Problem(title, poll_model, (data, vote), sites, **given)


def poll_model(data, vote):
    """Several groups of non-centred effects, made by a loop."""
    intercept = numpyro.sample("intercept", dist.Normal(0, 1))
    slope = numpyro.sample("female", dist.Normal(0, 1))
    scales = numpyro.sample("scales", dist.HalfNormal(0.5).expand([3]).to_event(1))
    logits = intercept + slope * data["female"]
    for index, (name, size) in enumerate([("state", 40), ("age", 4), ("education", 4)]):
        raw = numpyro.sample(f"{name}_raw", dist.Normal(0, 1).expand([size]).to_event(1))
        effect = numpyro.deterministic(name, scales[index] * raw)
        logits = logits + effect[data[name]]
    with numpyro.plate("voters", vote.shape[0]):
        numpyro.sample("vote", dist.Bernoulli(logits=logits), obs=vote)


def meta_analysis() -> Problem:
    """Simulate 20 trials, two of which are far from the others."""
    rng = np.random.default_rng(310)
    error = representable(rng.uniform(0.1, 0.4, 20))
    effect = rng.normal(0.3, 0.15, 20)
    effect[[3, 11]] = [1.5, -0.9]
    y = representable(effect + error * rng.normal(size=20))
    title = "robust meta-analysis"
    return Problem(title, meta_model, (y, error), ("mu", "tau", "theta"), draws=6000)


def meta_model(y, error):
    """Student-t effects of trials, and known errors."""
    mu = numpyro.sample("mu", dist.Normal(0, 1))
    tau = numpyro.sample("tau", dist.HalfNormal(0.5))
    z = numpyro.sample("z", dist.StudentT(4, 0, 1).expand([y.shape[0]]).to_event(1))
    theta = numpyro.deterministic("theta", mu + tau * z)
    with numpyro.plate("trials", y.shape[0]):
        numpyro.sample("y", dist.Normal(theta, error), obs=y)


def classes_in_schools() -> Problem:
    """Simulate pupils in 45 classes of 15 schools."""
    rng = np.random.default_rng(311)
    school_of = np.repeat(np.arange(15), 3)
    level = rng.normal(0, 0.6, 15)[school_of] + rng.normal(0, 0.4, 45)
    of_class = rng.integers(0, 45, 1200)
    y = representable(level[of_class] + rng.normal(size=1200))
    data = (of_class, school_of, y)
    sites = ("mu", "taus", "sigma", "school")
    return Problem("nested groups", nested_model, data, sites, acceptance=0.98)


def nested_model(of_class, school_of, y):
    """Classes are drawn around their schools."""
    mu = numpyro.sample("mu", dist.Normal(0, 2))
    taus = numpyro.sample("taus", dist.Gamma(2, 3).expand([2]).to_event(1))
    sigma = numpyro.sample("sigma", dist.HalfNormal(2))
    with numpyro.plate("schools", 15):
        school = numpyro.sample("school", dist.Normal(mu, taus[0]))
    with numpyro.plate("classes", 45):
        level = numpyro.sample("class", dist.Normal(school[school_of], taus[1]))
    numpyro.sample("y", dist.Normal(jnp.take(level, of_class), sigma), obs=y)


HIERARCHIES = {
    function.__name__: function
    for function in (
        schools_centred,
        schools_reparam,
        schools_loc_scale,
        radon,
        radon_uranium,
        cafes,
        slopes_cholesky,
        tadpoles,
        baseball,
        chimpanzees,
        rats,
        pumps,
        poll,
        meta_analysis,
        classes_in_schools,
    )
}
