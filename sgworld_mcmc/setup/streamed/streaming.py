"""What a plan says about streamed rows: how the file is cut, and what reading it costs."""

from typing import NamedTuple

from sgworld_mcmc.streaming.grid import Grid
from sgworld_mcmc.streaming.memory import readable

__all__ = ["ALIKE", "Streaming"]

# Neighbouring rows are called alike if their noise is this many times that of random rows.
ALIKE = 2.0


class Streaming(NamedTuple):
    """How rows are streamed.

    Attributes
    ----------
    grid
        The cut of the file into chunks and batches.
    shuffled
        Whether the rows of a chunk are shuffled before they are cut into batches.
    row_bytes
        Number of bytes of a row in memory.
    alike
        By how much the variance of the gradients of blocks exceeds that of as many random rows: one
        for a shuffled file.
    passes
        How often the set-up has read all rows.
    rows_per_second
        The rate at which it has read them.
    """

    grid: Grid
    shuffled: bool
    row_bytes: int
    alike: float
    passes: int
    rows_per_second: float

    def described(self, size: int) -> str:
        """Return how the rows are read, in words."""
        grid = self.grid
        rows = "rows shuffled within each chunk" if self.shuffled else "batches of neighbours"
        alike = "no more than" if self.alike == 1 else f"{self.alike:.3g} times as much as"
        return (
            f"{size:,} rows ({readable(size * self.row_bytes)}) are streamed: {grid.chunks} chunks "
            f"an epoch of {readable(grid.chunk_rows * self.row_bytes)}, each of {grid.blocks} "
            f"blocks from random places of the file; {rows}. The gradients of blocks vary {alike} "
            f"those of random rows; the set-up has read the file {self.passes} times."
        )

    def note(self) -> str | None:
        """Return a warning if neighbouring rows are alike, with the cure; else None."""
        if self.alike < ALIKE:
            return None
        return (
            f"Neighbouring rows of the file are alike: the gradients of its blocks vary "
            f"{self.alike:.3g} times as much as those of as many random rows. The settings allow "
            "for it, which makes steps smaller or draws fewer for each pass. Shuffle the file once "
            "(sgworld-mcmc shuffle IN... --out FOLDER), and run on the shuffled one."
        )
