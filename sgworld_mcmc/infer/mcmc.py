"""A NumPyro ``MCMC`` that lays out the data: what SGWORLD and SGLD share."""

import warnings
from dataclasses import replace
from typing import Any

import jax
import numpy as np
from numpyro.infer import MCMC
from numpyro.util import is_prng_key

from sgworld_mcmc.checks import check_choice, check_integer, check_key
from sgworld_mcmc.diagnostics import to_arviz
from sgworld_mcmc.infer.kernel import SGMCMCKernel
from sgworld_mcmc.model.arguments import signature_of
from sgworld_mcmc.report.bias_report import BiasReport
from sgworld_mcmc.report.heavy_tails import heavy_tails
from sgworld_mcmc.report.make_report import (
    can_be_checked,
    contradiction,
    make_report,
    notes_of,
)
from sgworld_mcmc.sampling.loop import Plan, collect
from sgworld_mcmc.setup.prepare import TuningWarning, contents_of

__all__ = ["DivergenceWarning", "MinibatchMCMC", "TuningWarning"]


class DivergenceWarning(UserWarning):
    """A chain became infinite and was stopped."""


class MinibatchMCMC(MCMC):
    """What :class:`SGWORLD` and :class:`SGLD` share: a NumPyro ``MCMC`` that lays out the data."""

    def __init__(
        self,
        sampler: SGMCMCKernel,
        *,
        num_samples: int,
        num_warmup: int,
        num_chains: int,
        thinning: int,
        chain_method: str,
        progress_bar: bool,
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
        self._prepared = None
        self._checked = None
        self._partition_key = None
        self._positions = None
        self._last_fields = ("z", "diverging", "position")

    def __getstate__(self):
        # Laid-out data and compiled functions are made again; the partition's key decides how.
        return {**super().__getstate__(), "_prepared": None, "_checked": None}

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
        resumed = self._warmup_state is not None
        if not resumed:
            self._checked = None
        if (resumed or init_params is None) and self._serves(args, kwargs):
            prepared = self._prepared[1]
        else:
            # Room for the rows to come: nothing holds those of the last run any more.
            self._prepared = self._checked = None
            # The set-up's random numbers come from NumPy's generator, seeded with the same key.
            key = rng_key if is_prng_key(rng_key) else rng_key[0]
            if resumed and self._partition_key is not None:
                key = self._partition_key
            leading = (self.num_chains,) if self.num_chains > 1 else ()
            prepared = self.sampler.prepare(key, args, kwargs, init_params, leading)
            self._prepared, self._partition_key = ((args, kwargs), prepared), key
        hidden = () if "position" in extra_fields else ("position",)
        fields = (*extra_fields, *hidden)
        try:
            with jax.enable_x64(prepared.double):
                super().run(rng_key, prepared.data, extra_fields=fields)
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
        notes = notes_of(prepared, self.sampler.settings, self._positions)
        # Once for each set-up; where something else is wrong, that is what the user should mend.
        new = prepared is not self._checked
        if new and not notes and can_be_checked(self, self._positions):
            self._checked = prepared
            notes = list(filter(None, [contradiction(self, self._positions)]))
        tails = heavy_tails(self._states[self._sample_field], prepared.data.model.latents)
        for note in [*notes, *tails]:
            warnings.warn(note, TuningWarning, stacklevel=2)

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
        if self._prepared is None:
            raise ValueError(
                "The data that the report needs are not kept when a run is pickled: call run(...) "
                "again, or make the report before."
            )
        half = self._control_run() if control else None
        return make_report(self, self._positions, half)

    def _control_run(self) -> np.ndarray:
        """Positions of a second run at half the step size, (chains, draws, D)."""
        state, tuning = self.last_state, self._prepared[1].data.tuning
        key = state.rng_key if self.num_chains == 1 else state.rng_key[0]
        key = jax.random.fold_in(key, 1)
        return self._run_at(key, tuning.step_size / 2, 2 * self.num_warmup)[0]

    def _run_at(self, rng_key, step_size, num_warmup: int) -> tuple[np.ndarray, Any]:
        """Positions (chains, draws, D) and last state of a new run at another step size.

        The compiled program takes the step size as an argument; ``get_samples()`` stays.
        """
        prepared = self._prepared[1]
        tuning = prepared.data.tuning
        data = replace(prepared.data, tuning=tuning._replace(step_size=step_size))
        plan = Plan(
            calls=num_warmup,
            draws=self.num_samples // self.thinning,
            thinning=self.thinning,
            fields=("z", *(name for name in self._last_fields if name != "z")),
            removed=(),
            vectorized=True,
        )
        keys = jax.random.split(rng_key, self.num_chains)
        with jax.enable_x64(prepared.double):
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
        return np.swapaxes(np.asarray(draws["position"], float), 0, 1), last

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
        data = self._prepared[1].data
        dynamics = data.dynamics
        draws = plan.draws * plan.thinning * dynamics.steps_per_draw
        steps = plan.calls * dynamics.steps_per_warmup + draws
        each = sum(x.size for x in jax.tree.leaves(data.batches)) / dynamics.num_batches
        return self.num_chains * steps * each

    def to_arviz(self, **options) -> Any:
        """The draws as an ArviZ object: see :func:`sgworld_mcmc.diagnostics.to_arviz`."""
        return to_arviz(self, **options)

    def _serves(self, args: tuple, kwargs: dict) -> bool:
        """Whether the data laid out for the last run are those of these arguments."""
        if self._prepared is None:
            return False
        given, prepared = self._prepared
        user = bool(jax.config.jax_enable_x64)
        if user != prepared.user_double or signature_of(*given) != signature_of(args, kwargs):
            return False
        old, new = jax.tree.leaves(given), jax.tree.leaves((args, kwargs))
        if not all(a is b for a, b in zip(old, new, strict=True) if hasattr(a, "shape")):
            return False
        # The elements of a NumPy array may have changed since.
        return contents_of(self.sampler.model, args, kwargs) == prepared.contents

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
