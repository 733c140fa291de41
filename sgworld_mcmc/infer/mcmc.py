"""A NumPyro ``MCMC`` that lays out the data: what SGWORLD and SGLD share."""

import os
import warnings
from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from numpyro.infer import MCMC
from numpyro.util import is_prng_key

from sgworld_mcmc.checks import check_choice, check_integer, check_key
from sgworld_mcmc.diagnostics import to_arviz
from sgworld_mcmc.infer.kernel import SGMCMCKernel
from sgworld_mcmc.model.arguments import signature_of
from sgworld_mcmc.report.bias_report import BiasReport
from sgworld_mcmc.report.draws import Draws
from sgworld_mcmc.report.heavy_tails import heavy_tails
from sgworld_mcmc.report.make_report import can_be_checked, contradiction, make_report
from sgworld_mcmc.report.notes import notes_of
from sgworld_mcmc.sampling.loop import Plan, collect
from sgworld_mcmc.setup.checked_model import contents_of
from sgworld_mcmc.setup.plan_file import save_plan
from sgworld_mcmc.setup.prepare import PlanMismatch, identified
from sgworld_mcmc.setup.run_plan import RunData, RunPlan

__all__ = ["DivergenceWarning", "MinibatchMCMC", "TuningWarning"]


class TuningWarning(UserWarning):
    """The automatic settings could not be made as good as the tolerance asks."""


class DivergenceWarning(UserWarning):
    """A chain became infinite and was stopped."""


class MinibatchMCMC(MCMC):
    """What :class:`SGWORLD` and :class:`SGLD` share: a NumPyro ``MCMC`` that lays out the data."""

    def __init__(
        self,
        sampler: SGMCMCKernel,
        *,
        num_samples: int = 1000,
        num_warmup: int = 100,
        num_chains: int = 4,
        thinning: int = 1,
        chain_method: str = "vectorized",
        progress_bar: bool = False,
        plan: RunPlan | None = None,
    ) -> None:
        check_integer("num_chains", num_chains, 1)
        check_integer("num_samples", num_samples, 1)
        check_integer("num_warmup", num_warmup, 0)
        check_integer("thinning", thinning, 1, num_samples)
        if not callable(chain_method):
            check_choice("chain_method", chain_method, ("vectorized", "sequential", "parallel"))
        super().__init__(
            sampler,
            num_warmup=num_warmup,
            num_samples=num_samples,
            num_chains=num_chains,
            thinning=thinning,
            chain_method=chain_method,
            progress_bar=progress_bar,
            jit_model_args=True,
        )
        self._given, self._plan = plan, plan
        self._data: RunData | None = None
        self._arguments, self._user_double = ((), {}), False
        self._checked = None
        self._positions = None
        self._last_fields = ("z", "diverging", "position")

    def __getstate__(self):
        # Laid-out data and compiled functions are made again; the plan says how.
        state = {**super().__getstate__(), "_data": None, "_arguments": ((), {}), "_checked": None}
        if self._plan is not None:
            state["_plan"] = self._identified_plan()
        return state

    @property
    def plan(self) -> RunPlan | None:
        """What the set-up has decided and measured: None before the first run."""
        return self._plan

    @property
    def data(self) -> RunData | None:
        """The data laid out for the plan: None before the first run and after unpickling."""
        return self._data

    def run(self, rng_key, *args, extra_fields=(), init_params=None, **kwargs):
        """Sample the posterior; the arguments are those of ``numpyro.infer.MCMC.run``.

        Parameters
        ----------
        rng_key
            Decides everything random: partition, orders, initial points and noise. To continue a
            run, ``mcmc.post_warmup_state = mcmc.last_state`` and then
            ``mcmc.run(mcmc.last_state.rng_key, ...)``: the same draws as one longer run (to
            rounding, if only that is long enough to be compiled for speed).
        *args, **kwargs
            The model's own arguments; the arrays among them whose leading axis is that of the
            observations are the data.
        extra_fields
            Names of further fields of :class:`~sgworld_mcmc.sampling.chain.SGMCMCState` to collect.
        init_params
            Dict of *unconstrained* initial values by latent site, chains first if several.

        Raises
        ------
        ValueError, TypeError
            Before the first step, for a model or arguments that cannot be sampled: the message
            names the site or argument and says what to change.

        Notes
        -----
        A second run on the same arrays needs no set-up: partition, coordinates and settings stay
        those of the first run with these data, whose key decided them, and the new key decides
        orders, starts and noise. The arrays must be the same objects; a NumPy array whose elements
        have changed since is noticed. With ``init_params``, or with other data, ``run`` sets up
        anew, and so does a new object of this class.
        """
        check_key("rng_key", rng_key)
        if self._warmup_state is None:
            self._checked = None
        self._set_up(rng_key, args, kwargs, init_params)
        plan = self._plan
        hidden = () if "position" in extra_fields else ("position",)
        fields = (*extra_fields, *hidden)
        try:
            with jax.enable_x64(plan.double):
                super().run(rng_key, self._data, extra_fields=fields)
        finally:
            # ArviZ and NumPyro's utilities call the model with these.
            self._args, self._kwargs = args, kwargs
        self._report_divergence()
        if "position" not in (self._states or {}):  # a warm-up that is not collected
            return
        self._positions = np.asarray(self._states["position"], float)
        for name in hidden:
            # For the diagnostics; not asked for, so not shown.
            del self._states[name]
            if self._states_flat is not None:
                del self._states_flat[name]
        draws = self.draws()
        notes = notes_of(plan, draws)
        # Once for each set-up; where something else is wrong, that is what the user should mend.
        new = plan is not self._checked
        if new and not notes and can_be_checked(plan, draws):
            self._checked = plan
            strategy = self.sampler.settings.init_strategy
            notes = list(filter(None, [contradiction(plan, self._data, draws, strategy)]))
        tails = heavy_tails(draws.samples, self._data.model.latents)
        for note in [*notes, *tails]:
            warnings.warn(note, TuningWarning, stacklevel=2)

    def draws(self) -> Draws:
        """Return the draws of the last run in the sampler's own coordinates, for diagnostics."""
        samples = (self._states or {}).get(self._sample_field, {})
        return Draws(self._positions, self.last_state, samples)

    def _set_up(self, rng_key, args, kwargs, init_params) -> None:
        """Make plan and data, unless those of the last run serve."""
        resumed = self._warmup_state is not None
        if (resumed or init_params is None) and self._serves(args, kwargs):
            return
        # Room for the rows to come: nothing holds those of the last run any more.
        self._data = self._checked = None
        self.use(*self._made(rng_key, args, kwargs, init_params, resumed))
        self._arguments, self._user_double = (args, kwargs), bool(jax.config.jax_enable_x64)

    def _made(self, rng_key, args, kwargs, init_params, resumed) -> tuple[RunPlan, RunData]:
        """A plan and its data: with a plan that was given, one that was kept, or a new one."""
        if self._given is not None:
            return self._given, self.sampler.lay_out(self._given, args, kwargs)
        kept = self._plan is not None and self._plan.description.log_density is not None
        if kept and init_params is None:  # unpickled
            try:
                return self._plan, self.sampler.lay_out(self._plan, args, kwargs)
            except PlanMismatch:
                pass
        # The set-up's random numbers come from NumPy's generator, seeded with the same key.
        key = rng_key if is_prng_key(rng_key) else rng_key[0]
        if resumed and self._plan is not None:
            key = self._plan.partition
        leading = (self.num_chains,) if self.num_chains > 1 else ()
        return self.sampler.prepare(key, args, kwargs, init_params, leading)

    def set_up(self, rng_key, *args, init_params=None, **kwargs) -> RunPlan:
        """Choose all settings and lay the data out, without drawing.

        Parameters
        ----------
        rng_key, args, init_params, kwargs
            As for :meth:`run`, which on the same arguments does not set up once more.

        Returns
        -------
        RunPlan
            What was decided and measured; also ``mcmc.plan``.
        """
        check_key("rng_key", rng_key)
        self._set_up(rng_key, args, kwargs, init_params)
        self._args, self._kwargs = args, kwargs
        return self._plan

    def use(self, plan: RunPlan, data: RunData) -> None:
        """Run with this plan, and with data that have been laid out for it, from now on."""
        self._plan, self._data = plan, data

    def save_plan(self, path: str | os.PathLike) -> None:
        """Save the set-up of the last run: ``SGWORLD(model, plan=path)`` uses it again.

        Parameters
        ----------
        path
            Of the file, a NumPy archive without code.

        Raises
        ------
        ValueError
            Before the first run or set-up.

        Examples
        --------
        >>> import jax, tempfile, os
        >>> from sgworld_mcmc import SGWORLD, exact
        >>> target = exact.GaussianMean()
        >>> first = SGWORLD(target.model, num_samples=100)
        >>> first.run(jax.random.key(0), *target.data)
        >>> path = os.path.join(tempfile.mkdtemp(), "plan.npz")
        >>> first.save_plan(path)
        >>> again = SGWORLD(target.model, num_samples=100, plan=path)
        >>> again.run(jax.random.key(0), *target.data)
        >>> bool((again.get_samples()["mu"] == first.get_samples()["mu"]).all())
        True
        """
        if self._plan is None:
            raise ValueError("There is no plan to save: call run(...) or set_up(...) first.")
        save_plan(self._identified_plan(), path)

    def _identified_plan(self) -> RunPlan:
        """The plan with a description of model and data that holds in another process."""
        if self._data is None:  # unpickled: described before
            return self._plan
        return identified(self._plan, self._data.model, *self._arguments)

    def bias_report(self, *, control: bool = False) -> BiasReport:
        """How biased the draws are: predicted from the theory, and measured.

        Parameters
        ----------
        control
            Make a second run at half the step size, of the same length and with the same
            compiled program, and compare the change with the predicted one.

        Returns
        -------
        BiasReport
            Per parameter the predicted error of variance and mean and its causes, the check by
            Stein's identity with gradients of all rows, and the settings used; ``print`` it.

        Raises
        ------
        ValueError
            Before :meth:`run`, or after unpickling, which keeps the draws and not the data.
        """
        if self._positions is None:
            raise ValueError("There are no draws to report on: call run(...) first.")
        if self._data is None:
            raise ValueError(
                "The data that the report needs are not kept when a run is pickled: call run(...) "
                "again, or make the report before."
            )
        half = self._control_run() if control else None
        strategy = self.sampler.settings.init_strategy
        return make_report(self._plan, self._data, self.draws(), control=half, strategy=strategy)

    def _control_run(self) -> np.ndarray:
        """Positions of a second run at half the step size, (chains, draws, D)."""
        state, tuning = self.last_state, self._plan.tuning
        key = state.rng_key if self.num_chains == 1 else state.rng_key[0]
        key = jax.random.fold_in(key, 1)
        return self.run_at(key, tuning.step_size / 2, 2 * self.num_warmup).positions

    def run_at(self, rng_key, step_size, num_warmup: int | None = None) -> Draws:
        """Make a further run at another step size, with the set-up and program of the last one.

        The compiled program takes the step size as an argument; ``get_samples()`` stays.

        Parameters
        ----------
        rng_key
            Decides starts, orders and noise.
        step_size
            In the sampler's coordinates.
        num_warmup
            Burn-in calls; default those of the run.

        Returns
        -------
        Draws
            In the sampler's coordinates.
        """
        num_warmup = self.num_warmup if num_warmup is None else num_warmup
        step_size = jnp.asarray(step_size, self._data.tuning.step_size.dtype)
        data = replace(self._data, tuning=self._data.tuning._replace(step_size=step_size))
        plan = Plan(
            calls=num_warmup,
            draws=self.num_samples // self.thinning,
            thinning=self.thinning,
            fields=("z", *(name for name in self._last_fields if name != "z")),
            removed=(),
            vectorized=True,
        )
        keys = jax.random.split(rng_key, self.num_chains)
        with jax.enable_x64(self._plan.double):
            start = self.sampler.init(keys, num_warmup, model_args=(data,))
            draws, last = collect(
                start,
                (data,),
                {},
                sampler=self.sampler,
                plan=plan,
                postprocess=None,
                numbers=self._numbers(plan),
            )
        return Draws(np.swapaxes(np.asarray(draws["position"], float), 0, 1), last)

    def _single_chain_mcmc(self, init, args, kwargs, collect_fields, remove_sites):
        # With a bar, NumPyro's loop of one dispatch per draw; without, one compiled program.
        if self.progress_bar:
            return super()._single_chain_mcmc(init, args, kwargs, collect_fields, remove_sites)
        rng_key, state, init_params = init
        self._last_fields = collect_fields
        if state is None:
            state = self.sampler.init(
                rng_key, self.num_warmup, init_params, model_args=args, model_kwargs=kwargs
            )
        lower, upper = self._collection_params["lower"], self._collection_params["upper"]
        plan = Plan(
            calls=lower,
            draws=(upper - lower) // self.thinning,
            thinning=self.thinning,
            fields=collect_fields,
            removed=remove_sites,
            vectorized=self.chain_method == "vectorized" and self.num_chains > 1,
        )
        return collect(
            state,
            args,
            kwargs,
            sampler=self.sampler,
            plan=plan,
            postprocess=self.postprocess_fn,
            numbers=self._numbers(plan),
        )

    def _numbers(self, plan: Plan) -> float:
        """Of the data that a run reads."""
        data, dynamics = self._data, self._data.dynamics
        draws = plan.draws * plan.thinning * dynamics.steps_per_draw
        steps = plan.calls * dynamics.steps_per_warmup + draws
        each = sum(x.size for x in jax.tree.leaves(data.feed)) / dynamics.num_batches
        return self.num_chains * steps * each

    def to_arviz(self, **options) -> Any:
        """The draws as an ArviZ object: see :func:`sgworld_mcmc.diagnostics.to_arviz`."""
        return to_arviz(self, **options)

    def _serves(self, args: tuple, kwargs: dict) -> bool:
        """Whether the data laid out for the last run are those of these arguments."""
        if self._data is None:
            return False
        if self._user_double != bool(jax.config.jax_enable_x64):
            return False
        old, new = jax.tree.leaves(self._arguments), jax.tree.leaves((args, kwargs))
        same = signature_of(*self._arguments) == signature_of(args, kwargs)
        if not same:
            return False
        if not all(a is b for a, b in zip(old, new, strict=True) if hasattr(a, "shape")):
            return False
        # The elements of a NumPy array may have changed since.
        before, now = self._plan.description.contents, contents_of(self.sampler.model, args, kwargs)
        return all(b in (a, None) for a, b in zip(before, now, strict=True))

    def _report_divergence(self) -> None:
        state = self.last_state
        diverged_at = np.atleast_1d(np.asarray(state.diverged_at))
        if not (diverged_at >= 0).any():
            return
        steps, calls = np.max(np.asarray(state.step)), np.max(np.asarray(state.i))
        where = ", ".join(
            f"chain {chain} at minibatch step {step} of {steps}"
            for chain, step in enumerate(diverged_at)
            if step >= 0
        )
        size = float(np.max(np.asarray(state.step_size)))
        warnings.warn(
            f"A chain diverged: {where} (in {calls} calls, warm-up included). Its position became "
            "infinite, or left the mode by more than 10 000 posterior standard deviations. The "
            "chain is stopped: its later draws repeat the last one before and are marked in "
            "get_extra_fields()['diverging']. Do not use them. Reduce `step_size` (it was "
            f"{size:.3g} in preconditioned coordinates), raise `batch_size`, or start nearer to "
            "the mode with `init_params`. If the posterior is a funnel, its mode is no good "
            "centre: use a non-centred parametrisation, or NUTS.",
            DivergenceWarning,
            stacklevel=3,
        )
