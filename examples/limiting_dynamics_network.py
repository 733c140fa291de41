"""A convolutional network whose weights keep moving after its accuracy has settled.

python examples/limiting_dynamics_network.py [--settle 150] [--epochs 250] [--seeds 2]

A network of two convolutions in plain JAX learns scikit-learn's handwritten digits (8 x 8 pixels)
by SGD with momentum. The example measures how far the weights move within a number of steps, as a
power of that number, for several learning rates, batch sizes and momenta. Kunin et al., "The
Limiting Dynamics of SGD" (arXiv:2107.09133), did this for ResNets on ImageNet; see also
docs/limiting_dynamics.md.
"""

import argparse
import time
from functools import partial
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from sklearn.datasets import load_digits

import sgworld_mcmc as sg
from sgworld_mcmc.data.fixed_partition import partition

TRAINING = 1500
BASE = {"learning_rate": 0.05, "batch_size": 50, "momentum": 0.9}
SWEEPS = {
    "learning_rate": (0.0125, 0.025, 0.05, 0.1),
    "batch_size": (25, 50, 100, 200),
    "momentum": (0.0, 0.5, 0.8, 0.9),
}
WEIGHT_DECAY = 1e-3


def load(seed):
    """Load training and test digits, with pixels in [0, 1]."""
    images, labels = load_digits(return_X_y=True)
    order = np.random.default_rng(seed).permutation(len(images))
    images = (images[order] / 16).astype(np.float32).reshape(-1, 8, 8, 1)
    data = {"x": images, "y": labels[order].astype(np.int32)}
    return (
        {k: v[:TRAINING] for k, v in data.items()},
        {k: v[TRAINING:] for k, v in data.items()},
    )


def initial_weights(key):
    """Draw 1898 weights: two 3 x 3 convolutions of stride 2 (8, 16 channels), a dense layer."""
    weights = {}
    for name, shape, fan_in in (
        ("first", (3, 3, 1, 8), 9),
        ("second", (3, 3, 8, 16), 72),
        ("dense", (64, 10), 64),
    ):
        key, own = jax.random.split(key)
        weights[name] = jax.random.normal(own, shape) / fan_in**0.5, jnp.zeros(shape[-1])
    return weights


def logits(weights, images):
    """Return the scores (n, 10) of images (n, 8, 8, 1)."""
    x = images
    for name in ("first", "second"):
        kernel, bias = weights[name]
        layout = ("NHWC", "HWIO", "NHWC")
        x = jax.lax.conv_general_dilated(x, kernel, (2, 2), "SAME", dimension_numbers=layout)
        x = jnp.tanh(x + bias)
    kernel, bias = weights["dense"]
    return x.reshape(len(x), -1) @ kernel + bias


def loss(weights, rows):
    """Return the mean cross-entropy."""
    log_probability = jax.nn.log_softmax(logits(weights, rows["x"]))
    return -jnp.mean(jnp.take_along_axis(log_probability, rows["y"][:, None], axis=1))


@partial(jax.jit, static_argnames="epochs")
def train(key, weights, batches, test, learning_rate, momentum, epochs):
    """Return flat weights (epochs, P), loss and test accuracy (epochs,) after each epoch."""
    kernel = sg.sgd.build_kernel("batches")
    begin, *keys = jax.random.split(key, epochs + 1)
    state = sg.sgd.init(weights, begin, batches.num_batches)
    everything = jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:]), batches.main)

    def epoch(state, key):
        state, _ = kernel(
            key, state, jax.grad(loss), batches, learning_rate, momentum, WEIGHT_DECAY
        )
        right = jnp.argmax(logits(state.position, test["x"]), axis=1) == test["y"]
        flat = ravel_pytree(state.position)[0]
        return state, (flat, loss(state.position, everything), jnp.mean(right))

    return jax.lax.scan(epoch, state, jnp.stack(keys))[1]


class Diffusion(NamedTuple):
    """The motion of the weights after the accuracy has settled."""

    lags: np.ndarray  # in steps
    displacement: np.ndarray  # mean |theta(k + lag) - theta(k)|^2, mean over seeds
    exponent: float  # fitted to all lags
    exponent_error: float  # from the scatter of the seeds
    early: float  # fitted to the first four lags: fluctuation
    late: float  # fitted to the last four: 2 is a drift
    accuracy: tuple  # over the first and the last fifth of the window
    losses: tuple


def mean_squared_displacement(path, lags):
    """Average the squared displacement at each lag over all origins of a path (epochs, P)."""
    return np.array([np.mean(np.sum((path[n:] - path[:-n]) ** 2, axis=1)) for n in lags])


def measure(train_data, test_data, setting, settle, epochs, seeds):
    """Train, drop the first ``settle`` epochs, and fit the displacement within the others."""
    key = jax.random.key(setting["batch_size"])
    batches = partition(key, train_data, setting["batch_size"])
    count = batches.num_batches
    epoch_lags = np.unique(np.geomspace(1, epochs // 4, 12).astype(int))
    curves, accuracies, losses = [], [], []
    for seed in range(seeds):
        weight_key, train_key = jax.random.split(jax.random.key(seed))
        path, value, accuracy = train(
            train_key,
            initial_weights(weight_key),
            batches,
            test_data,
            setting["learning_rate"],
            setting["momentum"],
            settle + epochs,
        )
        curves.append(mean_squared_displacement(np.asarray(path)[settle:], epoch_lags))
        accuracies.append(np.asarray(accuracy)[settle:])
        losses.append(np.asarray(value)[settle:])
    lags = epoch_lags * count
    slope = lambda part: [np.polyfit(np.log(lags[part]), np.log(c[part]), 1)[0] for c in curves]  # noqa: E731
    slopes, early, late = slope(slice(None)), slope(slice(4)), slope(slice(-4, None))
    fifth = max(1, epochs // 5)
    ends = lambda x: (float(np.mean(x, 0)[:fifth].mean()), float(np.mean(x, 0)[-fifth:].mean()))  # noqa: E731
    error = float(np.std(slopes, ddof=1) / np.sqrt(seeds)) if seeds > 1 else np.nan
    return Diffusion(
        lags,
        np.mean(curves, 0),
        float(np.mean(slopes)),
        error,
        float(np.mean(early)),
        float(np.mean(late)),
        ends(accuracies),
        ends(losses),
    )


def plot_results(path, results):
    """Plot displacement against lag, with one panel per sweep."""
    figure = Figure(figsize=(13, 4.2), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(1, len(results), squeeze=False)[0]
    for ax, (name, found) in zip(axes, results.items(), strict=True):
        for i, (value, result) in enumerate(found.items()):
            color = ["#56B4E9", "#0072B2", "#009E73", "#D55E00"][i % 4]
            label = f"{value:g}: {result.early:.2f} to {result.late:.2f}"
            ax.loglog(result.lags, result.displacement, "o-", ms=3.5, color=color, label=label)
        ax.set(xlabel="lag [steps]", title=name.replace("_", " "))
        ax.grid(True, lw=0.3)
        ax.legend(frameon=False, title="local exponents")
    axes[0].set_ylabel("mean squared displacement")
    figure.savefig(path, dpi=150)


def main(argv=None):
    """Print accuracy and exponent for every setting; return the results by sweep and value."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--settle", type=int, default=150, help="epochs before measuring")
    parser.add_argument("--epochs", type=int, default=250, help="epochs of the measurement")
    parser.add_argument("--seeds", type=int, default=2, help="initial weights per setting")
    parser.add_argument(
        "--sweeps", nargs="*", choices=list(SWEEPS), default=list(SWEEPS), help="what to vary"
    )
    parser.add_argument("--values", type=int, default=3, help="values of each sweep, at most 4")
    parser.add_argument("--out", type=Path, default=Path("out"), help="folder of the picture")
    options = parser.parse_args(argv)
    if options.epochs < 16:
        parser.error("--epochs must be at least 16: lags go up to a quarter of it")
    began = time.monotonic()
    train_data, test_data = load(0)
    space = " " * 27
    print(f"{space}test accuracy     training loss     |displacement|^2   exponent of lags")
    print(f"{space}first    last     first    last     after one epoch    all        first  last")
    results, done = {}, {}
    for name in options.sweeps:
        results[name] = {}
        for value in SWEEPS[name][-options.values :]:
            setting = {**BASE, name: value}
            label = tuple(setting.items())
            if label not in done:  # the base setting is in every sweep
                sizes = (options.settle, options.epochs, options.seeds)
                done[label] = measure(train_data, test_data, setting, *sizes)
            result = results[name][value] = done[label]
            print(
                f"{name:>13} = {value:<8g}   {result.accuracy[0]:.4f}  {result.accuracy[1]:.4f}"
                f"   {result.losses[0]:.5f}  {result.losses[1]:.5f}     "
                f"{result.displacement[0]:.2e}       {result.exponent:.3f} "
                f"± {result.exponent_error:.3f}   {result.early:.2f}   {result.late:.2f}"
            )
    options.out.mkdir(parents=True, exist_ok=True)
    path = options.out / "limiting_dynamics_network.png"
    plot_results(path, results)
    print(f"{path}, {time.monotonic() - began:.0f} s")
    return results


if __name__ == "__main__":
    main()
