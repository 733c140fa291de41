"""How the weights of SGD with momentum move: linear regression against its exact theory.

python examples/limiting_dynamics.py [--chains 40000] [--steps 1000]

After Kunin et al., "The Limiting Dynamics of SGD" (arXiv:2107.09133); docs/limiting_dynamics.md.
Many chains of SGD start at one point and are followed to stationarity, and from there on for their
displacement. 32 examples, each batch 32 of them drawn independently: an epoch of the kernel is then
one step, and every step can be looked at.
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

import sgworld_mcmc as sg
from sgworld_mcmc.nonequilibrium import areal_velocity, detailed_balance_violation
from sgworld_mcmc.nonequilibrium.momentum import LinearRegressionDynamics

BATCH, LEARNING_RATE, MOMENTUM, WEIGHT_DECAY = 32, 0.02, 0.9, 0.01
CURVATURES = np.geomspace(1.0, 0.03, 6)
LAGS = np.unique(np.geomspace(1, 1000, 16).astype(int))


def make_regression(seed):
    """Make rows (x, y) whose Hessian has exactly the eigenvalues CURVATURES."""
    rng = np.random.default_rng(seed)
    left = np.linalg.qr(rng.standard_normal((BATCH, 6)))[0]
    right = np.linalg.qr(rng.standard_normal((6, 6)))[0]
    features = np.sqrt(BATCH * CURVATURES) * left @ right.T
    targets = features @ rng.standard_normal(6) + rng.standard_normal(BATCH)
    return {"x": features, "y": targets}


def regression_loss(theta, rows):
    """Return half the mean squared error."""
    return jnp.mean((rows["y"] - rows["x"] @ theta) ** 2) / 2


def regression_theory(data):
    """Return the exact dynamics around the minimum of the loss with its weight decay."""
    features, targets = data["x"], data["y"]
    hessian = features.T @ features / len(targets)
    minimum = np.linalg.solve(
        hessian + WEIGHT_DECAY * np.eye(6), features.T @ targets / len(targets)
    )
    gradients = features * (features @ minimum - targets)[:, None]
    noise = np.cov(gradients.T, ddof=0)
    return LinearRegressionDynamics(
        hessian, noise, LEARNING_RATE, MOMENTUM, BATCH, WEIGHT_DECAY, minimum
    )


class Run(NamedTuple):
    """Moments over the chains after each step, and their motion at stationarity."""

    means: np.ndarray  # (steps, 12) of position and velocity
    covariances: np.ndarray  # (steps, 12, 12)
    displacements: np.ndarray  # (lags up to the longest,)
    paths: np.ndarray  # (some chains, steps, 12)


@partial(jax.jit, static_argnames=("loss", "settings", "chains", "steps", "longest"))
def _simulate(key, loss, data, start, settings, chains, steps, longest):
    learning_rate, momentum, decay = settings
    size = len(jax.tree.leaves(data)[0])
    algorithm = sg.sgd(
        jax.grad(loss), data, size, learning_rate, momentum, decay, order="replacement"
    )
    advance = jax.vmap(algorithm.step)

    def phase_space(states):
        return jnp.concatenate([states.position, -states.velocity], axis=1)

    def transient(states, key):
        states, _ = advance(jax.random.split(key, chains), states)
        z = phase_space(states)
        centered = z - z.mean(axis=0)
        return states, (z.mean(axis=0), centered.T @ centered / (chains - 1))

    def stationary(carry, key):
        states, origin = carry
        states, _ = advance(jax.random.split(key, chains), states)
        moved = jnp.mean(jnp.sum((states.position - origin) ** 2, axis=1))
        return (states, origin), (moved, phase_space(states)[:400])

    keys = jax.random.split(key, steps + longest + 1)
    begin = lambda k: algorithm.init(jnp.asarray(start, jnp.float32), k)  # noqa: E731
    states = jax.vmap(begin)(jax.random.split(keys[0], chains))
    states, moments = jax.lax.scan(transient, states, keys[1 : steps + 1])
    _, after = jax.lax.scan(stationary, (states, states.position), keys[steps + 1 :])
    return *moments, after[0], after[1].transpose(1, 0, 2)


def simulate(*arguments):
    """Run ``steps`` steps of all chains from ``start``, then ``longest`` more at stationarity.

    The arguments are (key, loss, data, start, settings, chains, steps, longest).
    """
    return Run(*(np.asarray(x, np.float64) for x in _simulate(*arguments)))


def compare(theory, found, start, times):
    """Print simulation against exact and continuous theory; return the largest deviations."""
    exact, model = theory.covariance(times), theory.covariance(times, continuous=True)
    simulated = found.covariances[times - 1]
    sd = np.sqrt(np.diagonal(exact, axis1=1, axis2=2))
    mean = np.abs(found.means[times - 1] - theory.mean(times, start)) / sd
    print("  relative distance of the simulation, in norm, from exact theory (continuous theory)")
    print("  step    position cov.      velocity cov.   largest of 12 variances   mean [sd]")
    worst = []
    for i, k in enumerate(times):
        cells = []
        for block in (slice(0, 6), slice(6, 12)):
            norms = [
                np.linalg.norm((simulated - t)[i, block, block])
                / np.linalg.norm(t[i, block, block])
                for t in (exact, model)
            ]
            cells.append("{:6.2%} ({:7.2%})".format(*norms))
            worst.append(norms[0])
        diagonal = np.abs(np.diag(simulated[i]) / np.diag(exact[i]) - 1).max()
        worst.append(diagonal)
        print(f"  {k:4}  {cells[0]}  {cells[1]}       {diagonal:6.2%}          {mean[i].max():.3f}")
    lags = LAGS[LAGS <= len(found.displacements)]
    exact_moved = theory.mean_squared_displacement(lags)
    errors = found.displacements[lags - 1] / exact_moved - 1
    model_errors = found.displacements[lags - 1] / theory.mean_squared_displacement(lags, True) - 1
    print("  mean squared displacement at stationarity, relative deviation")
    for lag, error, other in zip(lags, errors, model_errors, strict=True):
        print(f"  lag {lag:4}: {error:+7.2%} ({other:+7.2%})")
    return max(worst), np.abs(errors).max()


def phase_space_section(theory, found):
    """Print the oscillation and the circulation between position and velocity."""
    print("  frequency of each mode, radians per step (0: overdamped): exact, continuous")
    for exact, model in zip(
        theory.oscillation_frequencies(), theory.oscillation_frequencies(True), strict=True
    ):
        print(f"    {exact * LEARNING_RATE:.4f}  {model * LEARNING_RATE:.4f}")
    lagged = theory.transition() @ theory.stationary_covariance()
    circulation = (lagged.T - lagged) / 2
    measured = areal_velocity(found.paths, np.concatenate([theory.minimum, np.zeros(6)]))
    ratio = np.trace(measured[:6, 6:]) / np.trace(circulation[:6, 6:])
    print(f"  circulation between positions and velocities: {ratio:.3f} times the exact one")


def reversibility_section(key, chains, steps):
    """Test the reversibility of two quadratic losses in two dimensions that differ in their noise.

    The test can tell positions from their time reverse only if the noise does not commute with the
    curvature.
    """
    rng = np.random.default_rng(5)
    white = rng.standard_normal((16, 2))
    white -= white.mean(axis=0)
    white = white @ np.linalg.inv(np.linalg.cholesky(np.cov(white.T, ddof=0))).T
    curvature = np.array([1.0, 0.3])

    def loss(x, rows):
        return jnp.sum(curvature * x**2) / 2 - jnp.mean(rows @ x)

    print("\nIs the stationary process reversible? p-values of the test of detailed balance")
    p_values = []
    for name, factor, own_key in zip(
        ("commutes with the curvature", "does not commute with it"),
        (np.diag(np.sqrt(curvature)), np.array([[1.0, 0.0], [0.45, 0.32]])),
        jax.random.split(key),
        strict=True,
    ):
        rows = white @ factor.T
        found = simulate(own_key, loss, rows, np.zeros(2), (0.02, 0.9, 0.0), chains, 300, steps)
        values = [
            detailed_balance_violation(path, lags=(1, 5, 20)).p_value
            for path in (found.paths[..., :2], found.paths)
        ]
        p_values.append(values)
        print(f"  noise {name}: positions p = {values[0]:.2g}, phase space p = {values[1]:.2g}")
    print("  Small p in phase space says nothing: velocities are odd under time reversal.")
    return p_values


def displacement_of_spectrum(curvatures, lags):
    """Sum the exact mean squared displacements of the modes for C = H / B."""
    total = np.zeros(len(lags))
    for a in curvatures:
        mode = LinearRegressionDynamics([[a]], [[a]], 0.001, MOMENTUM, BATCH)
        total += mode.mean_squared_displacement(lags)
    return total


def spectra_section(modes):
    """Fit the exponent of the displacement for eigenvalues i^-s.

    It is 1/s between the relaxation times of the stiffest and of the softest mode, since t^(1/s)
    modes have relaxed after a time t.
    """
    print(f"\nDisplacement ~ lag^exponent for the eigenvalues i^-s, i = 1, ..., {modes}")
    curves = {}
    for s in (1.5, 2.0, 3.0):
        curvatures = np.arange(1, modes + 1.0) ** -s
        relaxation = (1 - MOMENTUM) / (0.001 * curvatures)
        lags = np.unique(np.geomspace(1, 30 * relaxation[-1], 41).astype(int))
        moved = displacement_of_spectrum(curvatures, lags)
        window = (lags > 5 * relaxation[0]) & (lags < relaxation[-1] / 20)
        slope = np.polyfit(np.log(lags[window]), np.log(moved[window]), 1)[0]
        print(f"  s = {s}: exponent {slope:.3f}, expected {1 / s:.3f}")
        curves[s] = (lags, moved, slope)
    return curves


def plot_results(path, theory, found, start, curves):
    """Plot phase plane, variances from start to stationarity, displacements and losses."""
    figure = Figure(figsize=(13, 7.6), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(2, 3)
    steps = np.arange(1, len(found.means) + 1)
    vectors = np.linalg.eigh(theory.hessian)[1][:, ::-1]
    colors = [f"C{i}" for i in range(6)]
    centered = start - theory.minimum
    mean = found.means - np.concatenate([theory.minimum, np.zeros(6)])
    for mode in (0, 3):
        v = vectors[:, mode]
        for continuous, style in ((False, "-"), (True, ":")):
            line = theory.mean(np.arange(150), start, continuous)
            line = line - np.concatenate([theory.minimum, np.zeros(6)])
            axes[0, 0].plot(line[:, :6] @ v, line[:, 6:] @ v, style, color=colors[mode])
        shown = slice(0, 150, 4)
        x, u = mean[shown, :6] @ v, mean[shown, 6:] @ v
        label = f"mode {mode + 1}, simulated"
        axes[0, 0].plot(x, u, "o", ms=3.5, color=colors[mode], label=label)
        axes[0, 0].plot(centered @ v, 0, "k*", ms=9)
    axes[0, 0].set(xlabel="mean position", ylabel="mean velocity", title="phase plane of a mode")
    axes[0, 0].legend(frameon=False, fontsize=8)
    times = np.unique(np.geomspace(1, len(steps), 60).astype(int))
    exact, model = theory.covariance(times), theory.covariance(times, continuous=True)
    for ax, block, name in (
        (axes[0, 1], slice(0, 6), "position"),
        (axes[0, 2], slice(6, 12), "velocity"),
    ):
        for mode, v in enumerate(vectors.T):
            along = lambda c, b=block, v=v: np.einsum("i,kij,j->k", v, c[:, b, b], v)  # noqa: E731
            ax.loglog(times, along(exact), color=colors[mode], lw=1)
            ax.loglog(times, along(model), ":", color=colors[mode], lw=1)
            simulated = along(found.covariances[times[::3] - 1])
            ax.loglog(times[::3], simulated, "o", ms=3, color=colors[mode])
        ax.set(xlabel="step", title=f"{name} variance of each mode")
    lags = np.arange(1, len(found.displacements) + 1)
    some = np.unique(np.geomspace(1, len(lags), 30).astype(int))
    axes[1, 0].loglog(some, found.displacements[some - 1], "o", ms=4, label="simulated")
    axes[1, 0].loglog(some, theory.mean_squared_displacement(some), lw=1, label="exact")
    model = theory.mean_squared_displacement(some, True)
    axes[1, 0].loglog(some, model, ":", lw=1.5, label="continuous")
    axes[1, 0].set(xlabel="lag [steps]", title="mean squared displacement")
    axes[1, 0].legend(frameon=False)
    plot_losses(axes[1, 1], theory, found, vectors[:, [0, -1]])
    for s, (lags, moved, slope) in curves.items():
        axes[1, 2].loglog(lags, moved / moved[-1], label=f"$s={s:g}$: lag$^{{{slope:.2f}}}$")
    axes[1, 2].set(xlabel="lag [steps]", title="displacement for eigenvalues $i^{-s}$ (theory)")
    axes[1, 2].legend(frameon=False)
    figure.text(0.5, -0.02, "lines: exact; dotted: continuous; dots: simulated", ha="center")
    figure.savefig(path, dpi=150, bbox_inches="tight")


def plot_losses(ax, theory, found, plane):
    """Draw levels of the training loss and of the modified loss in the plane of two modes."""
    points = (found.paths[:, ::25, :6].reshape(-1, 6) - theory.minimum) @ plane
    sd = points.std(axis=0)
    ax.plot(*points[:4000].T, ".", ms=1.5, color="0.7")
    grid = np.stack(np.meshgrid(*(np.linspace(-4, 4, 81) * s for s in sd)), axis=-1)
    flat = grid @ plane.T + theory.minimum
    decayed = theory.hessian + WEIGHT_DECAY * np.eye(6)
    training = np.einsum("abi,ij,abj->ab", grid @ plane.T, decayed, grid @ plane.T)
    modified = theory.modified_loss(flat)
    # The levels of each loss are relative to its mean over the positions.
    own = lambda f: np.mean(f) * np.array([0.3, 1, 2.5])  # noqa: E731
    cloud = points @ plane.T
    levels = own(np.einsum("ki,ij,kj->k", cloud, decayed, cloud))
    ax.contour(*np.moveaxis(grid, -1, 0), training, levels, colors="#D55E00", linestyles="--")
    levels = own(theory.modified_loss(cloud + theory.minimum))
    ax.contour(*np.moveaxis(grid, -1, 0), modified, levels, colors="#0072B2")
    ax.plot([], [], "--", color="#D55E00", label="training loss")
    ax.plot([], [], color="#0072B2", label="modified loss")
    ax.set(xlabel="stiffest mode", ylabel="softest mode", title="stationary positions")
    ax.set(xlim=(-4 * sd[0], 4 * sd[0]), ylim=(-4 * sd[1], 5.5 * sd[1]))
    ax.legend(frameon=False, loc="upper right", fontsize=8)


def main(argv=None):
    """Print simulation against theory; return the largest deviations, p-values and curves."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--chains", type=int, default=40_000, help="chains of SGD")
    parser.add_argument("--steps", type=int, default=1000, help="from the start, then as many")
    parser.add_argument("--modes", type=int, default=1000, help="eigenvalues of a spectrum")
    parser.add_argument("--seed", type=int, default=0, help="seed of the data and the chains")
    parser.add_argument("--out", type=Path, default=Path("out"), help="folder of the picture")
    options = parser.parse_args(argv)
    began = time.monotonic()
    data = make_regression(options.seed)
    theory = regression_theory(data)
    # Chains start near the minimum, because the theory leaves out the noise of the batch Hessians,
    # which grows with the distance: from 1.5 standard deviations it raises the first covariances by
    # 8 %.
    start = theory.minimum + 0.2 * np.sqrt(np.diag(theory.stationary_covariance())[:6])
    keys = jax.random.split(jax.random.key(options.seed), 2)
    settings = (LEARNING_RATE, MOMENTUM, WEIGHT_DECAY)
    found = simulate(
        keys[0],
        regression_loss,
        data,
        start,
        settings,
        options.chains,
        options.steps,
        options.steps,
    )
    print(f"Linear regression, 6 weights, momentum 0.9, {options.chains} chains")
    print(f"  Monte Carlo error of a variance: {np.sqrt(2 / options.chains):.2%}")
    excess = LEARNING_RATE * CURVATURES.sum() / (2 * BATCH * (1 - MOMENTUM))
    print(f"  left out by the theory, noise of the batch Hessians: about {excess:.2%}")
    times = np.array([1, 2, 5, 10, 20, 50, 100, 200, 500, 1000])
    worst = compare(theory, found, start, times[times <= options.steps])
    print(f"  largest deviation: {worst[0]:.2%} (covariances), {worst[1]:.2%} (displacements)")
    phase_space_section(theory, found)
    p_values = reversibility_section(keys[1], min(400, options.chains), options.steps)
    curves = spectra_section(options.modes)
    options.out.mkdir(parents=True, exist_ok=True)
    path = options.out / "limiting_dynamics.png"
    plot_results(path, theory, found, start, curves)
    print(f"{path}, {time.monotonic() - began:.0f} s")
    return worst, p_values, curves


if __name__ == "__main__":
    main()
