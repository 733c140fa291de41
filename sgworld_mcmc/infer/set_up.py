"""The set-up of an ``MCMC`` object, which is made when needed and kept as long as it serves."""

from typing import Any, NamedTuple

import jax
from numpyro.util import is_prng_key

from sgworld_mcmc.device_layout import layout_of
from sgworld_mcmc.hosts import all_of
from sgworld_mcmc.infer.kernel import SGMCMCKernel
from sgworld_mcmc.model.arguments import is_array, signature_of
from sgworld_mcmc.model.numpyro_model import MinibatchModel
from sgworld_mcmc.progress import tell
from sgworld_mcmc.setup.checked_model import contents_of
from sgworld_mcmc.setup.lay_out import PlanMismatch, identified
from sgworld_mcmc.setup.run_plan import RunData, RunPlan
from sgworld_mcmc.streaming.arguments import is_streamed
from sgworld_mcmc.streaming.source import SourceError

__all__ = ["SetUp"]


class SetUp:
    """A plan, the data laid out for it, and the arguments that they were made from.

    Parameters
    ----------
    sampler
        The kernel that makes plans and lays data out.
    given
        The plan to use, whatever the data; None to make one.
    """

    def __init__(self, sampler: SGMCMCKernel, given: RunPlan | None) -> None:
        self._sampler, self._given = sampler, given
        self._made = _Made(given)

    @property
    def plan(self) -> RunPlan | None:
        """The plan: what the set-up has decided and measured."""
        return self._made.plan

    @property
    def data(self) -> RunData | None:
        """The data laid out for the plan; None after unpickling."""
        return self._made.data

    @property
    def arguments(self) -> tuple[tuple, dict]:
        """The model's arguments that plan and data were made from."""
        return self._made.args, self._made.kwargs

    def streams(self, resumed: bool) -> bool | None:
        """Return whether rows in files have to be streamed, as they were for the plan; None if not.

        ``resumed`` says whether a run is continued.
        """
        if self._given is not None or (resumed and self.plan is not None):
            return (self._given or self.plan).streaming is not None
        unpickled = self.plan is not None and self._made.view is None
        return True if unpickled and self.plan.streaming is not None else None

    def __getstate__(self) -> dict[str, Any]:
        # The data are laid out again; the plan says how, and for which model and data.
        try:
            plan = None if self.plan is None else self.identified_plan()
        except (ValueError, SourceError):  # the data have changed: nothing of the plan holds
            plan = None
        return {**self.__dict__, "_made": _Made(plan)}

    def use(self, plan: RunPlan, data: RunData) -> None:
        """Replace the plan and its data by others for the same arguments."""
        self._made = self._made._replace(plan=plan, data=self._placed(data))

    def adopt(self, plan: RunPlan, args: tuple, kwargs: dict) -> None:
        """Lay the data out for a plan that was saved, and use it.

        Raises
        ------
        PlanMismatch
            If the plan was made for another model or other data.
        """
        self._made = self._made._replace(data=None)
        data = self._placed(self._sampler.lay_out(plan, args, kwargs))
        self._lay_by(plan, data, args, kwargs)

    def make(
        self,
        rng_key: jax.Array,
        args: tuple,
        kwargs: dict,
        init_params: dict | None,
        *,
        resumed: bool,
        num_chains: int,
        draws: int = 0,
    ) -> RunPlan:
        """Make plan and data for these arguments, unless the present ones serve.

        Parameters
        ----------
        rng_key
            Random key that decides the partition and the set-up, if a plan has to be made.
        init_params
            Points where the search for the mode begins. With them a plan is made in any case,
            unless a run is continued.
        resumed
            Whether a run is continued, whose plan and partition are kept.
        num_chains, draws
            Number of chains, and of draws of each that will lie in memory.
        """
        if not ((resumed or init_params is None) and self._serves(args, kwargs)):
            if self._given is not None and init_params is not None and not resumed:
                raise ValueError(
                    "`init_params` cannot be given beside `plan`: the starts are part of it. "
                    "Set up anew, without `plan`."
                )
            kept = self.identified_plan() if resumed and self.plan is not None else None
            # The rows of the last run are let go, to make room for the new ones.
            self._made = self._made._replace(data=None)
            if kept is not None:  # raises if the data are others than those of the run
                plan, data = kept, self._sampler.lay_out(kept, args, kwargs)
            else:
                counts = num_chains, draws
                plan, data = self._plan_and_data(rng_key, args, kwargs, init_params, *counts)
            self._lay_by(plan, self._placed(data), args, kwargs)
        return self.plan

    def identified_plan(self) -> RunPlan:
        """Return the plan with a description of model and data that holds in other processes."""
        if self.plan.description.log_densities is not None:
            return self.plan
        return identified(self.plan, self._made.view, self._made.args, self._made.kwargs)

    def _lay_by(self, plan: RunPlan, data: RunData, args: tuple, kwargs: dict) -> None:
        contents = plan.description.contents
        if self._sampler.on_hosts:  # of which the plan knows nothing: each host has its own
            contents = contents_of(data.model.model, args, kwargs)
        double = bool(jax.config.jax_enable_x64)
        self._made = _Made(plan, data, data.model, args, kwargs, double, contents)

    def _placed(self, data: RunData) -> RunData:
        """Return the data on the devices of the run, if it has several."""
        layout = layout_of(self._sampler.settings.devices, data.dynamics.shards)
        if layout is None or data.layout is not None:
            return data
        tell(f"Devices: {layout}.")
        return layout.place_data(data)

    def _plan_and_data(self, rng_key, args, kwargs, init_params, num_chains, draws):
        if self._given is not None:
            return self._given, self._sampler.lay_out(self._given, args, kwargs)
        unpickled = self.plan is not None and self._made.view is None
        if unpickled and init_params is None:
            try:
                return self.plan, self._sampler.lay_out(self.plan, args, kwargs)
            except PlanMismatch:
                pass  # the data are others, and a new plan is made
        # The set-up's random numbers come from NumPy's generator, seeded with the same key.
        key = rng_key if is_prng_key(rng_key) else rng_key[0]
        leading = (num_chains,) if num_chains > 1 else ()
        return self._sampler.prepare(
            key,
            args,
            kwargs,
            init_params,
            leading,
            chains=num_chains,
            draws=draws,
            streams=is_streamed(args, kwargs),
        )

    def _serves(self, args: tuple, kwargs: dict) -> bool:
        """Return whether the data that are laid out are those of these arguments, on all hosts."""
        serves = self._serves_here(args, kwargs)
        return all(all_of(serves)) if self._sampler.on_hosts else serves

    def _serves_here(self, args: tuple, kwargs: dict) -> bool:
        made = self._made
        if made.data is None or made.double != bool(jax.config.jax_enable_x64):
            return False
        if signature_of(made.args, made.kwargs) != signature_of(args, kwargs):
            return False
        old, new = jax.tree.leaves((made.args, made.kwargs)), jax.tree.leaves((args, kwargs))
        if not all(a is b for a, b in zip(old, new, strict=True) if is_array(a)):
            return False
        # The elements of a NumPy array may have changed since.
        now = contents_of(made.data.model.model, args, kwargs)
        return all(b in (a, None) for a, b in zip(made.contents, now, strict=True))


class _Made(NamedTuple):
    """A plan and its data, and the arguments that they were made from."""

    plan: RunPlan | None = None
    data: RunData | None = None
    view: MinibatchModel | None = None
    args: tuple = ()
    kwargs: dict = {}  # noqa: RUF012
    double: bool = False
    contents: tuple[int | None, ...] = ()
