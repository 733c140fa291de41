"""The set-up of a kernel: it reads the model's arguments and makes plans of them."""

from collections.abc import Callable

import jax
import numpy as np
from numpyro.infer import init_to_uniform
from numpyro.infer.mcmc import MCMCKernel

from sgworld_mcmc.data.in_memory import seed_of
from sgworld_mcmc.model.plates import FullData
from sgworld_mcmc.model.user_data import UserData, kept_arrays, read_user_data
from sgworld_mcmc.settings import Settings, make_settings
from sgworld_mcmc.setup.lay_out import lay_out
from sgworld_mcmc.setup.on_hosts import lay_out_on_hosts, prepare_on_hosts
from sgworld_mcmc.setup.prepare import prepare
from sgworld_mcmc.setup.run_plan import RunData, RunPlan
from sgworld_mcmc.setup.streamed.lay_out import lay_out_streamed
from sgworld_mcmc.setup.streamed.prepare import prepare_streamed
from sgworld_mcmc.streaming.arguments import is_streamed, open_arguments, stream_rest

__all__ = ["PreparedKernel"]


class PreparedKernel(MCMCKernel):
    """The part of :class:`~sgworld_mcmc.infer.kernel.SGMCMCKernel` that makes plans."""

    def __init__(self, model: Callable, **settings) -> None:
        if not callable(model):
            raise TypeError(f"`model` must be a NumPyro model, a function, not {type(model)}.")
        # None stands for the default strategy, whose points need no evaluation of the model.
        if settings.get("init_strategy") is init_to_uniform:
            settings["init_strategy"] = None
        self._settings = make_settings(**settings)
        self._model = model
        # Models that were seen, with their compiled functions.
        self._models: dict = {}

    @property
    def model(self) -> Callable:
        """The model with every subsampled plate made full, for log likelihoods and predictions."""
        return FullData(self._model)

    @property
    def settings(self) -> Settings:
        """The settings given at construction; ``None`` stands for an automatic choice."""
        return self._settings

    @property
    def models(self) -> dict:
        """The models seen so far, with their compiled functions, by their arguments' signature."""
        return self._models

    def share(self, other: "PreparedKernel") -> None:
        """Use the set-up functions that another kernel of the same model has compiled.

        Raises
        ------
        ValueError
            If the other kernel is one of another model, or has another ``init_strategy``.
        """
        mine, theirs = self._settings.init_strategy, other._settings.init_strategy
        if other._model != self._model or mine is not theirs:
            raise ValueError(
                "Compiled functions can be shared between kernels of one model with one "
                "`init_strategy` only."
            )
        self._models = other._models

    def prepare(
        self,
        rng_key: jax.Array,
        args: tuple,
        kwargs: dict,
        init_params: dict | None = None,
        leading: tuple[int, ...] | None = None,
        *,
        chains: int = 4,
        draws: int = 0,
        streams: bool | None = None,
    ) -> tuple[RunPlan, RunData]:
        """Check the model and its arguments, choose all settings, and lay the data out.

        Parameters
        ----------
        rng_key
            Random key that decides the partition of the rows, and everything random in the set-up.
        args, kwargs
            The model's own arguments, in any of the forms that
            :func:`~sgworld_mcmc.model.user_data.read_user_data` reads.
        init_params
            Unconstrained initial values by site, with a leading axis if there are several points:
            the search for the mode begins there.
        leading
            The leading axis that the initial values must have; None allows any one, or none.
        chains
            Number of chains of the run, which begin apart where no mode is searched.
        draws
            Number of draws of each chain that will lie in memory, for which there must be room.
        streams
            Whether rows in files are streamed, as in :meth:`read`.
        """
        initial = None if init_params is None else (init_params, leading)
        seed = rng_key if isinstance(rng_key, np.ndarray) else seed_of(rng_key)
        args, kwargs, _ = self.read(args, kwargs, streams=streams)
        if is_streamed(args, kwargs):
            self._check_streams()
            return prepare_streamed(
                seed, self._model, self._settings, args, kwargs, initial, self._models, chains
            )
        if self.on_hosts:
            return prepare_on_hosts(
                seed, self._model, self._settings, args, kwargs, initial, self._models
            )
        return prepare(
            seed, self._model, self._settings, args, kwargs, initial, self._models, chains, draws
        )

    def lay_out(self, plan: RunPlan, args: tuple, kwargs: dict) -> RunData:
        """Lay the data out for a plan that was made before.

        Raises
        ------
        ValueError
            If the plan was made for another model or other data.
        """
        args, kwargs, _ = self.read(args, kwargs, streams=plan.streaming is not None)
        if is_streamed(args, kwargs):
            self._check_streams()
            return lay_out_streamed(plan, self._model, self._settings, args, kwargs, self._models)
        if self.on_hosts:
            return lay_out_on_hosts(plan, self._model, self._settings, args, kwargs, self._models)
        return lay_out(plan, self._model, self._settings, args, kwargs, self._models)

    def read(
        self,
        args: tuple,
        kwargs: dict,
        before: tuple[tuple, dict] | None = None,
        streams: bool | None = None,
    ) -> UserData:
        """Return the model's arguments as arrays, in memory or streamed.

        Parameters
        ----------
        args, kwargs
            The arguments as the user gave them.
        before
            Arguments that were read earlier: see
            :func:`~sgworld_mcmc.model.user_data.read_user_data`.
        streams
            Whether rows in files are streamed where the user leaves that open; None to let the free
            memory decide.
        """
        stream = self._settings.stream
        if stream == "auto" and streams is not None:
            stream = streams
        given = {id(leaf) for leaf in jax.tree.leaves((args, kwargs))}
        args, kwargs = open_arguments(self._model, args, kwargs, stream)
        if before is not None:  # a file that is read again holds the same numbers
            args, kwargs = kept_arrays((args, kwargs), before, given)
        read = read_user_data(self._model, args, kwargs, before)
        args, kwargs = stream_rest(self._model, read.args, read.kwargs, stream)
        return UserData(args, kwargs, read.labels)

    def _check_streams(self) -> None:
        """Raise if a setting needs the rows in memory."""
        if self._settings.data_shards > 1 or self._settings.devices is not None:
            raise ValueError(
                "`devices`, `mesh` and `data_shards` need the rows in memory, and they are "
                "streamed: leave them out, or read the rows with `stream=False`."
            )

    @property
    def on_hosts(self) -> bool:
        """Whether the rows lie on several hosts."""
        devices = self._settings.devices
        return devices is not None and devices.hosts > 1
