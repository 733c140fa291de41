"""An ordinary NumPyro ``MCMCKernel`` whose draws are made of minibatch steps."""

from collections.abc import Callable
from functools import cache
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from numpyro.util import is_prng_key

from sgworld_mcmc.compilation import quick_jit
from sgworld_mcmc.data.dealt_rows import DealtRows
from sgworld_mcmc.infer.extra_fields import CHECKS
from sgworld_mcmc.infer.prepared_kernel import PreparedKernel
from sgworld_mcmc.model.arguments import signature_of
from sgworld_mcmc.model.target import target_of
from sgworld_mcmc.report.quantities import checks_of, potential_energy
from sgworld_mcmc.sampling.by_site import sites_apart
from sgworld_mcmc.sampling.chain import SGMCMCState, clock_of, draw, initial_state
from sgworld_mcmc.setup.checked_model import warn_of
from sgworld_mcmc.setup.run_plan import RunData

__all__ = ["SGMCMCKernel"]

# Sets of starts up to this number have one for each chain; larger ones are samples.
FEW_STARTS = 16
# From this number of parameters on, vectorized chains take their steps one after the other.
ONE_BY_ONE = 2**15


class SGMCMCKernel(PreparedKernel):
    """Langevin dynamics on minibatches, as a kernel of ``numpyro.infer.MCMC``.

    :class:`sgworld_mcmc.SGWORLD` and :class:`sgworld_mcmc.SGLD` make one and run it with the data
    as arguments of one compiled program; a plain ``MCMC(kernel, ...)`` compiles the data in.

    The parameters are those of :class:`sgworld_mcmc.SGWORLD`; SGLD has ``order="replacement"``.
    Settings cannot be changed after construction: NumPyro caches compiled functions by the
    arguments of the model, and would ignore the change.
    """

    def __init__(self, model: Callable, **settings) -> None:
        super().__init__(model, **settings)
        self._sample_fn = None
        self._forget()

    sample_field = "z"
    default_fields = ("z", "diverging")

    @staticmethod
    def split(rng_key: jax.Array, num_chains: int) -> jax.Array:
        """Return a key for each chain: those of ``jax.random.split``."""
        return _split_compiled()(rng_key, num=num_chains)

    def init(self, rng_key, num_warmup, init_params=None, model_args=(), model_kwargs=None):
        """Make the initial state of one chain, or of several if ``rng_key`` is a batch of keys."""
        several = not is_prng_key(rng_key)
        keys = rng_key if several else rng_key[None]
        prepared = bool(model_args) and isinstance(model_args[0], RunData)
        if prepared:
            data = model_args[0]
        else:
            data = self._prepare_here(keys[0], model_args, model_kwargs or {}, init_params)
        given = None
        # The set-up of a plain MCMC has searched from the initial points, unless they are starts.
        if init_params is not None and (prepared or self._settings.start == "given"):
            given = self._given_points(init_params, data, keys.shape[0])
        if prepared and data.here is not None:
            data = data.here
        start = self._starts if isinstance(keys, jax.core.Tracer) else self._starts_compiled()
        state = start(keys, data, np.int32(num_warmup), given)
        self._sample_fn = draw
        return state if several else jax.tree.map(lambda x: x[0], state)

    def sample(self, state: SGMCMCState, model_args, model_kwargs) -> SGMCMCState:
        """Advance the chain or chains by one draw."""
        data = self._resolve(model_args, model_kwargs)
        coordinates, dynamics = data.tuning.coordinates, data.dynamics
        sites = sites_apart(data.model, coordinates) if dynamics.by_site else ()
        if sites:
            coordinates = coordinates.divided(sites)
        target = target_of(data.model, data.constants, coordinates)

        def advance(state, clock):
            return draw(
                state,
                clock,
                feed=data.feed,
                target=target,
                controls=data.tuning.controls,
                to_sites=data.sites,
                dynamics=dynamics,
                sites=sites,
            )

        clock = clock_of(state)
        return _for_chains(lambda state: advance(state, clock), state)

    @property
    def computed_fields(self) -> dict[str, Callable]:
        """Functions of (state, args, kwargs) for fields that no state has."""

        def energy(state, args, kwargs):
            one = lambda state: potential_energy(state, self._resolve(args, kwargs))  # noqa: E731
            return _for_chains(one, state)

        def checks(state, args, kwargs):
            data = self._resolve(args, kwargs)
            sites = self._sites_fn(data)

            def one(state):
                return checks_of(state, data, sites(state.z), self._settings.quantities)

            return _for_chains(one, state)

        return {"potential_energy": energy, CHECKS: checks}

    def postprocess_fn(self, args, kwargs):
        """Return a function from unconstrained sites to constrained and deterministic ones.

        With the setting ``keep`` it returns what that keeps of them.
        """
        sites, keep = self._sites_fn(self._resolve(args, kwargs or {})), self._settings.keep
        if keep is None:
            return sites

        def kept(z):
            made = keep(sites(z))
            return made if isinstance(made, dict) else {"kept": made}

        return kept

    @staticmethod
    def _sites_fn(data: RunData) -> Callable:
        """Return a function from unconstrained sites to constrained and deterministic ones."""
        if data.originals is not None:
            rows = data.originals
        elif isinstance(data.feed, DealtRows):
            rows = data.feed.data
        else:
            # Without deterministic sites nothing is computed from the rows: any rows will do.
            rows = data.feed.fetch((), 0).main
        return lambda z: data.model.constrain(z, rows, data.constants)

    def get_diagnostics_str(self, state: SGMCMCState) -> str:
        """Return the text that the progress bar of a plain ``numpyro.infer.MCMC`` shows."""
        text = f"step size {float(jnp.max(state.step_size)):.2g}, {int(jnp.max(state.step))} steps"
        diverged = int(jnp.sum(state.diverging))
        return text + (f", {diverged} chains diverged" if diverged else "")

    def __getstate__(self):
        state = dict(self.__dict__)
        for name in ("_models", "_prepared", "_starting", "_programs"):
            state.pop(name, None)
        return {**state, "_sample_fn": None}

    def __setstate__(self, state):
        self.__dict__.update(state)
        self._forget()

    def _forget(self) -> None:
        # Compiled functions by model, data prepared for a plain MCMC, and the compiled function
        # that makes initial states.
        self._models, self._prepared, self._starting = {}, {}, None

    def _prepare_here(self, rng_key, args, kwargs, init_params) -> RunData:
        """Prepare inside of ``numpyro.infer.MCMC``, which may be tracing."""
        traced = any(isinstance(x, jax.core.Tracer) for x in jax.tree.leaves((args, kwargs)))
        if traced:
            raise ValueError(_TRACED)
        with jax.ensure_compile_time_eval():
            # Under pmap, key and initial points are traced: any other partition will do as well.
            if isinstance(rng_key, jax.core.Tracer):
                rng_key, init_params = jax.random.key(0), None
            _, data = self.prepare(rng_key, args, kwargs, init_params)
        if data.stream is not None:
            raise ValueError(
                "numpyro.infer.MCMC cannot stream rows that do not fit in memory: use "
                "SGWORLD(model).run(...)."
            )
        warn_of(data.model, stacklevel=4)
        self._prepared[signature_of(args, kwargs)] = data
        return data

    def _resolve(self, args, kwargs) -> RunData:
        if args and isinstance(args[0], RunData):
            return args[0]
        data = self._prepared.get(signature_of(args, kwargs))
        traced = any(isinstance(x, jax.core.Tracer) for x in jax.tree.leaves((args, kwargs)))
        if data is None or traced:
            raise ValueError(_TRACED)
        return data

    def _starts_compiled(self) -> Callable:
        if self._starting is None:
            self._starting = quick_jit(self._starts, work="little")
        return self._starting

    def _given_points(self, init_params: dict, data: RunData, chains: int) -> jax.Array:
        """Return the (chains, D) flat positions that the user has given."""
        model = data.model
        name = model.latents[0]
        if jnp.ndim(init_params[name]) == len(model.shapes[name]):
            return jnp.broadcast_to(model.ravel(init_params), (chains, model.dimension))
        return jax.vmap(model.ravel)(init_params)

    def _starts(self, keys, data: RunData, num_warmup, given) -> SGMCMCState:
        """Return the initial states of all chains, at the ``given`` points if there are any."""
        tuning = data.tuning

        shared, rows = (), None
        if self._settings.share_batches:
            first, common = jax.random.split(keys[0])
            keys, (common, rows) = keys.at[0].set(first), jax.random.split(common)
            shared = jax.random.bits(common, (2,), np.uint32)
        # Where each chain has a start of its own, no two of them have the same.
        apart = len(keys) <= len(tuning.starts) <= FEW_STARTS

        def one(key, given, number):
            start_key, rows_key, state_key = jax.random.split(key, 3)
            place = number if apart else jax.random.bits(start_key) % len(tuning.starts)
            position = tuning.starts[place]
            if given is not None:
                position = tuning.coordinates.to_z(given.astype(position.dtype))
            return initial_state(
                state_key,
                position,
                z=data.sites(position),
                step_size=tuning.step_size,
                dealing=data.feed.init(rows_key if rows is None else rows),
                num_warmup=num_warmup,
                dynamics=data.dynamics,
                shared=shared,
            )

        return jax.vmap(one)(keys, given, np.arange(len(keys)))


def _for_chains(function: Callable, state: SGMCMCState) -> Any:
    """Return a function's values for all chains, together or for one after the other.

    Where a chain has very many parameters, its operations are large enough to keep the machine
    busy, and those of all chains at once would only take several times the memory.
    """
    if state.i.ndim == 0:
        return function(state)
    if state.position.shape[-1] >= ONE_BY_ONE and jax.default_backend() == "cpu":
        return jax.lax.map(function, state)
    return jax.vmap(function)(state)


@cache
def _split_compiled() -> Callable:
    return quick_jit(jax.random.split, work="little", static_argnames="num")


_TRACED = (
    "The model's arguments differ from those that the kernel was initialised with. If "
    "numpyro.infer.MCMC was given jit_model_args=True, leave it out: it turns Python numbers into "
    "arrays. SGWORLD and SGLD compile with data as arguments."
)
