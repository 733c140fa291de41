"""Study a network with seven weights as a nonequilibrium system, with and without replacement.

python examples/nonequilibrium_regression.py [--chains 512] [--relaxation-times 3] [--seed 26]

This is the first numerical example of "Machine learning in and out of equilibrium"
(arXiv:2306.03521). It has 200 points of y = exp(-x^2) + 0.1 noise, the network
w5 tanh(w1 x + w3) + w6 tanh(w2 x + w4) + w7, the loss
N / (2 sigma^2) (mean squared error + 0.001 |w|^2), batches of 10 and the learning rate 1e-7. The
paper ran one chain for 3e7 steps; here many chains run side by side, in float64.

The seed decides the data. All of 0, ..., 59 lead to the same kind of minimum (smallest eigenvalue
of the Hessian 52 to 57, condition number about 500); 26 has one of the larger circulations, which
shortens the run that measures it.
"""

import argparse
import time
from functools import partial
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.patches import Ellipse

from sgworld_mcmc.nonequilibrium import (
    areal_velocity,
    circulation_matrix,
    detailed_fluctuation_theorem,
    diffusion_matrix,
    effective_minimum,
    entropy_production,
    entropy_production_rate,
    integral_fluctuation_theorem,
    loss_hessian,
    stationary_covariance,
    trajectory_moments,
)

SIZE, BATCH, SIGMA, DECAY, LEARNING_RATE = 200, 10, 0.1, 0.001, 1e-7
COUNT = SIZE // BATCH
# The search starts near one of the mirror images of the minimum: exchanging the two neurons, or the
# signs of the weights of one of them, changes nothing.
START = np.array([-1.1, -1.2, -0.6, 0.65, -0.9, 0.9, 0.0])
LENGTHS = (1, 2, 3, 10)
BLOCK = 2**21  # chain steps simulated, and recorded, at a time: 120 MB


def example_loss(weights, example):
    """Return the loss of an example, whose mean over the data is the loss.

    Weights are (7,), or (7, chains) with examples (B, chains).
    """
    w, x = weights, example["x"]
    output = w[4] * jnp.tanh(w[0] * x + w[2]) + w[5] * jnp.tanh(w[1] * x + w[3]) + w[6]
    error = (output - example["y"]) ** 2
    return SIZE / (2 * SIGMA**2) * (error + DECAY * jnp.sum(w**2, axis=0))


def make_data(seed):
    """Make the 200 points."""
    x = -3 + 0.03 * np.arange(SIZE)
    noise = np.random.default_rng(seed).standard_normal(SIZE)
    return {"x": x, "y": np.exp(-(x**2)) + SIGMA * noise}


@partial(jax.jit, static_argnames="every")
def _run(weights, rows, data, every):
    """Make steps of all chains with the batches ``rows`` (steps, B, chains).

    Returns the weights (7, chains) at the end, and those after every ``every`` steps,
    (steps / every, 7, chains).
    """

    def loss(w, batch):
        return jnp.sum(jnp.mean(example_loss(w, batch), axis=0))

    def step(w, batch_rows):
        batch = {name: x[batch_rows.astype(jnp.int32)] for name, x in data.items()}
        return w - LEARNING_RATE * jax.grad(loss)(w, batch), None

    def record(w, some):
        w = jax.lax.scan(step, w, some)[0]
        return w, w

    return jax.lax.scan(record, weights, rows.reshape(-1, every, *rows.shape[1:]))


def fresh_batches(rng, steps, chains):
    """Draw row numbers (steps, B, chains): distinct within a batch, in independent batches."""
    rows = np.empty((steps, BATCH, chains), dtype=np.uint8)
    # Floyd's algorithm runs a few steps at a time, so that the comparisons stay in the cache.
    some = max(1, 2**15 // chains)
    for part in (rows[k : k + some] for k in range(0, steps, some)):
        drawn = np.empty((BATCH, len(part), chains), dtype=np.uint8)
        for i, last in enumerate(range(SIZE - BATCH, SIZE)):
            row = rng.integers(0, last, drawn.shape[1:], dtype=np.uint8, endpoint=True)
            taken = np.zeros(row.shape, dtype=bool)
            for earlier in drawn[:i]:
                taken |= earlier == row
            drawn[i] = np.where(taken, np.uint8(last), row)
        part[:] = drawn.transpose(1, 0, 2)
    return rows


def shuffled_batches(rng, steps, chains):
    """Draw row numbers (steps, B, chains): all rows once an epoch, in a new order each epoch."""
    order = np.tile(np.arange(SIZE, dtype=np.uint8), (steps // COUNT * chains, 1))
    order = rng.permuted(order, axis=1).reshape(-1, chains, COUNT, BATCH)
    return order.transpose(0, 2, 3, 1).reshape(steps, BATCH, chains)


def trajectories(rng, weights, data, batches, steps, every):
    """Yield (number, total, block (chains, draws, 7), last weights (7, chains)) for each block.

    Weights are recorded every ``every`` steps, or at the ends of blocks if None. All blocks have
    the same length, so that the loop is compiled once.
    """
    chains = weights.shape[1]
    length = max(COUNT, min(BLOCK // chains, steps) // COUNT * COUNT)
    total = max(1, round(steps / length))
    for number in range(total):
        rows = batches(rng, length, chains)
        with jax.enable_x64(True):
            weights, path = _run(weights, rows, data, every or length)
        yield number, total, np.asarray(path).transpose(2, 0, 1), np.asarray(weights)


class Theory(NamedTuple):
    """The linear theory about ``center``, per step with replacement and per epoch without."""

    center: np.ndarray
    covariance: np.ndarray
    diffusion: np.ndarray
    circulation: np.ndarray
    rate: float


def linear_theory(data, replacement, num_orders=4096):
    """Return the theory about the minimum of the (effective) loss, and the relaxation time.

    The relaxation time is that of the softest mode, in steps.
    """
    settings = (data, BATCH, LEARNING_RATE, replacement)
    center = effective_minimum(example_loss, *settings, START)
    hessian = loss_hessian(example_loss, center, data)
    diffusion = diffusion_matrix(example_loss, center, *settings, num_orders=num_orders)
    time_step = LEARNING_RATE * (1 if replacement else COUNT)
    covariance = stationary_covariance(hessian, diffusion, time_step)
    circulation = circulation_matrix(hessian, covariance, time_step)
    rate = entropy_production_rate(circulation, covariance, diffusion)
    relaxation = 1 / (LEARNING_RATE * np.linalg.eigvalsh(hessian)[0])
    return Theory(center, covariance, diffusion, circulation, rate), relaxation


class Simulation(NamedTuple):
    """The moments of a simulation about ``center`` + deviation, and the errors of their norms."""

    deviation: np.ndarray
    covariance: np.ndarray
    areal_velocity: np.ndarray
    errors: tuple  # of the three norms, from groups of chains
    sigma: np.ndarray  # (chains, steps), entropy production
    positions: np.ndarray  # (n, 7), some of them


def measure(blocks, theory, thin, num_sigma):
    """Average over blocks (chains, draws, 7); use ``num_sigma`` of them for the production."""
    sums, sigma, positions = [], [], []
    blocks_of_sigma = None
    for number, total, block in blocks:
        if blocks_of_sigma is None:
            blocks_of_sigma = set(np.linspace(0, total - 1, num_sigma).astype(int))
        groups = np.array_split(block, min(8, len(block)))
        moments = [trajectory_moments(part[:, ::thin], (), theory.center) for part in groups]
        areas = [areal_velocity(part, theory.center) for part in groups]
        means = [m.mean - theory.center for m in moments]
        sums.append((means, [m.covariance for m in moments], areas))
        positions.append(block[:, -1] - theory.center)
        if number in blocks_of_sigma:
            matrices = (theory.circulation, theory.covariance, theory.diffusion)
            sigma.append(entropy_production(block, *matrices, theory.center))
    results = [np.mean([np.stack(s[i]) for s in sums], axis=0) for i in range(3)]
    scale = np.sqrt(len(results[0]) * max(1, len(results[0]) - 1))
    errors = tuple(np.linalg.norm(r - r.mean(axis=0)) / scale for r in results)
    mean, second, area = (r.mean(axis=0) for r in results)
    return Simulation(
        mean,
        second - np.outer(mean, mean),
        area,
        errors,
        np.concatenate(sigma),
        np.concatenate(positions)[-20_000:],
    )


def distance(one, other):
    """Return the distance of two arrays, relative to the norm of the second."""
    return float(np.linalg.norm(one - other) / np.linalg.norm(other))


def with_replacement(rng, data, chains, duration, theory, relaxation):
    """Compare simulation with theory; return both, and the detailed theorem.

    The chains start in the predicted Gaussian, for a short burn-in, and run half of ``duration``
    relaxation times before anything is measured: an error in the predicted variance falls by e^-1
    in half a relaxation time.
    """
    start = rng.multivariate_normal(theory.center, theory.covariance, chains).T
    steps = int(duration * relaxation)
    *_, burnt = trajectories(rng, start, data, fresh_batches, steps // 2, None)
    blocks = trajectories(rng, burnt[-1], data, fresh_batches, steps, 1)
    found = measure((b[:3] for b in blocks), theory, thin=50, num_sigma=5)
    print(f"\nWith replacement: {chains} chains of {steps} steps, {duration:g} relaxation times")
    report(found, theory)
    ratio = found.sigma.mean() / theory.rate
    error = found.sigma.mean(axis=1).std() / np.sqrt(len(found.sigma)) / theory.rate
    print(f"  entropy production per step: {theory.rate:.4g} nats in theory,")
    print(f"    simulated {ratio:.3f} ± {error:.3f} times that, in {found.sigma.size} steps")
    return theory, found, print_theorems(found.sigma)


def without_replacement(rng, data, chains, duration, plain_minimum, num_orders):
    """Compare simulation with theory, with epochs as steps; return both, and the detailed theorem.

    The chains start at the minimum of the plain loss, not of the effective one, and get 8
    relaxation times to leave it.
    """
    theory, relaxation = linear_theory(data, False, num_orders)
    steps = int(duration * relaxation)
    burn_in = min(8 * int(relaxation), 8 * steps)
    start = np.tile(plain_minimum[:, None], (1, chains))
    *_, burnt = trajectories(rng, start, data, shuffled_batches, burn_in, None)
    blocks = trajectories(rng, burnt[-1], data, shuffled_batches, steps, COUNT)
    found = measure((b[:3] for b in blocks), theory, thin=1, num_sigma=10**6)
    print(f"\nWithout replacement: {chains} chains of {steps // COUNT} epochs of {COUNT} batches")
    size = np.linalg.norm(plain_minimum)
    shift = np.linalg.norm(theory.center - plain_minimum) / size
    print(f"  effective minimum: {shift:.2e} from the plain one, relative to its norm")
    print(f"  simulated mean: {np.linalg.norm(found.deviation) / size:.2e} from the effective")
    print(f"    minimum (Monte Carlo error {found.errors[0] / size:.1e}),", end=" ")
    print(f"{np.linalg.norm(theory.center + found.deviation - plain_minimum) / size:.2e} from the")
    print("    plain one")
    report(found, theory)
    return theory, found, print_theorems(found.sigma)


def report(found, theory):
    """Print how far covariance and areal velocity are from theory, in norm."""
    for name, i, value in (
        ("covariance", 1, theory.covariance),
        ("areal velocity", 2, theory.circulation),
    ):
        norm = np.linalg.norm(value)
        print(
            f"  {name}: norm {norm:.3e}, simulated {distance(found[i], value):.2%} off "
            f"(Monte Carlo error {found.errors[i] / norm:.2%})"
        )


def print_theorems(sigma):
    """Print the integral theorem for some lengths, and the slope of the detailed one."""
    for length in LENGTHS:
        result = integral_fluctuation_theorem(sigma, length)
        print(
            f"  <exp(-sigma)> over {length:2} steps: 1 {result.estimate - 1:+.1e} ± "
            f"{result.standard_error:.1e} ({result.z_score:+.1f} standard errors)"
        )
    result = detailed_fluctuation_theorem(sigma)
    print(f"  slope of the detailed theorem: {result.slope:.4f} ± {result.slope_error:.4f}")
    return result


def plot_results(path, replaced, shuffled, plain_minimum):
    """Plot results with replacement in the upper panels, and without in the lower ones."""
    (theory, found, detailed), (cold, cold_found, _) = replaced, shuffled
    figure = Figure(figsize=(12, 7.2), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(2, 3)
    plot_cloud(axes[0, 0], theory, found)
    upper = np.triu_indices(7, 1)
    for ax, index, value, title in (
        (axes[0, 1], 2, theory.circulation, "areal velocity, with replacement"),
        (axes[1, 1], 1, cold.covariance, "covariance, without replacement"),
    ):
        entries = upper if index == 2 else np.triu_indices(7)
        simulated = found[2] if index == 2 else cold_found[1]
        limit = 1.1 * np.abs(value[entries]).max() * np.array([-1, 1])
        ax.plot(limit, limit, color="0.6", lw=1)
        ax.plot(value[entries], simulated[entries], "o", ms=5, color="#0072B2")
        ax.set(xlabel="theory, each entry", ylabel="simulation", title=title)
    detailed.plot(axes[0, 2])
    axes[0, 2].set_title("detailed theorem, with replacement")
    shift = (cold.center - plain_minimum) * 1e5
    places = np.arange(7)
    axes[1, 0].bar(places - 0.2, shift, 0.4, color="#56B4E9", label="effective minimum")
    simulated = (cold.center + cold_found.deviation - plain_minimum) * 1e5
    axes[1, 0].bar(places + 0.2, simulated, 0.4, color="#D55E00", label="simulated mean")
    axes[1, 0].axhline(0, color="0.3", lw=0.8)
    axes[1, 0].set(title="without: shift from the plain minimum", ylabel="$10^{-5}$")
    axes[1, 0].set_xticks(places, [f"$w_{i + 1}$" for i in places])
    axes[1, 0].set_ylim(top=1.5 * np.abs(shift).max())
    axes[1, 0].legend(frameon=False, loc="upper left")
    for t, color, label in ((theory, "#D55E00", "with"), (cold, "#0072B2", "without")):
        values = np.sqrt(np.linalg.eigvalsh(t.covariance))[::-1]
        simulated = (found if t is theory else cold_found).covariance
        axes[1, 2].semilogy(places + 1, values, "_", ms=16, color=color, label=f"{label}, theory")
        sizes = np.sqrt(np.linalg.eigvalsh(simulated))[::-1]
        axes[1, 2].semilogy(places + 1, sizes, "o", ms=4, color=color, label="simulation")
    axes[1, 2].set(xlabel="principal component", title="standard deviation of the weights")
    axes[1, 2].set_ylim(bottom=values.min() / 30)
    axes[1, 2].legend(frameon=False, ncols=2, loc="lower left")
    figure.savefig(path, dpi=150)


def plot_cloud(ax, theory, found):
    """Plot positions in the plane of the largest circulation, and the mean velocity there."""
    scale = np.linalg.cholesky(theory.covariance)
    white = np.linalg.solve(scale, np.linalg.solve(scale, theory.circulation).T)
    left, *_ = np.linalg.svd(white)
    plane = np.linalg.solve(scale.T, left[:, :2])  # coordinates of unit variance
    points = found.positions @ plane
    ax.plot(*points[:3000].T, ".", ms=2, color="0.7", zorder=0)
    for covariance, color, style, label in (
        (theory.covariance, "#0072B2", "-", "theory, 2 sd"),
        (found.covariance, "#D55E00", "--", "simulation"),
    ):
        values, vectors = np.linalg.eigh(plane.T @ covariance @ plane)
        width, height = 4 * np.sqrt(values)
        angle = np.degrees(np.arctan2(vectors[1, 0], vectors[0, 0]))
        shape = {"fill": False, "ec": color, "ls": style, "lw": 1.6, "label": label}
        ax.add_patch(Ellipse((0, 0), width, height, angle=angle, **shape))
    grid = np.stack(np.meshgrid([-2, -1, 0, 1, 2], [-2, -1, 0, 1, 2]), -1).reshape(-1, 2)
    # In whitened coordinates the conditional mean of the other coordinates is 0.
    velocity = -(plane.T @ theory.circulation @ plane) @ grid.T
    ax.quiver(*grid.T, *velocity, color="#009E73", angles="xy", width=0.006)
    ax.set(xlim=(-3, 3), ylim=(-3, 3), aspect="equal", title="with replacement: mean velocity")
    ax.set(xlabel="plane of largest circulation", ylabel="in units of sd")
    ax.legend(frameon=False, loc="upper right", fontsize=8)


def main(argv=None):
    """Print theory against simulation; return (Theory, Simulation, detailed theorem) twice."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--chains", type=int, default=512, help="number of chains with replacement")
    parser.add_argument("--chains-without", type=int, default=32, help="number of chains without")
    parser.add_argument(
        "--relaxation-times", type=float, default=3.0, help="of the softest mode, per chain"
    )
    parser.add_argument(
        "--orders", type=int, default=4096, help="orders sampled for the diffusion without"
    )
    parser.add_argument("--seed", type=int, default=26, help="seed of the data")
    parser.add_argument("--out", type=Path, default=Path("out"), help="folder of the picture")
    options = parser.parse_args(argv)
    began = time.monotonic()
    data = make_data(options.seed)
    rng = np.random.default_rng([options.seed, 1])
    theory, relaxation = linear_theory(data, replacement=True)
    print(f"minimum {np.array2string(theory.center, precision=4)}")
    print(f"relaxation time of the softest mode: {relaxation:.0f} steps")
    duration = options.relaxation_times
    replaced = with_replacement(rng, data, options.chains, duration, theory, relaxation)
    shuffled = without_replacement(
        rng, data, options.chains_without, duration, theory.center, options.orders
    )
    per_epoch = COUNT * np.linalg.norm(replaced[1].areal_velocity)
    ratio = np.linalg.norm(shuffled[1].areal_velocity) / per_epoch
    print(f"\nCirculation per epoch, without over with replacement: {ratio:.1e} (simulated)")
    ratio = np.trace(shuffled[1].covariance) / np.trace(replaced[1].covariance)
    print(f"Total variance, without over with replacement: {ratio:.1e} (simulated)")
    options.out.mkdir(parents=True, exist_ok=True)
    path = options.out / "nonequilibrium_regression.png"
    plot_results(path, replaced, shuffled, theory.center)
    print(f"{path}, {time.monotonic() - began:.0f} s")
    return replaced, shuffled


if __name__ == "__main__":
    main()
