"""Test fluctuation theorems of a digit classifier, in its leading principal components.

python examples/nonequilibrium_digits.py                 # scikit-learn's 8 x 8 digits
python examples/nonequilibrium_digits.py --data FOLDER   # the MNIST files, .gz or not

This is the second numerical example of "Machine learning in and out of equilibrium"
(arXiv:2306.03521). Chains of SGD with and without replacement run around the minimum of the
regularised loss of a small network with one hidden layer. Circulation, covariance and diffusion are
measured on the first half of each chain, and the theorems are tested on the second.
"""

import argparse
import gzip
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
from scipy.optimize import minimize
from sklearn.datasets import load_digits

import sgworld_mcmc as sg
from sgworld_mcmc.data.fixed_partition import FixedPartition
from sgworld_mcmc.nonequilibrium import (
    areal_velocity,
    detailed_fluctuation_theorem,
    entropy_production,
    integral_fluctuation_theorem,
    plug_in_entropy_production,
    project_principal_components,
    trajectory_moments,
)

LENGTHS = (1, 2, 3, 10)
IDX_TYPES = {8: ">u1", 9: ">i1", 11: ">i2", 12: ">i4", 13: ">f4", 14: ">f8"}
MNIST_FILES = {
    "images": ("train-images-idx3-ubyte", "train-images.idx3-ubyte"),
    "labels": ("train-labels-idx1-ubyte", "train-labels.idx1-ubyte"),
}


def read_idx(path):
    """Read the array in a file of the idx format, compressed with gzip or not.

    The file has two zero bytes, the type, the number of axes, the length of each axis as a
    big-endian int32, and the numbers. A ValueError names the file and what is wrong with it.
    """
    raw = Path(path).read_bytes()
    if raw[:2] == b"\x1f\x8b":
        try:
            raw = gzip.decompress(raw)
        except (OSError, EOFError) as error:
            raise ValueError(f"{path}: damaged gzip file ({error}). Download it again.") from error
    if len(raw) < 4 or raw[:2] != b"\0\0" or raw[2] not in IDX_TYPES or raw[3] == 0:
        raise ValueError(
            f"{path}: not an idx file: it begins with the bytes {raw[:4].hex(' ') or '(none)'}, "
            "not with 00 00, a type and a number of axes (00 00 08 03 for MNIST images)."
        )
    dtype, axes = np.dtype(IDX_TYPES[raw[2]]), raw[3]
    begin = 4 + 4 * axes
    if len(raw) < begin:
        raise ValueError(f"{path}: ends within the header of {begin} bytes.")
    shape = tuple(int(n) for n in np.frombuffer(raw, ">u4", axes, 4))
    expected = begin + int(np.prod(shape, dtype=np.int64)) * dtype.itemsize
    if len(raw) != expected:
        raise ValueError(
            f"{path}: has {len(raw)} bytes, but its header {shape} asks for {expected}: cut off, "
            "or not what it says. Download it again."
        )
    return np.frombuffer(raw, dtype, offset=begin).reshape(shape).astype(dtype.newbyteorder("="))


def load_mnist(folder):
    """Read training images (n, pixels) in [0, 1] and labels (n,) from idx files in a folder."""
    folder = Path(folder)
    if not folder.is_dir():
        raise FileNotFoundError(f"{folder} is not a folder: --data names that of the MNIST files.")
    arrays, paths = {}, {}
    for kind, names in MNIST_FILES.items():
        candidates = [folder / (name + end) for name in names for end in ("", ".gz")]
        found = [path for path in candidates if path.is_file()]
        if not found:
            listing = ", ".join(path.name for path in candidates)
            raise FileNotFoundError(f"{folder} has no MNIST {kind}; looked for {listing}.")
        paths[kind] = found[0]
        arrays[kind] = read_idx(found[0])
    images, labels = arrays["images"], arrays["labels"]
    if images.ndim < 2 or labels.ndim != 1 or len(images) != len(labels):
        raise ValueError(
            f"{paths['images']} holds an array {images.shape} and {paths['labels']} one "
            f"{labels.shape}: expected (n, rows, columns) and (n,) for the same n."
        )
    if labels.min() < 0 or labels.max() > 9:
        raise ValueError(f"{paths['labels']}: labels must be digits 0, ..., 9.")
    return images.reshape(len(images), -1).astype(np.float32) / 255, labels.astype(np.int32)


def make_data(folder, count, seed):
    """Return a pytree of ``count`` examples in random order."""
    if folder is None:
        images, labels = load_digits(return_X_y=True)
        images, labels = (images / 16).astype(np.float32), labels.astype(np.int32)
    else:
        images, labels = load_mnist(folder)
    rows = np.random.default_rng(seed).permutation(len(images))[:count]
    return {"x": images[rows], "y": labels[rows]}


def make_loss(pixels, hidden, decay):
    """Return the number of weights, and the loss: cross-entropy + decay |w|^2 / 2."""
    template = {
        "in": (np.zeros((pixels, hidden), np.float32), np.zeros(hidden, np.float32)),
        "out": (np.zeros((hidden, 10), np.float32), np.zeros(10, np.float32)),
    }
    flat, unflatten = ravel_pytree(template)

    def loss(weights, rows):
        w = unflatten(weights)
        layer = jnp.tanh(rows["x"] @ w["in"][0] + w["in"][1])
        log_probability = jax.nn.log_softmax(layer @ w["out"][0] + w["out"][1])
        likelihood = jnp.take_along_axis(log_probability, rows["y"][:, None], axis=1)
        return -jnp.mean(likelihood) + decay * jnp.sum(weights**2) / 2

    return len(flat), loss


def find_minimum(loss, data, dim, seed):
    """Find a minimum of the loss by L-BFGS from random weights."""
    function = jax.jit(jax.value_and_grad(loss))

    def value_and_gradient(weights):
        value, gradient = function(jnp.asarray(weights, jnp.float32), data)
        return float(value), np.asarray(gradient, np.float64)

    start = 0.3 * np.random.default_rng(seed).standard_normal(dim)
    found = minimize(
        value_and_gradient, start, jac=True, method="L-BFGS-B", options={"maxiter": 2000}
    )
    return found.x.astype(np.float32), found.fun


def make_step(loss, data, batch_size, learning_rate, replacement):
    """Return ``step(key, weights)``: a minibatch step with replacement, or an epoch without."""
    if not replacement:
        algorithm = sg.sgd(jax.grad(loss), data, batch_size, learning_rate, order="examples")
        return lambda key, w: algorithm.step(key, algorithm.init(w, key))[0].position
    kernel, size = sg.sgd.build_kernel(), len(data["y"])

    def step(key, weights):
        rows = jax.random.randint(key, (batch_size,), 0, size)
        # With a single batch of new rows, an epoch of the kernel is one step.
        batches = FixedPartition(jax.tree.map(lambda x: jnp.asarray(x)[rows][None], data))
        state = sg.sgd.init(weights, key, 1)
        return kernel(key, state, jax.grad(loss), batches, learning_rate)[0].position

    return step


@partial(jax.jit, static_argnames=("step", "length"))
def run_block(step, key, weights, origin, components, length):
    """Return weights (chains, D) after ``length`` steps, and their projections on the way."""
    advance = jax.vmap(step)

    def one(w, key):
        w = advance(jax.random.split(key, len(w)), w)
        return w, (w - origin) @ components

    weights, path = jax.lax.scan(one, weights, jax.random.split(key, length))
    return weights, path.transpose(1, 0, 2)


class Result(NamedTuple):
    """The results in the leading components."""

    trajectory: np.ndarray
    circulation: np.ndarray
    covariance: np.ndarray
    production: object
    integral: list
    detailed: object


def analyse(path):
    """Estimate matrices on the first half of each chain, and test the theorems on the second."""
    half = path.shape[1] // 2
    center = path.mean(axis=(0, 1))
    first, second = path[:, :half], path[:, half:]
    covariance = trajectory_moments(first, (), center).covariance
    steps = np.diff(first, axis=1).reshape(-1, path.shape[2])
    diffusion = steps.T @ steps / (2 * len(steps))
    circulation = areal_velocity(first, center)
    sigma = entropy_production(second, circulation, covariance, diffusion, center)
    return Result(
        path - center,
        circulation,
        covariance,
        plug_in_entropy_production(path),
        [integral_fluctuation_theorem(sigma, n) for n in LENGTHS],
        detailed_fluctuation_theorem(sigma, bins=12),
    )


def simulate(key, step, start, chains, relaxation, draws, num_components):
    """Run the chains, and record ``draws`` steps in their leading components.

    Ten ``relaxation`` times come first, the last four of which determine the components. All steps
    run in blocks of one length, so that the loop is compiled once.
    """
    length, pilots = max(1, relaxation // 25), 250
    weights = jnp.tile(jnp.asarray(start), (chains, 1))
    components = jnp.zeros((len(start), num_components), jnp.float32)
    pilot, paths = [], []
    for i, block_key in enumerate(jax.random.split(key, pilots + -(-draws // length))):
        if i == pilots:
            found = project_principal_components(np.stack(pilot, axis=1), num_components)
            components = jnp.asarray(found.components, jnp.float32)
        weights, path = run_block(step, block_key, weights, start, components, length)
        if i >= pilots:
            paths.append(np.asarray(path, np.float64))
        elif i >= 0.6 * pilots:
            pilot.append(np.asarray(weights))
    return np.concatenate(paths, axis=1), found.explained


def print_result(name, result, explained):
    """Print the production and the tests of the theorems."""
    print(f"\n{name}: {len(result.covariance)} components, {explained:.0%} of the variance")
    share = np.linalg.norm(result.circulation) / np.linalg.norm(result.covariance)
    print(f"  circulation / covariance, in norm: {share:.2e} per step")
    p = result.production
    print(
        f"  entropy production per step: {p.rate:.2e} ± {p.standard_error:.1e} nats (plug-in, bias"
    )
    print(f"    {p.null_level:.1e} removed)")
    # The circulation is measured on n / 2 steps. Its error enters squared: d (d - 1) / (n / 2).
    print(f"  the error of the measured circulation adds about {2 * p.null_level:.1e} per step to")
    for theorem in result.integral:
        print(
            f"  <exp(-sigma)> over {theorem.length:2} steps: 1 {theorem.estimate - 1:+.1e} ± "
            f"{theorem.standard_error:.1e} ({theorem.z_score:+.1f} standard errors)"
        )
    print(
        f"  detailed theorem: slope {result.detailed.slope:.3f} ± {result.detailed.slope_error:.3f}"
    )


def plot_results(path, results):
    """Plot a row for each scheme: positions with mean velocity, and both theorems."""
    figure = Figure(figsize=(12.5, 7.4), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(len(results), 3)
    for row, (name, result) in zip(axes, results.items(), strict=True):
        # The plane with the largest circulation among those of two components.
        sd = np.sqrt(np.diag(result.covariance))
        scaled = result.circulation / np.outer(sd, sd)
        i, j = sorted(np.unravel_index(np.abs(scaled).argmax(), scaled.shape))
        points = result.trajectory[:, :: max(1, result.trajectory.shape[1] // 60)].reshape(
            -1, len(sd)
        )
        row[0].plot(points[:4000, i] / sd[i], points[:4000, j] / sd[j], ".", ms=1.5, color="0.7")
        grid = np.stack(np.meshgrid(*[np.linspace(-2, 2, 5)] * 2), -1).reshape(-1, 2)
        pair = [i, j]
        inverse = np.linalg.inv(result.covariance[np.ix_(pair, pair)])
        velocity = -result.circulation[np.ix_(pair, pair)] @ inverse @ (grid * sd[pair]).T
        row[0].quiver(
            *grid.T, *(velocity.T / sd[pair]).T, color="#009E73", angles="xy", width=0.007
        )
        row[0].set(xlim=(-3.2, 3.2), ylim=(-3.2, 3.2), aspect="equal", title=f"{name}: positions")
        row[0].set(xlabel=f"component {i + 1} [sd]", ylabel=f"component {j + 1} [sd]")
        result.detailed.plot(row[1])
        row[1].set_title(f"{name}: detailed theorem")
        values = [t.estimate - 1 for t in result.integral]
        errors = [t.standard_error for t in result.integral]
        row[2].errorbar(LENGTHS, values, errors, fmt="o", capsize=4)
        row[2].axhline(0, color="0.5", lw=1)
        row[2].ticklabel_format(axis="y", scilimits=(-2, 2))
        row[2].set(xlabel="steps in a stretch", ylabel=r"$\langle e^{-\sigma}\rangle - 1$")
        row[2].set_title(f"{name}: integral theorem")
    figure.savefig(path, dpi=150)


def main(argv=None):
    """Print and plot the theorems; return the results with and without replacement."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--data", type=Path, help="folder of the MNIST files (default: 8 x 8 digits)"
    )
    parser.add_argument("--examples", type=int, default=1500, help="images used")
    parser.add_argument("--hidden", type=int, default=6, help="hidden units")
    parser.add_argument("--batch-size", type=int, default=50, help="images in a batch")
    parser.add_argument("--learning-rate", type=float, default=0.2, help="eta")
    parser.add_argument("--decay", type=float, default=0.01, help="weight decay, in the loss")
    parser.add_argument("--components", type=int, default=6, help="components looked at")
    parser.add_argument("--chains", type=int, default=48, help="chains of SGD")
    parser.add_argument("--steps", type=int, default=16_000, help="recorded steps with replacement")
    parser.add_argument("--epochs", type=int, default=2000, help="recorded epochs without")
    parser.add_argument("--seed", type=int, default=0, help="seed of everything")
    parser.add_argument("--out", type=Path, default=Path("out"), help="folder of the picture")
    options = parser.parse_args(argv)
    began = time.monotonic()
    try:
        data = make_data(options.data, options.examples, options.seed)
    except (OSError, ValueError) as error:
        parser.error(str(error))
    size = len(data["y"])
    dim, loss = make_loss(data["x"].shape[1], options.hidden, options.decay)
    minimum, value = find_minimum(loss, data, dim, options.seed)
    print(f"{size} images of {data['x'].shape[1]} pixels, {dim} weights, loss {value:.4f}")
    count = -(-size // options.batch_size)
    relaxation = int(1 / (options.learning_rate * options.decay))
    results = {}
    for replacement, name, draws, longest, key in zip(
        (True, False),
        ("with replacement", "without replacement"),
        (options.steps, options.epochs),
        (relaxation, -(-relaxation // count)),
        jax.random.split(jax.random.key(options.seed)),
        strict=True,
    ):
        step = make_step(loss, data, options.batch_size, options.learning_rate, replacement)
        sizes = (options.chains, longest, draws, options.components)
        path, explained = simulate(key, step, minimum, *sizes)
        results[name] = analyse(path)
        print_result(name, results[name], explained)
    options.out.mkdir(parents=True, exist_ok=True)
    path = options.out / "nonequilibrium_digits.png"
    plot_results(path, results)
    print(f"\n{path}, {time.monotonic() - began:.0f} s")
    return results


if __name__ == "__main__":
    main()
