"""Find parameters whose standard deviation is uncertain because a few draws make it up.

The positions of a chain are unconstrained; what the user sees may be exp of them. If rare draws far
out make up the variance, no step size helps: this is the Monte Carlo error of any sampler.
"""

from collections.abc import Iterable, Mapping

import numpy as np

from sgworld_mcmc.slabs import by_slabs

__all__ = ["heavy_tails"]

# The user is told of a parameter if the relative standard error of its standard deviation and its
# kurtosis are both above these numbers. The kurtosis of a Gaussian is 3.
UNCERTAIN, KURTOSIS = 0.05, 10.0
# Number of blocks of each chain, smallest number of draws, and number of parameters that a note
# names.
BLOCKS, FEWEST, NAMED = 5, 400, 3


def heavy_tails(samples: Mapping[str, np.ndarray], sites: Iterable[str]) -> list[str]:
    """Return a note on the scalars with a heavy tail and an uncertain sd, if there are any.

    Parameters
    ----------
    samples
        Constrained values by site, (chains, draws, ...).
    sites
        Names of the sites to look at; those that are not among the samples are skipped.
    """
    found = []
    for site in sites:
        if site not in samples:
            continue
        values = np.asarray(samples[site], float)
        chains, draws = values.shape[:2]
        if chains * draws < FEWEST or draws < 2 * BLOCKS or not np.isfinite(values).all():
            continue
        shape = values.shape[2:]
        kurtosis, error = by_slabs(_tails, values.reshape(chains, draws, -1))
        kurtosis, error = kurtosis.reshape(shape), error.reshape(shape)
        for index in np.argwhere((kurtosis > KURTOSIS) & (error > UNCERTAIN)):
            name = site + (f"[{','.join(map(str, index))}]" if len(index) else "")
            found.append((float(error[tuple(index)]), name))
    if not found:
        return []
    found.sort(reverse=True)
    listing = ", ".join(f"{name} (± {error:.0%})" for error, name in found[:NAMED])
    more = f" and {len(found) - NAMED} more" if len(found) > NAMED else ""
    return [
        f"A few draws far out in a tail make up the standard deviation of {listing}{more}: it is "
        "as uncertain as that. Raise `num_samples`, or report quantiles instead."
    ]


def _tails(values: np.ndarray) -> np.ndarray:
    """Return (2, D): the kurtosis, and the relative standard error of the standard deviation."""
    chains, draws, dimension = values.shape
    squares = (values - values.mean((0, 1))) ** 2
    variance = squares.mean((0, 1))
    safe = np.where(variance > 0, variance, 1.0)  # what does not vary has no tail
    kurtosis = (squares**2).mean((0, 1)) / safe**2
    length = draws // BLOCKS
    blocks = squares[:, : BLOCKS * length].reshape(chains * BLOCKS, length, dimension)
    error = blocks.mean(1).std(0, ddof=1) / np.sqrt(chains * BLOCKS) / safe / 2
    return np.stack([kurtosis, error])
