"""Compare the spread of the draws with that of the pilot chains, all parameters together."""

import numpy as np

from sgworld_mcmc.slabs import by_slabs
from sgworld_mcmc.theory.shrinkage import pool

__all__ = ["spread_note"]

# The settings rest on the pilot chains. They would be others if the draws were wider or narrower
# by the factor exp(WIDER), or elsewhere by SHIFTED standard deviations.
WIDER, SHIFTED = 0.25, 0.3
# A difference is told if it is larger than that by this many standard errors. What remains of the
# error after pooling counts as half of the error before, at least.
SIGMAS, LEAST = 4.0, 0.5
# A Gaussian has these fractions of its draws below -1, 0 and 1 standard deviations.
FRACTIONS = (0.158655, 0.5, 0.841345)
# The standard errors of the half-width between the outer two of these quantiles (relative to it),
# and of the median (in standard deviations), for one draw of a Gaussian.
WIDTH_ERROR, MEDIAN_ERROR = 0.9617, 1.2533


def spread_note(draws: np.ndarray, sizes: np.ndarray, pilots: np.ndarray) -> list[str]:
    """Return a note if the draws are wider, narrower or elsewhere than the pilot chains.

    Widths and places are those of quantiles: one pilot chain of a hundred that has strayed says
    little about the others, and would make up their whole standard deviation. The largest of many
    differences is mostly noise, so that each is judged together with all others
    (:func:`~sgworld_mcmc.theory.shrinkage.pool`).

    Parameters
    ----------
    draws
        (S, D) draws in the sampler's coordinates.
    sizes
        (D,) their effective sample sizes.
    pilots
        (P, D) positions of the pilot chains.
    """
    (middle, width), (pilot_middle, pilot_width) = _place(draws), _place(pilots)
    if not (width > 0).all() or not (pilot_width > 0).all():
        return []
    ratio, sizes = width / pilot_width, np.maximum(sizes, 1.0)
    wider, shift = np.log(ratio), (middle - pilot_middle) / pilot_width
    wider_error = WIDTH_ERROR * np.sqrt(1 / len(pilots) + 1 / sizes)
    shift_error = MEDIAN_ERROR * np.sqrt(1 / len(pilots) + ratio**2 / sizes)
    if not (_is_more(wider, wider_error, WIDER) or _is_more(shift, shift_error, SHIFTED)):
        return []
    return [
        "The draws spread differently from the pilot chains that the settings rest on (width "
        f"ratio {ratio.min():.2f} to {ratio.max():.2f}, shift up to "
        f"{np.abs(shift).max():.2f} sd): the posterior is far from Gaussian, and the predicted "
        "errors may be too small. Compare with NUTS, or reduce `tolerance`."
    ]


def _place(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the median and half the width of the middle two thirds, along the first axis."""
    low, middle, high = by_slabs(lambda x: np.quantile(x, FRACTIONS, axis=0), values)
    return middle, (high - low) / 2


def _is_more(value: np.ndarray, error: np.ndarray, limit: float) -> bool:
    """Return whether any value is farther from zero than a limit, beyond its error."""
    pooled, remaining = pool(value, error, len(value))
    remaining = np.maximum(remaining, LEAST * error)
    return bool((np.abs(pooled) > limit + SIGMAS * remaining).any())
