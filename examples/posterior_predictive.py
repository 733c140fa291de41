"""Check two models of counts by what they predict: does new data of the model look like the data?

python examples/posterior_predictive.py [--num-data 5000] [--out out/posterior_predictive]

The counts scatter more than a Poisson's. Both models are sampled without complaint, and the draws
of the Poisson's posterior are right, for a model that is wrong: no report on draws can show that.
Data that are simulated from the draws do: their part of zeros, scatter and largest count differ
from those of the data.
"""

import argparse
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
from numpyro.infer import Predictive

from sgworld_mcmc import SGWORLD

STATISTICS = {
    "part of zeros": lambda y: np.mean(y == 0, axis=-1),
    "variance / mean": lambda y: np.var(y, axis=-1) / np.mean(y, axis=-1),
    "largest count": lambda y: np.max(y, axis=-1),
}


def poisson(x, y=None):
    """Counts whose variance is their mean."""
    log_rate = numpyro.sample("alpha", dist.Normal(0, 2)) + numpyro.sample("b", dist.Normal()) * x
    with numpyro.plate("rows", len(x)):
        numpyro.sample("y", dist.Poisson(jnp.exp(log_rate)), obs=y)


def negative_binomial(x, y=None):
    """Counts that scatter more."""
    log_rate = numpyro.sample("alpha", dist.Normal(0, 2)) + numpyro.sample("b", dist.Normal()) * x
    concentration = numpyro.sample("concentration", dist.Exponential(0.5))
    with numpyro.plate("rows", len(x)):
        numpyro.sample("y", dist.NegativeBinomial2(jnp.exp(log_rate), concentration), obs=y)


def check(rng_key, model, num_samples, x, y):
    """Return for each statistic its values for simulated data and the part beyond the data's."""
    run_key, predict_key = jax.random.split(rng_key)
    mcmc = SGWORLD(model, num_samples=num_samples)
    mcmc.run(run_key, x, y)
    draws = {name: value[::4] for name, value in mcmc.get_samples().items()}
    simulated = np.asarray(Predictive(model, draws)(predict_key, x)["y"])
    found = {}
    for name, statistic in STATISTICS.items():
        values, data = statistic(simulated), statistic(np.asarray(y))
        # Half of the ties count, as a largest count has many.
        found[name] = values, float(np.mean(values > data) + np.mean(values == data) / 2)
    return found


def draw_picture(path, y, results):
    """Show each statistic under both models, and that of the data."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(1, len(STATISTICS), figsize=(11, 3.4), layout="constrained")
    for axis, (name, statistic) in zip(axes, STATISTICS.items(), strict=True):
        for color, (model, found) in zip(("tab:red", "tab:blue"), results.items(), strict=True):
            values, _ = found[name]
            label = model.replace("_", " ")
            axis.hist(values, bins=25, density=True, color=color, alpha=0.5, label=label)
        axis.axvline(statistic(y), color="k", label="the data")
        axis.set(xlabel=name, yticks=[])
        axis.spines[["top", "right", "left"]].set_visible(False)
    axes[0].legend(frameon=False)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=150)
    plt.close(figure)
    return path


def main(argv=None):
    """Sample and check both models; return the parts beyond the data, and the picture's path."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--num-data", type=int, default=5000, help="rows")
    parser.add_argument("--num-samples", type=int, default=500, help="draws of each of 4 chains")
    parser.add_argument("--seed", type=int, default=0, help="seed of data and sampler")
    parser.add_argument(
        "--out", type=Path, default=Path("out/posterior_predictive"), help="for the picture"
    )
    options = parser.parse_args(argv)

    rng = np.random.default_rng(options.seed)
    x = rng.standard_normal(options.num_data).astype(np.float32)
    rate = np.exp(0.5 + 0.4 * x) * rng.gamma(1.5, 1 / 1.5, options.num_data)
    y = rng.poisson(rate).astype(np.float32)
    results, beyond = {}, {}
    for number, model in enumerate((poisson, negative_binomial)):
        key = jax.random.key(options.seed + number)
        found = results[model.__name__] = check(key, model, options.num_samples, x, y)
        print(model.__name__.replace("_", " "))
        for name, statistic in STATISTICS.items():
            values, part = found[name]
            low, high = np.quantile(values, [0.05, 0.95])
            print(f"  {name:16} data {statistic(y):7.3f}   simulated {low:7.3f} to {high:7.3f}")
            beyond[model.__name__, name] = part
    path = draw_picture(options.out / "posterior_predictive.png", y, results)
    print(f"wrote {path}")
    return beyond, path


if __name__ == "__main__":
    main()
