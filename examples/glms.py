"""Sample five generalised linear models of the same linear predictor with default settings.

python examples/glms.py [--families logistic poisson ...] [--num-data 20000] [--out out/glms]

Data are simulated, so that the coefficients are known. Nothing is set but the model; the table says
what the package has chosen for each, how many rows an effective draw has cost, and the largest
distance of a coefficient from the truth in posterior standard deviations. The picture has all
coefficients with their 90 % intervals.
"""

import argparse
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist

from sgworld_mcmc import SGWORLD

TRUTH = np.array([0.5, 0.8, -0.4, 0.3])


def logistic(eta):
    """Return the distribution of labels."""
    return dist.Bernoulli(logits=eta)


def poisson(eta):
    """Return the distribution of counts."""
    return dist.Poisson(jnp.exp(eta))


def negative_binomial(eta):
    """Return the distribution of counts that scatter more than Poisson's."""
    concentration = numpyro.sample("concentration", dist.Exponential(0.5))
    return dist.NegativeBinomial2(jnp.exp(eta), concentration)


def gamma(eta):
    """Return the distribution of positive amounts, waiting times say."""
    shape = numpyro.sample("shape", dist.Exponential(0.5))
    return dist.Gamma(shape, shape * jnp.exp(-eta))


def student_t(eta):
    """Return the distribution of measurements with outliers."""
    scale = numpyro.sample("scale", dist.HalfNormal(2))
    return dist.StudentT(4, eta, scale)


FAMILIES = {f.__name__: f for f in (logistic, poisson, negative_binomial, gamma, student_t)}
OTHERS = {"concentration": 2.0, "shape": 2.0, "scale": 0.7}


def make_model(family):
    """Return the NumPyro model of a family."""

    def model(X, y=None):
        beta = numpyro.sample("beta", dist.Normal(0, 2).expand([X.shape[1]]).to_event(1))
        outcome = family(X @ beta)
        with numpyro.plate("rows", len(X)):
            numpyro.sample("y", outcome, obs=y)

    return model


def simulate(rng_key, model, num_data):
    """Return features, and outcomes of the model at the true parameters."""
    feature_key, outcome_key = jax.random.split(rng_key)
    X = jax.random.normal(feature_key, (num_data, len(TRUTH))).at[:, 0].set(1.0)
    known = numpyro.handlers.substitute(model, {"beta": jnp.array(TRUTH), **OTHERS})
    trace = numpyro.handlers.trace(numpyro.handlers.seed(known, outcome_key)).get_trace(X)
    return X, trace["y"]["value"].astype(jnp.float32)


def draw_picture(path, draws):
    """Show the coefficients of all families beside the truth."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, axis = plt.subplots(figsize=(7, 4), layout="constrained")
    for i, (name, beta) in enumerate(draws.items()):
        places = np.arange(len(TRUTH)) + 0.12 * (i - (len(draws) - 1) / 2)
        low, high = np.quantile(beta, [0.05, 0.95], axis=0)
        axis.vlines(places, low - TRUTH, high - TRUTH, color=f"C{i}", lw=2)
        axis.plot(places, beta.mean(0) - TRUTH, "o", color=f"C{i}", label=name.replace("_", " "))
    axis.axhline(0, color="k", lw=0.7)
    axis.set(ylabel="coefficient less the truth (90 % interval)")
    axis.set_xticks(range(len(TRUTH)), [f"beta[{i}] = {b:g}" for i, b in enumerate(TRUTH)])
    axis.legend(frameon=False, ncols=3, loc="upper center")
    axis.margins(y=0.25)
    axis.spines[["top", "right"]].set_visible(False)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=150)
    plt.close(figure)
    return path


def main(argv=None):
    """Sample the families; return their draws of beta, (draws, 4) each, and the picture's path."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--families", nargs="+", choices=FAMILIES, default=list(FAMILIES))
    parser.add_argument("--num-data", type=int, default=20_000, help="rows")
    parser.add_argument("--num-samples", type=int, default=500, help="draws of each of 4 chains")
    parser.add_argument("--seed", type=int, default=0, help="seed of data and sampler")
    parser.add_argument("--out", type=Path, default=Path("out/glms"), help="for the picture")
    options = parser.parse_args(argv)

    found = {}
    print(f"{'family':18} {'gradient':16} {'batch':>6} {'rows/draw':>10}   largest |z|")
    for number, name in enumerate(options.families):
        data_key, run_key = jax.random.split(jax.random.key(options.seed + number))
        model = make_model(FAMILIES[name])
        X, y = simulate(data_key, model, options.num_data)
        mcmc = SGWORLD(model, num_samples=options.num_samples)
        mcmc.run(run_key, X, y)
        beta, report = np.asarray(mcmc.get_samples()["beta"], float), mcmc.bias_report()
        z = np.abs(beta.mean(0) - TRUTH) / beta.std(0)
        cost = report.examples_per_effective_draw
        line = f"{name:18} {report.gradient:16} {report.batch_size:6d} {cost:10.0f}"
        print(f"{line}   {z.max():.1f}")
        found[name] = beta
    path = draw_picture(options.out / "glms.png", found)
    print(f"wrote {path}")
    return found, path


if __name__ == "__main__":
    main()
