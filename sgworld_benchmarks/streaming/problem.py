"""A linear regression in files, with its exact posterior."""

from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpyro
import numpyro.distributions as dist

__all__ = ["Exact", "exact", "model", "write_problem"]

# Standard deviation of the prior of each coefficient; that of the noise is one.
PRIOR = 10.0
# Rows are made so many at a time.
PIECE = 2**18


class Exact(NamedTuple):
    """Mean and standard deviations of the exact posterior."""

    mean: np.ndarray
    sd: np.ndarray


def model(X, y):
    """Linear regression with noise of standard deviation one."""
    beta = numpyro.sample("beta", dist.Normal(0, PRIOR).expand([X.shape[1]]).to_event(1))
    with numpyro.plate("data", len(y)):
        numpyro.sample("y", dist.Normal(X @ beta, 1.0), obs=y)


def write_problem(folder: Path, rows: int, dim: int, seed: int, *, ordered: bool = False) -> None:
    """Write ``X.npy``, ``y.npy`` and the sums of the normal equations, ``sums.npz``.

    With ``ordered`` the first regressor grows along the file.
    """
    generator = np.random.default_rng(seed)
    beta = generator.standard_normal(dim)
    X = np.lib.format.open_memmap(folder / "X.npy", "w+", np.float32, (rows, dim))
    y = np.lib.format.open_memmap(folder / "y.npy", "w+", np.float32, (rows,))
    squares, products = np.zeros((dim, dim)), np.zeros(dim)
    for start in range(0, rows, PIECE):
        length = min(PIECE, rows - start)
        some = generator.standard_normal((length, dim), np.float32)
        if ordered:
            some[:, 0] = np.sqrt(3) * (2 * np.arange(start, start + length) / rows - 1)
        outcome = (some @ beta + generator.standard_normal(length)).astype(np.float32)
        X[start : start + length], y[start : start + length] = some, outcome
        some = some.astype(float)
        squares += some.T @ some
        products += some.T @ outcome.astype(float)
    X.flush(), y.flush()
    np.savez(folder / "sums.npz", squares=squares, products=products)


def exact(folder: Path) -> Exact:
    """Return the exact posterior of the coefficients."""
    sums = np.load(folder / "sums.npz")
    precision = sums["squares"] + np.eye(len(sums["products"])) / PRIOR**2
    return Exact(
        np.linalg.solve(precision, sums["products"]), np.sqrt(np.diag(np.linalg.inv(precision)))
    )
