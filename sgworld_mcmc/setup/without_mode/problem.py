"""What all steps of a set-up without a mode are given, and how many rows each of them reads."""

from typing import NamedTuple

import jax
import numpy as np

from sgworld_mcmc.arrays import float_dtype, from_numpy, reshaped
from sgworld_mcmc.data.dealing import even_size
from sgworld_mcmc.data.fixed_partition import FixedPartition
from sgworld_mcmc.data.in_memory import cut
from sgworld_mcmc.model.numpyro_model import MinibatchModel
from sgworld_mcmc.settings import Settings
from sgworld_mcmc.setup.without_mode.functions import KineticFunctions, kinetic_functions_of

__all__ = ["Problem", "cast"]

# Rows of the batches of Adam, and its fewest and most steps: about half an epoch of many rows,
# whose posterior is the narrower the more they are. Where rows times parameters cost little, up to
# ADAM_EPOCHS: a small network with many rows is far from its posterior before.
ADAM_ROWS, ADAM_STEPS = 100, (300, 10_000)
ADAM_EPOCHS, ADAM_WORK = 50, 2**27
# Rows and chains from which curvature and noise are found: fewer of both where there are MANY rows,
# since the whole set-up is to read no more than about three epochs of those.
CURVATURE_ROWS, CURVATURE_CHAINS, MANY = (1024, 256), (2, 1), 20_000
# Rows times parameters of one product with the Hessian: fewer rows where there are a million of
# parameters, which are many numbers to average over.
CURVATURE_WORK, FEWEST_ROWS = 2**28, 64
# Rows of a batch of the first burn-in, of few rows and of many.
WARM_ROWS = (500, 250)


class Problem(NamedTuple):
    """What all steps of the set-up are given.

    Attributes
    ----------
    generator
        The source of all random numbers.
    model
        The model.
    rows, constants
        The data leaves in random order, and the others, in the precision of the run. Of streamed
        rows they are a random part.
    settings
        The user's settings.
    most_rows
        The most rows that a batch of the run may have.
    """

    generator: np.random.Generator
    model: MinibatchModel
    rows: tuple
    constants: tuple
    settings: Settings
    most_rows: int | None = None

    @property
    def size(self) -> int:
        """Number of rows that are here: all rows, or those of the part."""
        return len(jax.tree.leaves(self.rows)[0])

    @property
    def functions(self) -> KineticFunctions:
        """The compiled functions of the model."""
        return kinetic_functions_of(self.model)

    def seed(self) -> np.uint32:
        """Return the seed of the next program that is called."""
        return self.generator.integers(2**32, dtype=np.uint32)

    def part(self, number: int) -> tuple:
        """Return the first rows, which are random ones."""
        number = min(number, self.size)
        return jax.tree.map(lambda x: reshaped(x, (number, *x.shape[1:]), number), self.rows)

    @property
    def prior_rows(self) -> tuple:
        """The rows that a draw of the prior is given: it needs some, whatever they are."""
        return self.part(ADAM_ROWS)

    @property
    def adam_feed(self) -> FixedPartition:
        """The batches of Adam."""
        return self.batches(even_size(min(ADAM_ROWS, self.size), self.size))

    @property
    def adam_steps(self) -> int:
        """Number of steps of Adam."""
        size = self.model.size
        cheap = min(ADAM_EPOCHS * size, ADAM_WORK / self.model.dimension)
        return int(np.clip(max(size / 2, cheap) / ADAM_ROWS, *ADAM_STEPS))

    def batches(self, batch_size: int) -> FixedPartition:
        """Return the rows that are here in batches of about this size."""
        return cut(self.rows, -(-self.size // batch_size))

    @property
    def warm_count(self) -> int:
        """Number of batches of the first burn-in."""
        size = self.size
        batch_size = even_size(min(_by_size(WARM_ROWS, size), size), size)
        return -(-size // max(batch_size, self.settings.batch_size or 0))

    @property
    def warm_feed(self) -> FixedPartition:
        """The batches of the first burn-in."""
        return cut(self.rows, self.warm_count)

    def curvature_rows(self, positions: np.ndarray) -> tuple[np.ndarray, tuple]:
        """Return the positions and the rows at which curvature and noise are found."""
        size = self.model.size
        rows = min(_by_size(CURVATURE_ROWS, size), CURVATURE_WORK // self.model.dimension)
        return positions[: _by_size(CURVATURE_CHAINS, size)], self.part(max(rows, FEWEST_ROWS))


def _by_size(values: tuple[int, int], size: int) -> int:
    """Return the first value, or the second one for many rows."""
    return values[size > MANY]


def cast(x: np.ndarray) -> jax.Array:
    """Return an array in the sampler's precision."""
    return from_numpy(x, float_dtype())
