"""Compute the KL divergence of the stationary distribution from the posterior, by step size.

The problem is a Bayesian linear regression with known noise, in whitened coordinates. The draws'
stationary mean and covariance follow from `sgworld_mcmc.theory.stationary_recursion` without
simulating a chain, and are compared with the closed forms of `sgworld_mcmc.theory.variance_bias`.
The time per epoch is T = h M; one unit of time is the relaxation time of the posterior.
"""

import csv
from pathlib import Path
from typing import NamedTuple

import numpy as np

from sgworld_benchmarks.stationary_plot import plot_stationary
from sgworld_mcmc.theory.regression_terms import batch_statistics, whitened_regression
from sgworld_mcmc.theory.stationary_recursion import gaussian_kl, stationary_path
from sgworld_mcmc.theory.variance_bias import (
    once_mean_shift,
    order_mean_shift,
    relative_variance_error,
)

TIMES = (0.03, 0.05, 0.1, 0.17, 0.3, 0.5, 1.0, 1.7, 3.0, 5.0)
ORDERS = ("replacement", "batches", "examples", "symmetric", "once")
SLOPE_RANGES = ((0.0, 0.1), (0.3, 1.0))  # small steps; where the epoch's noise bridge takes over


class StationaryResult(NamedTuple):
    """Measured and predicted bias; arrays are (orders, times) in the order of the fields.

    ``kl_error`` is the standard error from averaging over sampled orders. For ``"once"`` the KL is
    the mean over sampled orders, each kept in all epochs, and the variance error is that about
    their own means.
    """

    orders: tuple
    times: np.ndarray
    step_sizes: np.ndarray
    kl: np.ndarray
    kl_error: np.ndarray
    predicted_kl: np.ndarray
    variance_error: np.ndarray
    predicted_variance_error: np.ndarray
    statistics: tuple
    num_batches: int
    noise: str

    def ratio(self):
        """Return the KL of SGLD over that of each order, (orders, times); needs SGLD's."""
        if "replacement" not in self.orders:
            raise ValueError("ratio compares with SGLD: run with 'replacement' among the orders")
        return self.kl[self.orders.index("replacement")] / self.kl

    def slopes(self, low=0.0, high=np.inf):
        """Return least-squares slopes of log KL against log T over low <= T <= high, by order."""
        inside = (self.times >= low * (1 - 1e-9)) & (self.times <= high * (1 + 1e-9))
        if inside.sum() < 2:
            raise ValueError(f"a slope needs two of the times between {low} and {high}")
        x = np.log(self.times[inside])
        return {
            order: float(np.polyfit(x, np.log(kl[inside]), 1)[0])
            for order, kl in zip(self.orders, self.kl, strict=True)
        }

    def predict(self, step_sizes):
        """Predict variance error and KL at other step sizes, each (orders, steps)."""
        pairs = [
            _predict(order, s, step_sizes, self.num_batches, self.noise)
            for order, s in zip(self.orders, self.statistics, strict=True)
        ]
        return tuple(np.array(part) for part in zip(*pairs, strict=True))

    def table(self):
        """Return the KL, its ratio to SGLD's, fitted slopes and closed forms, as text."""
        head = f"{'T = h M':>8}" + "".join(f"{order:>22}" for order in self.orders)
        lines = [f"KL(stationary || posterior), {self.noise} noise, M = {self.num_batches}", head]
        for t, time in enumerate(self.times):
            cells = (
                f"{k:.3e} ± {e:.0e}" if e else f"{k:.3e}        "
                for k, e in zip(self.kl[:, t], self.kl_error[:, t], strict=True)
            )
            lines.append(f"{time:8.3g}" + "".join(f"{cell:>22}" for cell in cells))
        if "replacement" in self.orders:
            lines += ["", "KL of SGLD (replacement) / KL", head]
            for time, ratios in zip(self.times, self.ratio().T, strict=True):
                lines.append(f"{time:8.3g}" + "".join(f"{r:22.4g}" for r in ratios))
        lines += ["", "Slope of log KL against log T", head]
        for low, high in SLOPE_RANGES:
            if np.sum((self.times >= low) & (self.times <= high)) >= 2:
                slopes = self.slopes(low, high).values()
                label = f"<= {high:g}" if low == 0 else f"{low:g}-{high:g}"
                lines.append(f"{label:>8}" + "".join(f"{s:22.2f}" for s in slopes))
        lines += ["", "Relative error of the variance: exact recursion / closed form", head]
        for t, time in enumerate(self.times):
            pairs = np.stack([self.variance_error[:, t], self.predicted_variance_error[:, t]], 1)
            cells = (f"{e:.2e} / {p:.2e}" for e, p in pairs)
            lines.append(f"{time:8.3g}" + "".join(f"{cell:>22}" for cell in cells))
        lines += ["", "Batches: C0 = noise of the batch gradient, K = noise of the batch Hessian"]
        for order, s in zip(self.orders, self.statistics, strict=True):
            lines.append(f"{order:>12}  C0 = {s.batch_noise:7.2f}  K = {s.hessian_noise:.4f}")
        return "\n".join(lines)

    def write_csv(self, path):
        """Write a file with one row for each order and time."""
        names = ("kl", "kl_error", "predicted_kl", "variance_error", "predicted_variance_error")
        with open(path, "w", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(("order", "noise", "time_per_epoch", "step_size", *names))
            for o, order in enumerate(self.orders):
                for t, time in enumerate(self.times):
                    values = (f"{getattr(self, name)[o, t]:.6e}" for name in names)
                    step = f"{self.step_sizes[t]:.6g}"
                    writer.writerow((order, self.noise, f"{time:.6g}", step, *values))

    def plot(self, path):
        """Save the log-log picture, with closed forms as thin lines and slopes in the legend."""
        plot_stationary(self, path, SLOPE_RANGES)


def run(
    num_data=1000,
    batch_size=10,
    dim=3,
    times=TIMES,
    orders=ORDERS,
    noise="independent",
    seed=0,
    num_orders=2000,
    prior_variance=np.inf,
    num_once=50,
):
    """Measure the stationary bias of SGLD and SGWORLD on Bayesian linear regression.

    Parameters
    ----------
    num_data, batch_size, dim : int
        N rows of D standard normal features, in batches of B (or B - 1, if B does not divide N).
    times : sequence of float
        Times per epoch T = h M in units of the posterior's relaxation time.
    orders : sequence of str
        Names among ``"replacement"`` (SGLD, a fresh batch of distinct rows in every step),
        ``"batches"``, ``"examples"``, ``"symmetric"``, ``"once"``.
    noise : str
        ``"independent"`` or ``"averaged"``.
    seed : int
        Seed of data and orders.
    num_orders, num_once : int
        Number of orders averaged over; for ``"once"`` the number of pairs of an order and its
        reverse, each of which is treated exactly.
    prior_variance : float
        Variance of the normal prior of each coefficient; infinite (flat) by default.

    Returns
    -------
    StationaryResult

    Examples
    --------
    >>> orders = ("replacement", "batches")
    >>> result = run(200, 10, 2, times=(0.1, 0.3), orders=orders, num_orders=200)
    >>> bool(result.ratio()[1, 0] > 100)
    True
    """
    if not 1 <= batch_size <= num_data:
        raise ValueError(f"batch_size must be from 1 to num_data = {num_data}, got {batch_size}")
    unknown = set(orders) - set(ORDERS)
    if unknown:
        raise ValueError(f"unknown orders {sorted(unknown)}: choose among {', '.join(ORDERS)}")
    times = np.sort(np.asarray(times, dtype=float))
    num_batches = -(-num_data // batch_size)
    step_sizes = times / num_batches
    rng = np.random.default_rng(seed)
    rows, prior = whitened_regression(rng, num_data, dim, prior_variance)
    settings = {
        "num_batches": num_batches,
        "prior_matrix": prior[0],
        "prior_offset": prior[1],
        "noise": noise,
        "num_orders": num_orders,
        "seed": seed,
    }
    grid = np.tile(np.arange(num_batches), (num_once, 1))
    parts = np.array_split(np.arange(num_data), num_batches)
    batches = [
        prior_part + num_batches * np.array([part[index].sum(0) for index in parts])
        for part, prior_part in zip(rows, prior, strict=True)
    ]
    # An order and its reverse shift the mean by opposite amounts to leading order: both are taken.
    once_orders = [p[::s] for p in rng.permuted(grid, axis=1) for s in (1, -1)]
    measured, statistics = [], []
    for order in orders:
        if order == "once":
            paths = [
                stationary_path(batches[0][p], batches[1][p], step_sizes, order="once", noise=noise)
                for p in once_orders
            ]
        else:
            paths = [stationary_path(*rows, step_sizes, order=order, **settings)]
        measured.append(_measure(paths))
        # The batches are those of one partition, or all possible ones of distinct rows.
        fresh = order in ("replacement", "examples")
        statistics.append(batch_statistics(*(rows if fresh else batches), batch_size * fresh))
    kl, kl_error, variance_error = (np.array(part) for part in zip(*measured, strict=True))
    predictions = [
        _predict(order, s, step_sizes, num_batches, noise)
        for order, s in zip(orders, statistics, strict=True)
    ]
    predicted_variance, predicted_kl = (np.array(p) for p in zip(*predictions, strict=True))
    return StationaryResult(
        orders=tuple(orders),
        times=times,
        step_sizes=step_sizes,
        kl=kl,
        kl_error=kl_error,
        predicted_kl=predicted_kl,
        variance_error=variance_error,
        predicted_variance_error=predicted_variance,
        statistics=tuple(statistics),
        num_batches=num_batches,
        noise=noise,
    )


def _measure(paths):
    """Return KL, its standard error and variance error by step size, as means over orders."""
    kls, errors, variances = [], [], []
    for moments in zip(*paths, strict=True):
        dim = moments[0].mean.size
        target = np.zeros(dim), np.eye(dim)
        estimates = [
            m.estimate(lambda mean, cov, t=target: gaussian_kl(mean, cov, *t)) for m in moments
        ]
        values = np.array([value for value, _ in estimates])
        kls.append(values.mean())
        error = estimates[0][1]
        if len(values) > 2:  # "once": pairs of orders
            pairs = values.reshape(-1, 2).mean(1)
            error = pairs.std(ddof=1) / np.sqrt(len(pairs))
        errors.append(error)
        variances.append(np.mean([np.trace(m.covariance) for m in moments]) / dim - 1)
    return kls, errors, variances


def _predict(order, statistics, step_sizes, num_batches, noise):
    """Return variance error and KL of the closed forms.

    The KL is that of an isotropic error of the variance in D dimensions plus that of the mean.
    """
    c0, k, coupling = statistics
    e = relative_variance_error(step_sizes, num_batches, c0, k, scheme=order, noise=noise)
    shift = np.zeros_like(e)
    if order == "once":
        shift = coupling.size * once_mean_shift(step_sizes, num_batches, c0)
    elif order != "replacement":
        shift = order_mean_shift(step_sizes, num_batches, 1.0) ** 2 * (coupling @ coupling)
    return e, (coupling.size * (e - np.log1p(e)) + shift) / 2


def add_arguments(parser):
    """Add the options of ``sgworld-mcmc benchmark stationary`` to an `argparse` parser."""
    parser.add_argument("--num-data", type=int, default=1000, help="rows (default 1000)")
    parser.add_argument("--batch-size", type=int, default=10, help="rows in a batch (default 10)")
    parser.add_argument("--dim", type=int, default=3, help="coefficients (default 3)")
    parser.add_argument("--noise", choices=("independent", "averaged"), default="independent")
    parser.add_argument("--seed", type=int, default=0, help="seed of data and orders (default 0)")
    parser.add_argument("--num-orders", type=int, default=2000, help="orders averaged over")
    parser.add_argument("--out", type=Path, default=Path("out"), help="folder (default out)")


def run_cli(namespace):
    """Run with the parsed options, print tables, write stationary.png and .csv, and return 0."""
    result = run(
        num_data=namespace.num_data,
        batch_size=namespace.batch_size,
        dim=namespace.dim,
        noise=namespace.noise,
        seed=namespace.seed,
        num_orders=namespace.num_orders,
    )
    folder = Path(namespace.out)
    folder.mkdir(parents=True, exist_ok=True)
    result.write_csv(folder / "stationary.csv")
    result.plot(folder / "stationary.png")
    print(result.table())
    print(f"\nWrote {folder / 'stationary.png'} and {folder / 'stationary.csv'}")
    return 0
