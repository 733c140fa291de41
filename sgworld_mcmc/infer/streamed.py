"""A NumPyro ``MCMC`` with a plan, whose rows may be streamed."""

from collections.abc import Callable
from functools import partial
from typing import Any

from sgworld_mcmc.infer.planned import PlannedMCMC
from sgworld_mcmc.progress import tell
from sgworld_mcmc.setup.forecast import Forecast, forecast
from sgworld_mcmc.setup.run_plan import RunData
from sgworld_mcmc.streaming.arguments import is_streamed
from sgworld_mcmc.streaming.portions import Portions

__all__ = ["StreamedMCMC"]


class StreamedMCMC(PlannedMCMC):
    """The part of :class:`~sgworld_mcmc.infer.mcmc.MinibatchMCMC` that knows of streamed rows."""

    def forecast(self) -> Forecast:
        """Return what a run with the present set-up costs.

        Returns
        -------
        Forecast
            Rows, passes over the data, memory in bytes and, for streamed rows, seconds of reading,
            without those of the set-up. ``print`` says them in words.

        Raises
        ------
        ValueError
            If there has been no set-up.

        Examples
        --------
        >>> import jax
        >>> from sgworld_mcmc import SGWORLD, exact
        >>> target = exact.GaussianMean(num_data=1000)
        >>> mcmc = SGWORLD(target.model, num_warmup=10, num_samples=90, steps_per_draw=20,
        ...                batch_size=50, step_size=1e-3, gradient="plain")
        >>> plan = mcmc.set_up(jax.random.key(0), *target.data)
        >>> mcmc.forecast().passes  # the data have 20 batches
        100.0
        """
        if self.plan is None:
            raise ValueError("Nothing is known yet: call set_up(...) or run(...) first.")
        warmup = 0 if self._warmup_state is not None else self.num_warmup
        made = forecast(self.plan, warmup, self.num_samples, self._draws_bytes())
        chains = self.num_chains if self.chain_method == "sequential" else 1
        return made._replace(
            rows=chains * made.rows, passes=chains * made.passes, seconds=chains * made.seconds
        )

    def _draws_bytes(self) -> float:
        """Return about how many bytes of draws are in memory: the sites, and the positions.

        Zero if the user's own function says what is kept: its values are counted when it is traced.
        """
        if self.sampler.settings.keep is not None:
            return 0.0
        draws = self.num_chains * self.num_samples // self.thinning
        return draws * 2 * 4 * (1 + self.plan.double) * self.plan.fit.dimension

    def _calls(self) -> tuple[int, int]:
        """Return how many calls of the kernel make a call of the warm-up, and a draw.

        They are one each where the rows are in memory.
        """
        if self.plan.streaming is None:
            return 1, 1
        dynamics, call = self.plan.dynamics, self.plan.streaming.grid.call
        return dynamics.steps_per_warmup // call, dynamics.steps_per_draw // call

    def _portions(self, data: RunData) -> Callable | None:
        """Return what brings the chunks of streamed rows to the program; None without them."""
        if data.stream is None:
            return None
        return partial(_portions, data=data)

    def _check_streamed(self, args: tuple, kwargs: dict, extra_fields: Any) -> None:
        """Raise if streamed rows do not allow what was asked for."""
        if not is_streamed(args, kwargs):
            return
        if self.chain_method not in ("vectorized", "sequential"):
            raise ValueError(
                f"`chain_method` {self.chain_method!r} needs the rows in memory, and they are "
                "streamed: use 'vectorized', whose chains share what is read, or 'sequential'."
            )
        if "potential_energy" in extra_fields:
            raise ValueError(
                "The field 'potential_energy' needs all rows at every draw, and they are streamed: "
                "compute it afterwards, for a few draws."
            )

    def _tell_forecast(self) -> None:
        """Say what a run will cost; raise if streamed rows have not the memory."""
        ahead = self.forecast()
        tell(str(ahead))
        if self.plan.streaming is not None:
            ahead.check()


def _portions(program: Callable, state: Any, data: RunData) -> Portions:
    return Portions(program, data, data.stream, state)
