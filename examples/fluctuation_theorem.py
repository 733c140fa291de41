"""Show when <exp(-sigma)> = 1 holds for SGD: with Gaussian noise, and nearly with that of batches.

python examples/fluctuation_theorem.py [--runs 100] [--steps 16000] [--out out]

A linear regression whose noise depends on the position is trained with batches drawn with
replacement (docs/nonequilibrium.md, N12). The covariance of the batches' noise is smallest near
the minimum, where the theory takes it: the mean of exp(-sigma) is then above one. With Gaussian
noise of one covariance everywhere it is one, at every length of the stretches.
"""

import argparse
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from sgworld_mcmc import nonequilibrium as ne

BATCH, RATE, ROWS = 10, 0.05, 200
LENGTHS = (1, 3, 10)
BURN_IN = 1000
COLORS = {"batches": "#d95f02", "gaussian": "#1b9e77"}


def make_data():
    rng = np.random.default_rng(0)
    x = rng.standard_normal((ROWS, 3)) * [1.0, 0.5, 0.25]
    scatter = np.exp(x[:, 0])
    return {"x": x, "y": x @ [1.0, -1.0, 0.5] + scatter * rng.standard_normal(ROWS)}


def loss(w, row):
    return 0.5 * (row["y"] - w @ row["x"]) ** 2


def trajectories(rng_key, data, start, hessian, root, *, gaussian, runs, steps):
    """Return (runs, steps, 3) positions: of SGD, or of steps with Gaussian noise instead."""

    def step(w, key):
        if gaussian:
            noise = jnp.asarray(root) @ jax.random.normal(key, w.shape)
            moved = w - RATE * (hessian @ (w - start)) + noise
        else:
            rows = jax.random.choice(key, ROWS, (BATCH,), replace=False)
            x, y = data["x"][rows], data["y"][rows]
            moved = w - RATE * x.T @ (x @ w - y) / BATCH
        return moved, moved

    def run(key):
        keys = jax.random.split(key, steps + BURN_IN)
        return jax.lax.scan(step, jnp.asarray(start), keys)[1][BURN_IN:]

    return np.asarray(jax.jit(jax.vmap(run))(jax.random.split(rng_key, runs)))


def measure(runs, steps, seed):
    """Return the estimates (noise, length) -> IntegralFluctuationTheorem."""
    found = {}
    with jax.enable_x64(True):
        data = make_data()
        start = np.asarray(ne.effective_minimum(loss, data, BATCH, RATE, True, np.zeros(3)))
        hessian = ne.loss_hessian(loss, start, data)
        diffusion = ne.diffusion_matrix(loss, start, data, BATCH, RATE, replacement=True)
        covariance = ne.stationary_covariance(hessian, diffusion, RATE)
        circulation = ne.circulation_matrix(hessian, covariance, RATE)
        root = np.linalg.cholesky(2 * np.asarray(diffusion))
        device = {name: jnp.asarray(value) for name, value in data.items()}
        keys = dict(zip(COLORS, jax.random.split(jax.random.key(seed)), strict=True))
        for noise, key in keys.items():
            made = trajectories(
                key,
                device,
                start,
                jnp.asarray(hessian),
                root,
                gaussian=noise == "gaussian",
                runs=runs,
                steps=steps,
            )
            sigma = ne.entropy_production(made, circulation, covariance, diffusion, start)
            for length in LENGTHS:
                found[noise, length] = ne.integral_fluctuation_theorem(sigma, length=length)
    return found


def draw(found, path):
    figure = Figure(figsize=(6, 3.5), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    for shift, (noise, color) in zip((0.96, 1.04), COLORS.items(), strict=True):
        made = [found[noise, length] for length in LENGTHS]
        heights, errors = ([getattr(x, n) for x in made] for n in ("estimate", "standard_error"))
        places = shift * np.array(LENGTHS)
        label = "noise of batches" if noise == "batches" else "Gaussian noise of one covariance"
        axes.errorbar(places, heights, errors, fmt="o", capsize=4, color=color, label=label)
    axes.axhline(1.0, color="0.5", lw=1)
    axes.set_xscale("log")
    axes.set_xticks(LENGTHS, LENGTHS)
    axes.set_xticks([], minor=True)
    axes.set(xlabel="steps in a stretch", ylabel=r"$\langle e^{-\sigma}\rangle$")
    axes.legend(frameon=False)
    figure.savefig(path, dpi=150)


def main(arguments=None):
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--runs", type=int, default=100, help="runs side by side (100)")
    parser.add_argument("--steps", type=int, default=16_000, help="steps of each (16000)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", default="out", help="folder for the picture (out)")
    given = parser.parse_args(arguments)
    if given.runs < 1 or given.steps < max(LENGTHS):
        parser.error("--runs must be at least 1, and --steps at least 10")
    found = measure(given.runs, given.steps, given.seed)
    print(f"<exp(-sigma)> in {given.runs} runs of {given.steps} steps")
    for (noise, length), made in found.items():
        print(f"{noise:9} stretches of {length:2}: {made.estimate:.4f} ± {made.standard_error:.4f}")
    folder = Path(given.out)
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "fluctuation_theorem.png"
    draw(found, path)
    print(f"Wrote {path}")
    return found, path


if __name__ == "__main__":
    main()
