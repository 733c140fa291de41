"""The scalar parameters of a run that a page shows, and the table that summarises them."""

import logging
from collections.abc import Collection, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np

from sgworld_mcmc.arrays import named_leaves
from sgworld_mcmc.diagnostics.scalars import flatten_scalars
from sgworld_mcmc.report_page.elements import number, paragraph, table

__all__ = ["choose", "count_scalars", "samples_of", "summary"]

# ArviZ computes no R-hat and effective size of chains with fewer draws.
FEWEST = 4


def samples_of(mcmc: Any) -> dict[str, np.ndarray]:
    """Return the draws of a run by site, (chains, draws, ...); of many on disk, every so many.

    What a user keeps in place of the sites is returned under its dotted names.
    """
    found = mcmc.draws().samples
    if not found:
        found = mcmc.get_samples(group_by_chain=True)
    named = named_leaves(found)
    return {name: value for name, value in named.items() if np.ndim(value) >= 2}


def count_scalars(samples: Mapping[str, Any]) -> int:
    """Return the number of scalars of all sites together."""
    return sum(int(np.prod(np.shape(value)[2:])) for value in samples.values())


def choose(
    samples: Mapping[str, Any], most: int, preferred: Collection[str] = ()
) -> dict[str, np.ndarray]:
    """Return at most so many scalars: the first of each site, then the second, and so on.

    Those of the ``preferred`` sites come first. Each is (chains, draws).

    Examples
    --------
    >>> import numpy as np
    >>> draws = {"weights": np.zeros((2, 9, 50)), "sigma": np.zeros((2, 9))}
    >>> list(choose(draws, 3))
    ['weights[0]', 'weights[1]', 'sigma']
    >>> list(choose(draws, 3, ["sigma"]))
    ['sigma', 'weights[0]', 'weights[1]']
    """
    ranks, scalars = {}, {}
    for site in sorted(samples, key=lambda name: name not in preferred):
        found = flatten_scalars({site: _corner(samples[site], most)})
        scalars |= found
        ranks |= {
            name: (bool(preferred) and site not in preferred, rank)
            for rank, name in enumerate(found)
        }
    kept = set(sorted(scalars, key=ranks.__getitem__)[:most])  # sorting keeps the order of sites
    return {name: value for name, value in scalars.items() if name in kept}


def summary(scalars: Mapping[str, np.ndarray], more: int = 0) -> str:
    """Return the table of the scalars, and how many it leaves out, as HTML.

    Parameters
    ----------
    scalars
        Draws by name, each (chains, draws).
    more
        Number of scalars that the table leaves out.
    """
    rows = []
    found = _diagnostics(scalars)
    for name, values in scalars.items():
        values = np.asarray(values, float)
        if np.isfinite(values).all():
            low, high = np.quantile(values, [0.05, 0.95])
            spread = values.std(ddof=1) if values.size > 1 else np.nan
            cells = _aligned([values.mean(), spread, low, high], spread)
        else:
            cells = ["not finite", "–", "–", "–"]
        bulk, tail, r_hat = found.get(name, (np.nan,) * 3)
        sizes = ["–" if np.isnan(x) else f"{x:.0f}" for x in (bulk, tail)]
        rows.append([name, *cells, *sizes, "–" if np.isnan(r_hat) else f"{r_hat:.3f}"])
    headings = ["parameter", "mean", "sd", "5 %", "95 %", "ESS (bulk)", "ESS (tail)", "R-hat"]
    parts = [table("The posterior as the draws show it", headings, rows)]
    chains, draws = next(iter(scalars.values())).shape
    if draws < FEWEST:
        parts.append(
            paragraph(
                f"Effective sample sizes (ESS) and R-hat need {FEWEST} or more draws in a chain."
            )
        )
    elif chains == 1:
        parts.append(paragraph("R-hat compares chains, and there is a single one."))
    if more:
        parts.append(
            paragraph(f"{more} more parameters are left out: mcmc.print_summary() has all of them.")
        )
    return "\n".join(parts)


def _diagnostics(scalars: Mapping[str, np.ndarray]) -> dict[str, tuple[float, float, float]]:
    """Return bulk and tail effective size and R-hat by name, from ArviZ's summary."""
    # ArviZ and xarray are imported when they are used.
    import arviz
    import xarray

    chosen = {
        name: (("chain", "draw"), np.asarray(values, float))
        for name, values in scalars.items()
        if values.shape[1] >= FEWEST and np.isfinite(np.asarray(values, float)).all()
    }
    if not chosen:
        return {}
    # ArviZ says of a single chain, and for each of its parameters, that it has no R-hat.
    log = getattr(arviz, "_log", logging.getLogger("arviz"))
    with _silent(log), np.errstate(all="ignore"):
        found = arviz.summary(xarray.Dataset(chosen), kind="diagnostics", round_to="none")
    return {
        name: tuple(
            float(found.loc[name, column]) if column in found else np.nan
            for column in ("ess_bulk", "ess_tail", "r_hat")
        )
        for name in chosen
    }


def _aligned(values: list[float], spread: float) -> list[str]:
    """Return numbers with as many decimals as show three digits of their spread."""
    if not 1e-8 < spread < 1e6 or max(map(abs, values)) > 1e9:
        return [number(value, 4) for value in values]
    decimals = max(0, 2 - int(np.floor(np.log10(spread))))
    return [f"{value:.{decimals}f}".replace("-", "−") for value in values]


def _corner(value: Any, most: int) -> Any:
    """Return a corner of a site that holds its first ``most`` entries, with the same indices."""
    lengths = []
    for size in reversed(np.shape(value)[2:]):
        lengths.append(min(size, most))
        most = -(-most // max(size, 1))
    return value[(slice(None), slice(None), *map(slice, reversed(lengths)))]


@contextmanager
def _silent(logger: logging.Logger):
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(level)
