"""A NumPyro ``MCMC`` with a set-up that can be made, looked at, saved and replaced."""

import os

import jax
import jax.numpy as jnp
from numpyro.infer import MCMC

from sgworld_mcmc.checks import check_key
from sgworld_mcmc.infer.set_up import SetUp
from sgworld_mcmc.model.user_data import Labels, UserData
from sgworld_mcmc.progress import reporting
from sgworld_mcmc.setup.checked_model import warn_of
from sgworld_mcmc.setup.plan_file import save_plan
from sgworld_mcmc.setup.run_plan import RunData, RunPlan

__all__ = ["PlannedMCMC"]


class PlannedMCMC(MCMC):
    """The part of :class:`~sgworld_mcmc.infer.mcmc.MinibatchMCMC` that deals with its plan."""

    _setup: SetUp
    _labels: tuple[Labels, ...] = ()

    @property
    def plan(self) -> RunPlan | None:
        """The plan, with what the set-up has decided and measured; None before the first run."""
        return self._setup.plan

    @property
    def data(self) -> RunData | None:
        """The data laid out for the plan; None before the first run and after unpickling."""
        return self._setup.data

    @property
    def labels(self) -> tuple[Labels, ...]:
        """The names of columns and categories that came with the data of the last run."""
        return self._labels

    def _read(self, args: tuple, kwargs: dict) -> UserData:
        """Return the model's arguments as arrays: those of the last run if they are the same."""
        return self.sampler.read(args, kwargs, self._setup.arguments, self._streams())

    def _streams(self) -> bool | None:
        """Return whether rows in files have to be streamed; None if the free memory decides."""
        return self._setup.streams(self._warmup_state is not None)

    def _make_set_up(
        self, rng_key, args, kwargs, init_params, stacklevel: int, draws: int = 0
    ) -> RunPlan:
        """Make plan and data unless there are some; ``draws`` of each chain will be in memory."""
        resumed, chains, before = self._warmup_state is not None, self.num_chains, self.plan
        plan = self._setup.make(
            rng_key, args, kwargs, init_params, resumed=resumed, num_chains=chains, draws=draws
        )
        if plan is not before:
            warn_of(self.data.model, stacklevel + 1)
        return plan

    def set_up(self, rng_key, *args, init_params=None, **kwargs) -> RunPlan:
        """Choose all settings and lay the data out, without drawing.

        Parameters
        ----------
        rng_key, args, init_params, kwargs
            The arguments of :meth:`run`, which does not set up again for the same ones.

        Returns
        -------
        RunPlan
            The plan with what was decided and measured; it is also ``mcmc.plan``.
        """
        check_key("rng_key", rng_key)
        with reporting(self.progress_bar):
            args, kwargs, labels = self._read(args, kwargs)
            plan = self._make_set_up(rng_key, args, kwargs, init_params, stacklevel=2)
        if self._states is None:  # else they are those of the draws
            self._args, self._kwargs, self._labels = args, kwargs, labels
        return plan

    def use(self, plan: RunPlan, data: RunData) -> None:
        """Use this plan, and data that have been laid out for it, in the runs that follow."""
        self._setup.use(plan, data)

    def save_plan(self, path: str | os.PathLike) -> None:
        """Save the set-up of the last run: ``SGWORLD(model, plan=path)`` uses it again.

        Parameters
        ----------
        path
            Path of the file, a NumPy archive without code.

        Raises
        ------
        ValueError
            If there has been no run or set-up before.

        Examples
        --------
        >>> import jax, tempfile, os
        >>> from sgworld_mcmc import SGWORLD, exact
        >>> target = exact.GaussianMean()
        >>> mcmc = SGWORLD(target.model, num_samples=100)
        >>> mcmc.run(jax.random.key(0), *target.data)
        >>> path = os.path.join(tempfile.mkdtemp(), "plan.npz")
        >>> mcmc.save_plan(path)
        >>> again = SGWORLD(target.model, num_samples=100, plan=path)
        >>> again.run(jax.random.key(0), *target.data)
        >>> bool((again.get_samples()["mu"] == mcmc.get_samples()["mu"]).all())
        True
        """
        if self.plan is None:
            raise ValueError("There is no plan to save: call run(...) or set_up(...) first.")
        save_plan(self._setup.identified_plan(), path)

    def _given_starts(self, init_params: dict | None) -> dict | None:
        """Return unconstrained starts by site if the plan's own are not to be used, else None."""
        modes = self.plan.fit.modes
        if self.sampler.settings.start == "given" and init_params is not None:
            return self._for_each_chain(init_params)
        if modes is not None and len(modes) == self.num_chains and self._warmup_state is None:
            # Chains that were given far apart stay apart.
            return jax.vmap(self.data.model.unravel)(jnp.asarray(modes, float))
        return None

    def _for_each_chain(self, init_params: dict) -> dict:
        """Return initial values with an axis of chains, which NumPyro wants of several chains."""
        shapes, chains = self.data.model.shapes, self.num_chains
        values = {name: jnp.asarray(init_params[name], float) for name in shapes}
        if chains == 1 or any(jnp.ndim(x) > len(shapes[name]) for name, x in values.items()):
            return values
        return {name: jnp.broadcast_to(x, (chains, *x.shape)) for name, x in values.items()}
