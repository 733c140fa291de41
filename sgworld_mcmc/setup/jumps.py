"""See whether a log density jumps, which its gradients do not show.

A comparison with a latent value (``where(t < tau, a, b)``, a change point), or a rounded one, makes
steps of a likelihood. A sampler that follows gradients does not see them: it draws ``tau`` from its
prior. Between two points of a smooth density the log density changes by the integral of its
gradient, and the finer the points, the better the sum of the gradients tells that. A jump stays.
"""

from collections.abc import Callable

import jax
import numpy as np

from sgworld_mcmc.setup.mode_search import ModeSearch
from sgworld_mcmc.setup.posterior import Posterior

__all__ = ["with_jumps"]

# Segments between so many pairs of pilot chains are looked at, in so many intervals.
PAIRS, INTERVALS = 4, 16
# The interval that the gradients explain least is cut in as many again, so often.
ZOOMS = 2
# What the gradients do not explain of it must not fall by more than this factor (a kink leaves one
# part in sixteen, a smooth density one in 256), and must be so many nats.
STAYS, NATS = 0.5, 0.1
# Sums over all rows are rounded: what is smaller than so many units of their precision is nothing.
ROUNDED = 100.0


def with_jumps(posterior: Posterior, starts: np.ndarray) -> Posterior:
    """Return the posterior with the names of the sites along which its density jumps.

    Parameters
    ----------
    posterior
        The posterior, in the coordinates of the run.
    starts
        (P, D) positions of pilot chains in them.
    """
    if posterior.structure is not None or len(starts) < 2:
        return posterior
    model = posterior.functions.model
    with jax.enable_x64(model.precise):
        search = ModeSearch(
            posterior.functions, posterior.feed_double, posterior.constants_double, None
        )
        points = posterior.coordinates.to_model(starts[: 2 * PAIRS])
        points = np.asarray(points, float)
        points = points[np.isfinite(points).all(1)]
        pairs = list(zip(points[::2], points[1::2], strict=False))
        look = _line_of(search)
        found = [pair for pair in pairs if _jumps(look, *pair)]
        if not found:
            return posterior
        names = _sites(look, model, *found[0])
    return posterior._replace(fit=posterior.fit._replace(jumps=names))


def _sites(look: Callable, model, start: np.ndarray, end: np.ndarray) -> tuple[str, ...]:
    """Return the names of the sites that jump if they alone go from one point to the other."""
    names, first = [], 0
    for name in model.latents:
        size = int(np.prod(model.shapes[name]))
        moved = start.copy()
        moved[first : first + size] = end[first : first + size]
        first += size
        if _jumps(look, start, moved):
            names.append(name)
    return tuple(names) or tuple(model.latents)


def _line_of(search: ModeSearch) -> Callable:
    """Return a function of points (n, D): n log densities and (n, D) gradients, of some rows."""
    size = search.functions.model.size

    def look(points):
        made = [search.evaluate(point, 1) for point in points]
        values = np.array([-size * float(one.loss) for one in made])
        return values, np.array([-size * np.asarray(one.gradient, float) for one in made])

    return look


def _jumps(look: Callable, start: np.ndarray, end: np.ndarray) -> bool:
    """Return whether the log density jumps on the way from one point to another."""
    before = None
    for _ in range(1 + ZOOMS):
        share = np.linspace(0, 1, INTERVALS + 1)[:, None]
        values, slopes = look(start + share * (end - start))
        along = slopes @ (end - start) / INTERVALS
        with np.errstate(invalid="ignore", over="ignore"):
            open_ = np.abs(np.diff(values) - (along[1:] + along[:-1]) / 2)
        if not np.isfinite(open_).all():
            return False
        least = max(NATS, ROUNDED * np.finfo(np.float32).eps * np.abs(values).max())
        if open_.max() < least and before is None:
            return False
        if before is not None and open_.sum() < max(STAYS * before, least):
            return False
        worst = int(open_.argmax())
        before = open_[worst]
        ends = start + share[worst : worst + 2] * (end - start)
        start, end = ends
    return True
