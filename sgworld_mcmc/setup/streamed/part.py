"""A random part of the rows of a file, which the set-up keeps in memory."""

from typing import NamedTuple

import jax
import numpy as np

from sgworld_mcmc.data.in_memory import generator_of
from sgworld_mcmc.progress import count_rows
from sgworld_mcmc.streaming.rows import Rows

__all__ = ["Part", "part_again", "read_part"]

# A part has one row in LEAST, within these numbers of rows, and at most so many bytes.
LEAST, FEWEST, MOST, BYTES = 4, 2**15, 2**20, 2**27
# It is read in this many pieces, one from a random place in each of as many equal parts of the
# file, so that a part of a sorted file is a fair sample too.
PIECES, SHORTEST = 1024, 16


class Part(NamedTuple):
    """Some rows of a file.

    Attributes
    ----------
    rows
        Data leaves (n, ...) in random order.
    pieces
        The same rows as they lie in the file, piece after piece, or None if they are not kept.
    length
        Number of rows of a piece.
    """

    rows: tuple
    pieces: tuple | None
    length: int


def read_part(generator: np.random.Generator, rows: Rows, *, keep_pieces: bool) -> Part:
    """Read a random part of the rows, in pieces from all over the file.

    Raises
    ------
    ValueError
        If a row is not finite; the message names argument and row.
    """
    size = int(np.clip(rows.size // LEAST, min(FEWEST, rows.size), MOST))
    size = max(1, min(size, BYTES // max(rows.row_bytes, 1)))
    pieces = max(1, min(PIECES, size // SHORTEST))
    length = size // pieces
    size = pieces * length
    edges = np.linspace(0, rows.size, pieces + 1).astype(np.int64)
    ordered = rows.empty(size)
    starts = edges[:-1] + generator.integers(0, np.diff(edges) - length + 1)
    for number, start in enumerate(starts.tolist()):
        some = tuple(x[number * length : (number + 1) * length] for x in ordered)
        rows.read(start, start + length, some)
        rows.check_finite(start, some)
    count_rows(size)
    order = generator.permutation(size)
    mixed = rows.empty(size)
    for x, out in zip(ordered, mixed, strict=True):
        np.take(x, order, axis=0, out=out, mode="clip")
    put = lambda arrays: tuple(jax.device_put(x, may_alias=True) for x in arrays)  # noqa: E731
    with jax.enable_x64(rows.double):
        return Part(put(mixed), put(ordered) if keep_pieces else None, length)


def part_again(seed: np.ndarray, rows: Rows, *, keep_pieces: bool = False) -> Part:
    """Return the part of a set-up that begins with this seed, read in another precision."""
    return read_part(generator_of(seed), rows, keep_pieces=keep_pieces)
