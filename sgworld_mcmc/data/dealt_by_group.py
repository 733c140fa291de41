"""Deal rows into batches like cards, so that the batches are alike.

Any fixed partition is allowed: what the theory needs of it is only the noise that it leaves, and
that is measured. Rows of one group have nearly the same curvature, up to a factor. Sorted by group
and then by that factor, every stretch of M rows gives one row to each of the M batches
(docs/theory.md, section 2.7).
"""

import numpy as np

__all__ = ["deal_by_group"]


def deal_by_group(
    generator: np.random.Generator, index: np.ndarray, value: np.ndarray, count: int
) -> np.ndarray:
    """Return an order of the rows that :func:`sgworld_mcmc.data.in_memory.cut` cuts into batches.

    Parameters
    ----------
    index, value
        (N,) group of each row, and a number by which the rows of a group are sorted.
    count
        Number of batches M.

    Returns
    -------
    ndarray
        (N,) numbers of the rows: those of each batch together, in random order. The rows that are
        left over when M does not divide N come last.

    Examples
    --------
    >>> index = np.repeat([0, 1, 2], 4)
    >>> order = deal_by_group(np.random.default_rng(0), index, np.zeros(12), 4)
    >>> print(np.sort(index[order.reshape(4, 3)], axis=1))
    [[0 1 2]
     [0 1 2]
     [0 1 2]
     [0 1 2]]
    """
    size, length = len(index), len(index) // count
    # Every other group is sorted downwards: where two groups share a round, its rows are alike.
    # Equal rows are in random order, because the rows as a whole are.
    cards = np.lexsort((np.where(index % 2, -value, value), index))
    left = np.sort(generator.choice(size, size - count * length, replace=False))
    rounds = np.delete(cards, left).reshape(length, count)
    # The cards of a round are consecutive: no batch may always get the first of them.
    dealt = generator.permuted(rounds, axis=1).T
    # A part of a batch is a random part.
    return np.concatenate([generator.permuted(dealt, axis=1).ravel(), cards[left]])
