"""Sample a mixture of three Gaussians, and show the density with its uncertainty.

python examples/mixture.py [--num-data 20000] [--out out/mixture]

The labels of the components can be exchanged without changing the density, so that the posterior
has six modes that say the same. An ordering of the means leaves one of them. The labels of the rows
are summed out by `MixtureSameFamily`, which leaves eight numbers to sample, and rows that are
independent.
"""

import argparse
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist

from sgworld_mcmc import SGWORLD

WEIGHTS, MEANS, SDS = np.array([0.3, 0.5, 0.2]), np.array([-2.0, 0.5, 3.0]), np.array([0.6, 1, 0.5])


def model(y, count=3):
    """Gaussian mixture with ordered means."""
    weights = numpyro.sample("weights", dist.Dirichlet(jnp.full(count, 2.0)))
    ordered = dist.transforms.OrderedTransform()
    base = dist.Normal(0, 2).expand([count]).to_event(1)
    means = numpyro.sample("means", dist.TransformedDistribution(base, ordered))
    sds = numpyro.sample("sds", dist.HalfNormal(1.5).expand([count]).to_event(1))
    with numpyro.plate("rows", len(y)):
        parts = dist.MixtureSameFamily(dist.Categorical(weights), dist.Normal(means, sds))
        numpyro.sample("y", parts, obs=y)


def density(x, weights, means, sds):
    """Return the mixture's density, (..., len(x)), for parameters (..., components)."""
    z = (x[:, None] - means[..., None, :]) / sds[..., None, :]
    parts = np.exp(-(z**2) / 2) / (sds[..., None, :] * np.sqrt(2 * np.pi))
    return np.sum(weights[..., None, :] * parts, axis=-1)


def draw_picture(path, y, draws):
    """Show histogram, posterior density with its 90 % band, and the true density."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    x = np.linspace(y.min(), y.max(), 300)
    curves = density(x, draws["weights"][::10], draws["means"][::10], draws["sds"][::10])
    figure, axis = plt.subplots(figsize=(7, 4), layout="constrained")
    axis.hist(y, bins=80, density=True, color="0.85", label=f"{len(y)} rows")
    low, high = np.quantile(curves, [0.05, 0.95], axis=0)
    axis.fill_between(x, low, high, color="tab:blue", alpha=0.4, lw=0, label="90 % band")
    axis.plot(x, curves.mean(0), color="tab:blue", label="posterior mean")
    axis.plot(x, density(x, WEIGHTS, MEANS, SDS), "k--", lw=1, label="truth")
    axis.set(xlabel="y", ylabel="density")
    axis.legend(frameon=False)
    axis.spines[["top", "right"]].set_visible(False)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=150)
    plt.close(figure)
    return path


def main(argv=None):
    """Sample, print the summary, draw the picture; return the draws and its path."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--num-data", type=int, default=20_000, help="rows")
    parser.add_argument("--num-samples", type=int, default=500, help="draws of each of 4 chains")
    parser.add_argument("--seed", type=int, default=0, help="seed of data and sampler")
    parser.add_argument("--out", type=Path, default=Path("out/mixture"), help="for the picture")
    options = parser.parse_args(argv)

    rng = np.random.default_rng(options.seed)
    part = rng.choice(3, options.num_data, p=WEIGHTS)
    y = (MEANS[part] + SDS[part] * rng.standard_normal(options.num_data)).astype(np.float32)
    mcmc = SGWORLD(model, num_samples=options.num_samples)
    mcmc.run(jax.random.key(options.seed), y)
    mcmc.print_summary()
    draws = {name: np.asarray(value, float) for name, value in mcmc.get_samples().items()}
    path = draw_picture(options.out / "mixture.png", y, draws)
    print(f"wrote {path}")
    return draws, path


if __name__ == "__main__":
    main()
