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
        (Q,) split R-hat and effective sample size; R-hat is one for a number that does not vary.
    """

    names: tuple[str, ...]
    r_hat: np.ndarray
    ess: np.ndarray

    def __str__(self) -> str:
        return f"Quantities ({len(self.names)} numbers): {self.extremes()}."

    def extremes(self) -> str:
        """Return the largest R-hat and the smallest sample size in words."""
        worst, fewest = int(np.argmax(self.r_hat)), int(np.argmin(self.ess))
        return (
            f"R-hat at most {self.r_hat[worst]:.3f} ({self.names[worst]}), at least "
            f"{self.ess[fewest]:.0f} effective draws ({self.names[fewest]})"
        )


def quantity_mixing(quantities: Any) -> QuantityMixing:
    """Return the convergence of quantities, a pytree of arrays (chains, draws, ...)."""
    first = jax.tree.map(lambda x: x[0, 0], quantities)
    leaves = [np.asarray(x, float) for x in jax.tree.leaves(quantities)]
    flat = np.concatenate([x.reshape(*x.shape[:2], -1) for x in leaves], axis=2)
    chains, draws, count = flat.shape
    moving = np.ptp(flat, axis=(0, 1)) > 0
    r_hat, ess = np.ones(count), np.full(count, float(chains * draws))
    if draws >= 4 and moving.any():
        r_hat[moving] = r_hats(flat[:, :, moving])
        ess[moving] = sample_sizes(flat[:, :, moving])
    return QuantityMixing(tuple(quantity_names(first)), r_hat, ess)
