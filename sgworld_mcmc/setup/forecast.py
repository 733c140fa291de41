"""What a run will cost, said before it runs."""

from math import inf
from typing import NamedTuple

from sgworld_mcmc.memory import available_memory, readable
from sgworld_mcmc.setup.run_plan import RunPlan
from sgworld_mcmc.streaming.chunks import BUFFERS
from sgworld_mcmc.streaming.rows import Rows

__all__ = ["Forecast", "check_memory", "forecast"]

# What Python, JAX and compiled programs take beside the rows, in bytes.
BESIDE = 5 * 10**8


class Forecast(NamedTuple):
    """The predicted cost of a run.

    Attributes
    ----------
    rows
        Number of rows that each chain will visit in warm-up and draws. Vectorized chains share the
        reading.
    passes
        The same in passes over the data, without those of the set-up.
    memory
        Bytes of memory that the draws take, and the streamed rows that are there at a time.
    seconds
        Seconds that reading takes, at the rate at which the set-up has read a stream. Infinity for
        rows in memory, of which the first draws tell: the time left is shown while a run goes.
    """

    rows: float
    passes: float
    memory: float
    seconds: float

    def check(self) -> None:
        """Raise ``MemoryError`` if the rows and the draws do not fit in the free memory."""
        free = available_memory()
        if self.memory > free:
            raise MemoryError(
                f"The run would take about {readable(self.memory)} of memory for its draws and the "
                f"rows that it reads ahead, and {readable(free)} are free. Ask for fewer draws "
                "(`num_samples`, `thinning`), or keep less of each (`keep`)."
            )

    def __str__(self) -> str:
        passes = f"{self.passes:.3g} passes over the data"
        reading = f"{self.seconds:.3g} s of reading at the rate so far, "
        return (
            f"Ahead: {self.rows:,.0f} rows for each chain ({passes}), "
            f"{reading if self.seconds < inf else ''}{self._memory()}."
        )

    def _memory(self) -> str:
        return (
            f"about {readable(self.memory)} of memory" if self.memory else "and what `keep` keeps"
        )


def forecast(plan: RunPlan, num_warmup: int, num_samples: int, draws_bytes: float = 0) -> Forecast:
    """Predict what a run of a plan costs.

    Parameters
    ----------
    plan
        The plan.
    num_warmup, num_samples
        Numbers of calls before the first draw, and of draws.
    draws_bytes
        Bytes that the draws will take.
    """
    dynamics, streaming, size = plan.dynamics, plan.streaming, plan.description.size
    steps = num_warmup * dynamics.steps_per_warmup + num_samples * dynamics.steps_per_draw
    passes = steps / dynamics.num_batches
    if streaming is None:
        return Forecast(passes * size, passes, draws_bytes, inf)
    memory = BUFFERS * streaming.grid.chunk_rows * streaming.row_bytes
    rate = streaming.rows_per_second
    return Forecast(passes * size, passes, memory + draws_bytes, passes * size / rate)


def check_memory(rows: Rows, chunk_rows: int) -> None:
    """Raise if the machine has not the memory for a streamed run.

    Raises
    ------
    MemoryError
        The message says how much is needed, and what helps.
    """
    need = BUFFERS * chunk_rows * rows.row_bytes + BESIDE
    free = available_memory()
    if need > free:
        raise MemoryError(
            f"A run on streamed rows takes about {readable(need)} of memory, and {readable(free)} "
            "are free. Close other programs, raise the limit of the process, or run on a machine "
            "with more memory."
        )
