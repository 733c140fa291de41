"""What a plan says about streamed rows: how the file is cut, and what reading it costs."""

from typing import NamedTuple

from sgworld_mcmc.memory import readable
from sgworld_mcmc.streaming.grid import Grid

__all__ = ["DEAR", "Streaming"]

# An order that takes this many times the rows of a shuffled file deserves a warning.
DEAR = 1.2


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
        How many times as much the gradients of groups of neighbours vary as those of as many random
        rows: one for a shuffled file.
    cost
        Predicted number of rows for each effective draw, over that for a shuffled file; None if
        the settings were given.
    passes
        How often the set-up has read all rows.
    rows_per_second
        The rate at which it has read them.
    """

    grid: Grid
    shuffled: bool
    row_bytes: int
    alike: float
    cost: float | None
    passes: int
    rows_per_second: float

    def described(self, size: int) -> str:
        """Return how the rows are read, in words."""
        grid = self.grid
        rows = "rows shuffled within each chunk" if self.shuffled else "batches of neighbours"
        alike = "vary no more than those of random rows"
        if self.alike > 1:
            alike = (
                f"vary up to {self.alike:.3g} times as much as those of as many random rows, "
                f"{self._price()}"
            )
        return (
            f"{size:,} rows ({readable(size * self.row_bytes)}) are streamed: {grid.chunks} chunks "
            f"an epoch of {readable(grid.chunk_rows * self.row_bytes)}, each of {grid.blocks} "
            f"blocks from random places of the file; {rows}. The gradients of neighbouring rows "
            f"{alike}. The set-up has read all rows {self.passes} times."
        )

    def note(self) -> str | None:
        """Return a warning if the order of the file costs much, with the cure; else None."""
        if (self.alike if self.cost is None else self.cost) < DEAR:
            return None
        return (
            f"Neighbouring rows of the file are alike: their gradients vary up to {self.alike:.3g} "
            f"times as much as those of as many random rows, {self._price()}. Shuffle the file "
            "once (sgworld-mcmc shuffle FILE... --out FOLDER), and run on the shuffled one."
        )

    def _price(self) -> str:
        if self.cost is None:
            return "which the predicted errors allow for"
        return f"which costs {self.cost:.3g} times the rows for each effective draw"
