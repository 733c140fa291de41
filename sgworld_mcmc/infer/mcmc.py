"""A NumPyro ``MCMC`` that lays out the data: what SGWORLD and SGLD share."""

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
from sgworld_mcmc.interrupts import InterruptedWarning, Interrupts
from sgworld_mcmc.model.arguments import signature_of
from sgworld_mcmc.progress import reporting, stage
from sgworld_mcmc.report.bias_report import BiasReport
from sgworld_mcmc.report.heavy_tails import heavy_tails
from sgworld_mcmc.report.make_report import (
    can_be_checked,
    contradiction,
    make_report,
    notes_of,
)
from sgworld_mcmc.sampling.loop import Collection, collect
from sgworld_mcmc.setup.prepare import Preparation, TuningWarning

__all__ = ["DivergenceWarning", "InterruptedWarning", "MinibatchMCMC", "TuningWarning"]


class DivergenceWarning(UserWarning):
    """A chain became infinite and was stopped."""


class _ChainInterrupted(Exception):
    """Leaves NumPyro's loop over chains."""


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
        progress_bar: bool | None,
    ) -> None:
        check_integer("num_chains", num_chains, 1)
        check_integer("num_samples", num_samples, 1)
        check_integer("num_warmup", num_warmup, 0)
        check_integer("thinning", thinning, 1, num_samples)
        if not callable(chain_method):
            check_choice("chain_method", chain_method, ("vectorized", "sequential", "parallel"))
        if not (progress_bar is None or isinstance(progress_bar, bool)):
            raise TypeError(f"`progress_bar` must be True, False or None, not {progress_bar!r}.")
        super().__init__(
            sampler,
            num_warmup=num_warmup,
            num_samples=num_samples,
            num_chains=num_chains,
            thinning=thinning,
            chain_method=chain_method,
            progress_bar=False,  # NumPyro's, for which every draw is a dispatch of its own
            jit_model_args=True,
        )
        self.progress_bar = progress_bar
        self._args, self._kwargs = (), {}
        self._prepared = None
        self._checked = None
        self._partition_key = None
        self._positions = None
        self._last_fields = ("z", "diverging", "position")
        # The run that goes on: its chains so far, if they are made one after the other.
        self._interrupts, self._reporter, self._chains = None, None, []
        # Draws and chains that were asked for, after a run that was interrupted.
        self._asked = None

    def __getstate__(self):
        # Laid-out data and compiled functions are made again; the partition's key decides how.
        forgotten = ("_prepared", "_checked", "_interrupts", "_reporter")
        return super().__getstate__() | dict.fromkeys(forgotten)

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
        KeyboardInterrupt
            If Ctrl-C is pressed before the first draw, or twice. Once there are draws, Ctrl-C ends
            the run with an :class:`InterruptedWarning`, and they are kept.
        """
        check_key("rng_key", rng_key)
        self._ask_again()
        self._interrupts, self._chains = Interrupts(), []
        with reporting(self.progress_bar) as self._reporter:
            try:
                prepared = self._make_draws(rng_key, args, kwargs, extra_fields, init_params)
                self._report_divergence()
                if "position" not in (self._states or {}):  # a warm-up that is not collected
                    return
                self._take_positions(extra_fields)
            finally:
                self._interrupts.release()
            if self._interrupts.asked:
                warnings.warn(self._what_is_kept(), InterruptedWarning, stacklevel=2)
                return
            try:
                stage("checking the draws")
                notes = self._notes(prepared)
            except KeyboardInterrupt:
                self._checked, notes = None, []
                warnings.warn(
                    "Interrupted while the draws were checked: all of them are kept. "
                    "bias_report() checks them.",
                    InterruptedWarning,
                    stacklevel=2,
                )
        for note in notes:
            warnings.warn(note, TuningWarning, stacklevel=2)

    def _make_draws(self, rng_key, args, kwargs, extra_fields, init_params) -> Preparation:
        """Set up and run the chains; if that is interrupted before a draw, undo it."""
        before = self._prepared, self._partition_key, self._args, self._kwargs
        try:
            prepared = self._prepare(rng_key, args, kwargs, init_params)
            hidden = () if "position" in extra_fields else ("position",)
            with jax.enable_x64(prepared.double):
                super().run(rng_key, prepared.data, extra_fields=(*extra_fields, *hidden))
        except _ChainInterrupted:
            self._keep_chains()
        except KeyboardInterrupt as interrupt:
            interrupt.add_note(self._what_is_lost())
            self._prepared, self._partition_key, args, kwargs = before
            raise
        finally:
            # ArviZ and NumPyro's utilities call the model with these.
            self._args, self._kwargs = args, kwargs
            # NumPyro leaves those of a warm-up that failed to the next run.
            self._set_collection_params()
            self._chains = []
        return prepared

    def _take_positions(self, extra_fields) -> None:
        """Keep the positions for the diagnostics; show them only if they were asked for."""
        self._positions = np.asarray(self._states["position"], float)
        if "position" not in extra_fields:
            del self._states["position"]
            if self._states_flat is not None:
                del self._states_flat["position"]

    def _prepare(self, rng_key, args: tuple, kwargs: dict, init_params) -> Preparation:
        """The data laid out with all settings: those of the run before if it is continued."""
        resumed = self._warmup_state is not None
        if resumed and self._prepared is not None and self._serves(args, kwargs):
            return self._prepared[1]
        # The set-up's random numbers come from NumPy's generator, seeded with the same key.
        key = rng_key if is_prng_key(rng_key) else rng_key[0]
        if resumed and self._partition_key is not None:
            key = self._partition_key
        leading = (self.num_chains,) if self.num_chains > 1 else ()
        prepared = self.sampler.prepare(key, args, kwargs, init_params, leading)
        self._prepared, self._partition_key = ((args, kwargs), prepared), key
        return prepared

    def _notes(self, prepared: Preparation) -> list[str]:
        """What a user should know of the draws."""
        notes = notes_of(prepared, self.sampler.settings, self._positions)
        # Once for each set-up; where something else is wrong, that is what the user should mend.
        new = prepared is not self._checked
        if new and not notes and can_be_checked(self, self._positions):
            self._checked = prepared
            notes = list(filter(None, [contradiction(self, self._positions)]))
        tails = heavy_tails(self._states[self._sample_field], prepared.data.model.latents)
        return [*notes, *tails]

    def _ask_again(self) -> None:
        """Ask for all draws and chains again after a run that was interrupted."""
        if self._asked is None:
            return
        self.num_samples, self.num_chains = self._asked
        if self._warmup_state is None:
            self._asked = None
        else:  # of the chains that were kept
            self.num_chains = np.size(self._warmup_state.i)

    def _keep_chains(self) -> None:
        """Do what NumPyro does after a run, with the chains that there are."""
        chains, last = zip(*self._chains, strict=True)
        self._states = jax.tree.map(lambda *x: jnp.stack(x), *chains)
        # NumPyro's state of a single chain has no axis of chains.
        self._last_state = jax.tree.map(lambda *x: jnp.stack(x), *last) if last[1:] else last[0]
        self._states_flat = None

    def _what_is_kept(self) -> str:
        """Say what an interrupted run leaves, and have ArviZ ask for no more."""
        chains, draws = self._positions.shape[:2]
        number, count = self.num_samples // self.thinning, self.num_chains
        if (draws, chains) != (number, count):
            self._asked = self._asked or (self.num_samples, self.num_chains)
            self.num_samples, self.num_chains = draws * self.thinning, chains
        return (
            f"The run was interrupted: {draws} of {number} draws of {chains} of {count} chains are "
            "kept, unchecked. To continue: `mcmc.post_warmup_state = mcmc.last_state`, then "
            "`mcmc.run(mcmc.last_state.rng_key, ...)`."
        )

    def _what_is_lost(self) -> str:
        """Say where a run was interrupted that leaves no draws."""
        where, seconds = self._reporter.name or "beginning", self._reporter.seconds
        old = "" if self._states is None else ", and get_samples() has those of an earlier run"
        return f"Interrupted after {seconds:.1f} s ({where}): no draws are kept{old}."

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
        collection = Collection(
            calls=num_warmup,
            draws=self.num_samples // self.thinning,
            thinning=self.thinning,
            fields=("z", *(name for name in self._last_fields if name != "z")),
            removed=(),
            vectorized=True,
            room=self._room,
        )
        keys = jax.random.split(rng_key, self.num_chains)
        with jax.enable_x64(prepared.double):
            start = self.sampler.init(keys, num_warmup, model_args=(data,))
            found = collect(
                start,
                (data,),
                {},
                sampler=self.sampler,
                collection=collection,
                postprocess=None,
                numbers=self._numbers(),
            )
        return np.swapaxes(np.asarray(found.draws["position"], float), 0, 1), found.state

    def _single_chain_mcmc(self, init, args, kwargs, collect_fields, remove_sites):
        rng_key, state, init_params = init
        self._last_fields = collect_fields
        # Chains that are made one after the other come here one by one.
        several = self.chain_method == "sequential" and self.num_chains > 1
        number, count = (len(self._chains), self.num_chains) if several else (0, 1)
        self._reporter.portion = number, count
        stage("compiling")
        if state is None:
            state = self.sampler.init(
                rng_key, self.num_warmup, init_params, model_args=args, model_kwargs=kwargs
            )
        lower, upper = self._collection_params["lower"], self._collection_params["upper"]
        collection = Collection(
            calls=lower,
            draws=(upper - lower) // self.thinning,
            thinning=self.thinning,
            fields=collect_fields,
            removed=remove_sites,
            vectorized=self.chain_method == "vectorized" and self.num_chains > 1,
            room=self._room,
        )
        # Half a warm-up that is collected would be taken for a whole one.
        interrupts = None if self._collection_params["phase"] == "warmup" else self._interrupts
        found = collect(
            state,
            args,
            kwargs,
            sampler=self.sampler,
            collection=collection,
            postprocess=self.postprocess_fn,
            numbers=self._numbers(),
            interrupts=interrupts,
        )
        if several:
            whole = found.made == collection.draws
            if whole or number == 0:  # all chains must have the same number of draws
                self._chains.append((found.draws, found.state))
            if self._interrupts.asked:
                raise _ChainInterrupted
        return found.draws, found.state

    @property
    def _room(self) -> int:
        """Draws of a whole run: a warm-up and a run that is cut short share its program."""
        return (self._asked or (self.num_samples,))[0] // self.thinning

    def _numbers(self) -> float:
        """Count the numbers that a whole run reads: one that continues it uses its program."""
        data = self._prepared[1].data
        dynamics = data.dynamics
        samples, chains = self._asked or (self.num_samples, self.num_chains)
        draws = samples * dynamics.steps_per_draw
        steps = self.num_warmup * dynamics.steps_per_warmup + draws
        each = sum(x.size for x in jax.tree.leaves(data.batches)) / dynamics.num_batches
        return chains * steps * each

    def to_arviz(self, **options) -> Any:
        """The draws as an ArviZ object: see :func:`sgworld_mcmc.diagnostics.to_arviz`."""
        return to_arviz(self, **options)

    def _serves(self, args: tuple, kwargs: dict) -> bool:
        """Whether the data laid out for the last run are those of these arguments."""
        old, new = jax.tree.leaves(self._prepared[0]), jax.tree.leaves((args, kwargs))
        same = signature_of(*self._prepared[0]) == signature_of(args, kwargs)
        return same and all(a is b for a, b in zip(old, new, strict=True) if hasattr(a, "shape"))

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
