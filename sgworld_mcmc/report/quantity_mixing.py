"""How well the chains have mixed in the quantities that a user has named."""

from typing import Any, NamedTuple

import jax
import numpy as np

from sgworld_mcmc.report.quantities import quantity_names
from sgworld_mcmc.slabs import r_hats, sample_sizes

__all__ = ["QuantityMixing", "quantity_mixing"]


class QuantityMixing(NamedTuple):
    """Convergence of the user's quantities.

    Attributes
    ----------
    names
        The names of the Q numbers.
    r_hat, ess
        (Q,) split R-hat and effective sample size. Of a number that does not vary they are one and
        NaN, and both NaN of one that is not finite at all draws.
    """

    names: tuple[str, ...]
    r_hat: np.ndarray
    ess: np.ndarray

    def __str__(self) -> str:
        return f"Quantities ({len(self.names)} numbers): {self.extremes()}."

    def extremes(self) -> str:
        """Return the largest R-hat and the smallest sample size in words."""
        infinite = np.isnan(self.r_hat)
        known = np.isfinite(self.ess)
        said = [] if known.any() or infinite.any() else ["none varies"]
        if known.any():
            worst = int(np.nanargmax(np.where(known, self.r_hat, np.nan)))
            fewest = int(np.nanargmin(self.ess))
            said.append(
                f"R-hat at most {self.r_hat[worst]:.3f} ({self.names[worst]}), at least "
                f"{self.ess[fewest]:.0f} effective draws ({self.names[fewest]})"
            )
        if infinite.any():
            first = self.names[int(infinite.argmax())]
            said.append(f"{int(infinite.sum())} not finite at some draws ({first})")
        return ", ".join(said)


def quantity_mixing(quantities: Any) -> QuantityMixing:
    """Return the convergence of quantities, a pytree of arrays (chains, draws, ...)."""
    first = jax.tree.map(lambda x: x[0, 0], quantities)
    leaves = [np.asarray(x, float) for x in jax.tree.leaves(quantities)]
    flat = np.concatenate([x.reshape(*x.shape[:2], -1) for x in leaves], axis=2)
    chains, draws, count = flat.shape
    finite = np.isfinite(flat).all((0, 1))
    moving = finite & (np.ptp(np.where(finite, flat, 0), axis=(0, 1)) > 0)
    r_hat, ess = np.where(finite, 1.0, np.nan), np.full(count, np.nan)
    ess[moving] = chains * draws
    if draws >= 4 and moving.any():
        r_hat[moving] = r_hats(flat[:, :, moving])
        ess[moving] = sample_sizes(flat[:, :, moving])
    return QuantityMixing(tuple(quantity_names(first)), r_hat, ess)
