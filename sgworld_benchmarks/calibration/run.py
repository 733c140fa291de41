"""Calibrate samplers: draw parameters and data, sample, and look at the ranks."""

import time
from pathlib import Path

import jax
import numpy as np

from sgworld_benchmarks.calibration.models import make_model, simulate, statistics_of
from sgworld_benchmarks.calibration.ranks import Ranks, ranks_of
from sgworld_benchmarks.calibration.samplers import SAMPLERS

__all__ = ["calibrate", "calibrate_kept"]


def calibrate(
    name: str, sampler: str, replicates: int, seed: int = 0, chosen: Ranks | None = None
) -> Ranks:
    """Run a sampler on data sets of a model.

    Parameters
    ----------
    name
        A name in :data:`~sgworld_benchmarks.calibration.models.MODELS`.
    sampler
        A name in :data:`~sgworld_benchmarks.calibration.samplers.SAMPLERS`.
    replicates
        Number of data sets.
    seed
        Seed of everything random. The data sets are the same for all samplers.
    chosen
        What SGWORLD has chosen for these data sets, which SGLD needs.

    Examples
    --------
    >>> found = calibrate("location", "sgworld", 3)
    >>> found.names, found.ranks.shape
    (('log likelihood', 'mu'), (3, 2))
    """
    problem = make_model(name)
    data_key, run_key = jax.random.split(jax.random.key(seed))
    truth, data = simulate(problem, data_key, replicates)
    run_key = jax.random.fold_in(run_key, list(SAMPLERS).index(sampler))
    statistics, rows, names = statistics_of(problem), [], ()
    start = time.perf_counter()
    for number, draws in enumerate(SAMPLERS[sampler](problem, data, run_key, chosen)):
        own = {site: value[number : number + 1] for site, value in truth.items()}
        names, true = _flat(statistics(own, data[number]))
        _, values = _flat(statistics(draws.sites, data[number]))
        settings = draws.warned, draws.step_size, draws.batch_size
        rows.append((*ranks_of(values, true[0]), *settings))
    seconds = time.perf_counter() - start
    columns = (np.array(column) for column in zip(*rows, strict=True))
    return Ranks(names, *columns, seconds)


def calibrate_kept(
    folder: str | None, name: str, sampler: str, replicates: int, seed: int, chosen: Ranks | None
) -> Ranks:
    """Return the ranks that a folder has of an earlier call, or calibrate and keep them there."""
    if folder is None:
        return calibrate(name, sampler, replicates, seed, chosen)
    path = Path(folder) / f"{name}-{sampler}-{replicates}-{seed}.npz"
    if path.exists():
        with np.load(path) as kept:
            values = {field: kept[field] for field in Ranks._fields}
        return Ranks(**values)._replace(
            names=tuple(map(str, values["names"])), seconds=float(values["seconds"])
        )
    found = calibrate(name, sampler, replicates, seed, chosen)
    path.parent.mkdir(parents=True, exist_ok=True)
    np.savez(path, **found._asdict())
    return found


def _flat(numbers: dict) -> tuple[tuple[str, ...], np.ndarray]:
    """Return the names of scalars, and their values (S, Q)."""
    names, columns = [], []
    for name, values in numbers.items():
        flat = np.asarray(values, float).reshape(len(values), -1)
        many = np.ndim(values) > 1
        names += [f"{name}[{k}]" if many else name for k in range(flat.shape[1])]
        columns.append(flat)
    return tuple(names), np.concatenate(columns, 1)
