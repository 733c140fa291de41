"""Audit an SVI fit: are the draws of a variational guide draws of the posterior?

python examples/audit_svi.py [--num-data 5000] [--guide diagonal|full] [--out out/audit_svi]

A logistic regression with two correlated features. A diagonal Gaussian, the usual choice, cannot
have the correlation of the posterior, and makes widths too small; SVI does not say so. The audit
does, from the gradients of all rows at the draws. A Gaussian of full rank passes. Draws of NUTS are
the truth in the picture.
"""

import argparse
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
from numpyro.infer import MCMC, NUTS, SVI, Trace_ELBO
from numpyro.infer.autoguide import AutoMultivariateNormal, AutoNormal
from numpyro.optim import Adam

import sgworld_mcmc

GUIDES = {"diagonal": AutoNormal, "full": AutoMultivariateNormal}


def model(X, y):
    """Logistic regression."""
    beta = numpyro.sample("beta", dist.Normal(0, 2).expand([X.shape[1]]).to_event(1))
    with numpyro.plate("rows", len(y)):
        numpyro.sample("y", dist.Bernoulli(logits=X @ beta), obs=y)


def make_data(seed, num_data):
    """Return features, two of which are correlated by 0.9, and labels."""
    rng = np.random.default_rng(seed)
    common, own = rng.standard_normal((num_data, 1)), rng.standard_normal((num_data, 2))
    pair = np.sqrt(0.9) * common + np.sqrt(0.1) * own
    X = np.column_stack([np.ones(num_data), pair]).astype(np.float32)
    logits = X @ np.array([-0.5, 1.0, -1.0])
    return X, (rng.random(num_data) < 1 / (1 + np.exp(-logits))).astype(np.float32)


def fit(rng_key, name, steps, X, y):
    """Fit a guide and return 2000 draws of it."""
    guide = GUIDES[name](model, init_scale=0.01)
    fit_key, draw_key = jax.random.split(rng_key)
    rate = lambda step: 0.02 * jnp.minimum(1.0, 0.1 ** (2 * step / steps - 1))  # noqa: E731
    svi = SVI(model, guide, Adam(rate), Trace_ELBO(num_particles=10))
    result = svi.run(fit_key, steps, X, y, progress_bar=False)
    return guide.sample_posterior(draw_key, result.params, sample_shape=(2000,))


def draw_picture(path, svi, exact, name):
    """Show the two correlated coefficients under SVI and under NUTS."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, axis = plt.subplots(figsize=(5.5, 5), layout="constrained")
    for draws, label, color in ((exact, "NUTS", "0.6"), (svi, f"SVI, {name}", "tab:red")):
        axis.scatter(draws[:, 1], draws[:, 2], s=4, alpha=0.5, color=color, label=label)
    axis.set(xlabel="beta[1]", ylabel="beta[2]", aspect="equal")
    axis.legend(markerscale=3, frameon=False)
    axis.spines[["top", "right"]].set_visible(False)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=150)
    plt.close(figure)
    return path


def main(argv=None):
    """Fit, audit, draw a picture; return the report and the ratios of SVI's widths to NUTS's."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--num-data", type=int, default=5000, help="rows")
    parser.add_argument("--guide", choices=GUIDES, default="diagonal", help="family of Gaussians")
    parser.add_argument("--steps", type=int, default=3000, help="steps of Adam")
    parser.add_argument("--seed", type=int, default=0, help="seed of data and samplers")
    parser.add_argument("--out", type=Path, default=Path("out/audit_svi"), help="for the picture")
    options = parser.parse_args(argv)

    fit_key, nuts_key = jax.random.split(jax.random.key(options.seed))
    X, y = make_data(options.seed, options.num_data)
    draws = fit(fit_key, options.guide, options.steps, X, y)
    report = sgworld_mcmc.audit(model, draws, X, y)
    print(report)
    nuts = MCMC(NUTS(model), num_warmup=500, num_samples=2000, progress_bar=False)
    nuts.run(nuts_key, X, y)
    exact, svi = np.asarray(nuts.get_samples()["beta"]), np.asarray(draws["beta"])
    ratios = svi.std(0) / exact.std(0)
    print(f"widths of SVI over those of NUTS: {ratios.round(2)}")
    print(f"wrote {draw_picture(options.out / 'audit_svi.png', svi, exact, options.guide)}")
    return report, ratios


if __name__ == "__main__":
    main()
