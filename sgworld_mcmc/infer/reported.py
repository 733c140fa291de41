"""A NumPyro ``MCMC`` with a plan, whose draws are looked at and reported on."""

import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import jax
import numpy as np
from numpyro.diagnostics import print_summary

from sgworld_mcmc.arrays import from_numpy, named_leaves
from sgworld_mcmc.checkpoint.stored_draws import looked_at
from sgworld_mcmc.infer.extra_fields import CHECKS
from sgworld_mcmc.infer.streamed import StreamedMCMC
from sgworld_mcmc.report.bias_report import BiasReport
from sgworld_mcmc.report.draws import Draws
from sgworld_mcmc.report.heavy_tails import heavy_tails
from sgworld_mcmc.report.kinetic_report import KineticReport
from sgworld_mcmc.report.make_kinetic_report import kinetic_notes, make_kinetic_report
from sgworld_mcmc.report.make_report import can_be_checked, contradictions, make_report
from sgworld_mcmc.report.notes import not_finite_note, notes_of
from sgworld_mcmc.report.quantity_mixing import quantity_mixing
from sgworld_mcmc.sampling.collection import Collection
from sgworld_mcmc.sampling.loop import collect
from sgworld_mcmc.setup.random_parts import RANDOM_PARTS
from sgworld_mcmc.setup.run_plan import RunPlan

__all__ = ["ReportedMCMC"]

# What the control run's key is made with: no split of a key has so many parts.
CONTROL = 2**31 - 1


class ReportedMCMC(StreamedMCMC):
    """The part of :class:`~sgworld_mcmc.infer.mcmc.MinibatchMCMC` that looks at its draws."""

    # The positions of the last run's draws, and the plan that they were made with.
    _positions: np.ndarray | None = None
    _drawn_with: RunPlan | None = None
    # What was computed of the draws of the last run, beside the sites.
    _checks: dict[str, Any] | None = None
    # The draws on disk of which there are many are looked at every so many only.
    _spacing: int = 1
    # The plan whose draws have been checked.
    _checked: RunPlan | None = None
    # The fields that the last run has collected: a further run shares its program.
    _last_fields: tuple[str, ...] = ("z", "diverging", "position")
    # The numbers of draws and chains that were asked for, after a run that was interrupted.
    _asked: tuple[int, int] | None = None

    def bias_report(self, *, control: bool = False) -> BiasReport | KineticReport:
        """Report how biased the draws are, as predicted from the theory and as measured.

        Parameters
        ----------
        control
            Whether to make a second run at half the step size, of the same length and with the
            same compiled program, and to compare the change with the predicted one.

        Returns
        -------
        BiasReport or KineticReport
            For each parameter the predicted errors of variance and mean and their causes, the
            check by Stein's identity with gradients of all rows, and the settings used. Of kinetic
            dynamics without a mode: temperatures by site, and the convergence and expected errors
            of the quantities. ``print`` shows it as a table.

        Raises
        ------
        ValueError
            If there has been no :meth:`run` before, or after unpickling, which keeps the draws but
            not the data.
        """
        if self._positions is None:
            raise ValueError("There are no draws to report on: call run(...) first.")
        plan, data = self._drawn_with, self.data
        if plan is None:
            raise ValueError(
                "The data that the report needs are not kept when a run is pickled: call run(...) "
                "again, or make the report before."
            )
        if data is None or plan is not self.plan:
            # A set-up for other data was begun and interrupted: the draws are still the old ones.
            if control:
                raise ValueError(
                    "`control=True` needs the set-up of these draws, and another one was begun "
                    "since: call run(...) again."
                )
            data = self.sampler.lay_out(plan, self._args, self._kwargs)
        if control and plan.dynamics.step_schedule is not None:
            raise ValueError("`control=True` needs a constant `step_size`, not a schedule.")
        half = self._control_run() if control else None
        if plan.kinetic is not None:
            report = make_kinetic_report(plan, data, self.draws(), control=half)
            notes = (RANDOM_PARTS,) if data.model.random else ()
            return report._replace(notes=(*notes, *report.notes))
        strategy = self.sampler.settings.init_strategy
        report = make_report(plan, data, self.draws(), control=half, strategy=strategy)
        if self._checks is None:
            return report
        return report._replace(quantities=quantity_mixing(self.quantities()))

    def report(self, path: str | os.PathLike, *, control: bool = False) -> Path:
        """Write a report of the last run as one HTML page, which needs no other file or network.

        The page has the warnings, a summary and pictures of the parameters, the bias report,
        settings, costs and versions. It can be printed, and follows the reader's choice of a light
        or dark display.

        Parameters
        ----------
        path
            Path of the file. One that exists is replaced once the page is complete.
        control
            Whether the bias report makes a second run, as in :meth:`bias_report`.

        Returns
        -------
        pathlib.Path
            The path.

        Raises
        ------
        ValueError
            If there has been no :meth:`run` before.
        FileNotFoundError, IsADirectoryError
            If the folder of the file does not exist, or ``path`` is a folder.
        ImportError
            If Matplotlib is not installed.

        Notes
        -----
        Where no bias report can be made, of too few draws or after unpickling, the page says so.
        At most 60 scalar parameters are summarised and 12 drawn, from each site the first.

        Examples
        --------
        >>> import jax, tempfile, os
        >>> from sgworld_mcmc import SGWORLD, exact
        >>> target = exact.GaussianMean()
        >>> mcmc = SGWORLD(target.model, num_samples=100)
        >>> mcmc.run(jax.random.key(0), *target.data)
        >>> mcmc.report(os.path.join(tempfile.mkdtemp(), "report.html")).name
        'report.html'
        """
        # What the page needs is imported when there is one.
        from sgworld_mcmc.report_page import write_page

        return write_page(self, path, control=control)

    def run_at(self, rng_key, step_size, num_warmup: int | None = None) -> Draws:
        """Make a further run at another step size, with the set-up and program of the last one.

        The compiled program takes the step size as an argument. ``get_samples()`` still returns
        the draws of the last run.

        Parameters
        ----------
        rng_key
            Random key that decides starts, orders and noise.
        step_size
            Step size in the sampler's coordinates.
        num_warmup
            Number of burn-in calls; default that of the last run.

        Returns
        -------
        Draws
            The draws in the sampler's coordinates.
        """
        if self.data is None:
            raise ValueError("There is no set-up to run with: call run(...) or set_up(...) first.")
        num_warmup = self.num_warmup if num_warmup is None else num_warmup
        tuning = self.data.tuning
        step_size = from_numpy(step_size, tuning.step_size.dtype)
        data = replace(self.data, tuning=tuning._replace(step_size=step_size))
        before, each = self._calls()
        collection = Collection(
            calls=num_warmup * before,
            draws=self.num_samples // self.thinning,
            thinning=self.thinning * each,
            fields=("z", *(name for name in self._last_fields if name != "z")),
            removed=(),
            vectorized=True,
            room=self._room,
        )
        keys = self.sampler.split(rng_key, self.num_chains)
        with jax.enable_x64(self.plan.double):
            start = self.sampler.init(keys, num_warmup, model_args=(data,))
            found = collect(
                start,
                (data,),
                {},
                sampler=self.sampler,
                collection=collection,
                postprocess=None,
                numbers=self._numbers(),
                portions=self._portions(data),
            )
        return self._draws_of(found.draws, found.state)

    def draws(self) -> Draws:
        """Return the draws of the last run in the sampler's own coordinates, for diagnostics."""
        field = self._sample_field
        if self.sampler.settings.keep is not None or self._states is None:  # these are no sites
            samples = {}
        else:
            samples = looked_at(self._states, (field,))[0].get(field, {})
        return Draws(self._positions, self.last_state, samples, self._checks, self._spacing)

    def quantities(self) -> Any:
        """Return the quantities of the last run's draws, a pytree of arrays (chains, draws, ...).

        They are those that ``quantities=`` names, or the default ones of a network
        (:func:`sgworld_mcmc.report.quantities.default_quantities`).
        """
        if self._checks is None:
            raise ValueError(
                "No quantities were computed: give `quantities=`, a function of the sites of one "
                "draw, and call run(...)."
            )
        if self._spacing > 1:  # the checks look at part of the draws on disk
            found = self._states.whole(CHECKS)["quantities"]
            return jax.tree.map(lambda x: np.asarray(x, float), found)
        return self._checks["quantities"]

    def print_summary(self, prob: float = 0.9, exclude_deterministic: bool = True) -> None:
        """Print the statistics of the draws, as ``numpyro.infer.MCMC`` does.

        Parameters
        ----------
        prob
            Probability mass of the credible interval.
        exclude_deterministic
            Whether to leave out deterministic sites. What ``keep`` has kept is always shown.
        """
        if self._states is None:
            raise ValueError("There are no draws to summarise: call run(...) first.")
        if self.sampler.settings.keep is None:
            super().print_summary(prob, exclude_deterministic)
            return
        print_summary(named_leaves(self.get_samples(group_by_chain=True)), prob=prob)
        print(f"Number of divergences: {np.sum(self.get_extra_fields()['diverging'])}")

    def to_arviz(self, **options) -> Any:
        """Return the draws as an ArviZ object: see :func:`sgworld_mcmc.diagnostics.to_arviz`."""
        # ArviZ is imported when it is used.
        from sgworld_mcmc.diagnostics import to_arviz

        return to_arviz(self, **options)

    def _notes(self) -> list[str]:
        """Return what a user should know about the draws."""
        plan, draws = self.plan, self.draws()
        if plan.kinetic is not None:
            return [*kinetic_notes(plan, self.data, draws), *self._kept_note()]
        notes = notes_of(plan, draws)
        # The draws are checked once for each set-up, and only if nothing else is wrong, which the
        # user should mend first.
        new = plan is not self._checked
        if new and not notes and can_be_checked(plan, draws):
            self._checked = plan
            strategy = self.sampler.settings.init_strategy
            notes = contradictions(plan, self.data, draws, strategy)
        if self._checks is not None:
            named = {name or "value": x for name, x in named_leaves(self.quantities()).items()}
            notes = [*notes, *not_finite_note(named, "quantities")]
        return [*notes, *heavy_tails(draws.samples, self.data.model.latents), *self._kept_note()]

    def _kept_note(self) -> list[str]:
        """Return a note if what ``keep`` has kept is not finite."""
        field = self._sample_field
        if self.sampler.settings.keep is None or self._states is None:
            return []
        kept = named_leaves(looked_at(self._states, (field,))[0].get(field, {}))
        return not_finite_note(kept)

    def _hidden_fields(self, extra_fields) -> tuple[str, ...]:
        """Return the fields that the diagnostics need and the user has not asked for."""
        kinetic = self.plan.kinetic is not None
        wanted = self.sampler.settings.quantities is not None
        checks = (CHECKS,) if kinetic or wanted else ()
        if kinetic or "position" in extra_fields:  # positions of many dimensions fill the memory
            return checks
        return ("position", *checks)

    def _take_positions(self, extra_fields) -> None:
        """Keep what the diagnostics need; show of it only what was asked for."""
        states, self._spacing = looked_at(self._states, ("position", CHECKS))
        taken = self._draws_of(states, None)
        self._positions, self._checks, self._drawn_with = taken.positions, taken.checks, self.plan
        for name in self._hidden_fields(extra_fields):
            del self._states[name]
            if self._states_flat is not None:
                del self._states_flat[name]

    def _draws_of(self, states: dict, last_state: Any) -> Draws:
        """Return the record of the draws, by which they are judged."""
        checks = states.get(CHECKS)
        if checks is not None:
            checks = jax.tree.map(lambda x: np.asarray(x, float), checks)
        if self.plan.kinetic is None:
            return Draws(np.asarray(states["position"], float), last_state, checks=checks)
        leaves = jax.tree.leaves((checks["quantities"], checks["potential"]))
        flat = [np.reshape(x, (*x.shape[:2], -1)) for x in leaves]
        return Draws(np.concatenate(flat, axis=2), last_state, checks=checks)

    def _control_run(self) -> np.ndarray:
        """Return the (chains, draws, D) positions of a second run at half the step size."""
        state = self.last_state
        key = state.rng_key if self.num_chains == 1 else state.rng_key[0]
        key = jax.random.fold_in(key, CONTROL)
        return self.run_at(key, self.data.tuning.step_size / 2, 2 * self.num_warmup).positions

    @property
    def _room(self) -> int:
        """Number of draws of a whole run, whose program a warm-up or a shorter run can share."""
        return (self._asked or (self.num_samples,))[0] // self.thinning

    def _numbers(self) -> float:
        """Count the numbers that a whole run reads, so that a continued run has its program."""
        data, dynamics = self.data, self.plan.dynamics
        samples, chains = self._asked or (self.num_samples, self.num_chains)
        draws = samples * dynamics.steps_per_draw
        steps = self.num_warmup * dynamics.steps_per_warmup + draws
        each = sum(x.size for x in jax.tree.leaves(data.feed)) / data.dynamics.num_batches
        return chains * steps * each
