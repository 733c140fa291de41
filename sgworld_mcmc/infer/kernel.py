"""An ordinary NumPyro ``MCMCKernel`` whose draws are made of minibatch steps."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from numpyro.infer import init_to_uniform
from numpyro.infer.mcmc import MCMCKernel
from numpyro.util import is_prng_key

from sgworld_mcmc.checks import check_choice, check_integer, check_positive
from sgworld_mcmc.compilation import quick_jit
from sgworld_mcmc.data.batches import Batches, fetch, split_rows
from sgworld_mcmc.data.orders import ORDERS, initial_order
from sgworld_mcmc.gradients.estimators import GRADIENTS, gradient_parts, whitened_log_density
from sgworld_mcmc.integrators.langevin import NOISES
from sgworld_mcmc.model.arguments import signature_of
from sgworld_mcmc.model.numpyro_model import FullData
from sgworld_mcmc.sampling.chain import SGMCMCState, clock, draw, initial_state
from sgworld_mcmc.setup.prepare import MinibatchData, Preparation, Settings, prepare

__all__ = ["SGMCMCKernel"]

PRECONDITIONERS = ("auto", "dense", "diagonal", "none")


class SGMCMCKernel(MCMCKernel):
    """Langevin dynamics on minibatches, as a kernel of ``numpyro.infer.MCMC``.

    :class:`sgworld_mcmc.SGWORLD` and :class:`sgworld_mcmc.SGLD` make one and run it with the data
    as arguments of one compiled program; a plain ``MCMC(kernel, ...)`` compiles them in.

    Parameters are those of :class:`sgworld_mcmc.SGWORLD`, with ``order="replacement"`` for SGLD.
    Settings cannot be changed after construction: NumPyro caches compiled functions by the
    arguments of the model, and would ignore the change.
    """

    def __init__(
        self,
        model: Callable,
        *,
        order: str = "batches",
        batch_size: int | None = None,
        step_size: float | str = "auto",
        temperature: float = 1.0,
        steps_per_draw: int | None = None,
        gradient: str = "auto",
        preconditioner: str | np.ndarray = "auto",
        noise: str = "averaged",
        tolerance: float = 0.02,
        init_strategy: Callable = init_to_uniform,
        record_moments: bool = False,
    ) -> None:
        if not callable(model):
            raise TypeError(f"`model` must be a NumPyro model, a function, not {type(model)}.")
        check_choice("order", order, ORDERS)
        check_choice("noise", noise, NOISES)
        check_choice("gradient", gradient, ("auto", *GRADIENTS))
        if batch_size is not None:
            batch_size = check_integer("batch_size", batch_size, 1)
        if isinstance(steps_per_draw, str):
            check_choice("steps_per_draw", steps_per_draw, ("auto",))
            steps_per_draw = None
        elif steps_per_draw is not None:
            steps_per_draw = check_integer("steps_per_draw", steps_per_draw, 1)
        if isinstance(step_size, str):
            check_choice("step_size", step_size, ("auto",))
            step_size = None
        else:
            step_size = check_positive("step_size", step_size)
        if isinstance(preconditioner, str):
            check_choice("preconditioner", preconditioner, PRECONDITIONERS)
        if not isinstance(record_moments, bool):
            raise TypeError(f"`record_moments` must be True or False, not {record_moments!r}.")
        self._settings = Settings(
            order,
            batch_size,
            step_size,
            check_positive("temperature", temperature, zero=True),
            steps_per_draw,
            None if gradient == "auto" else gradient,
            preconditioner,
            noise,
            check_positive("tolerance", tolerance),
            init_strategy,
            record_moments,
        )
        self._model = model
        self._sample_fn = None
        self._forget()

    sample_field = "z"
    default_fields = ("z", "diverging")

    @property
    def model(self) -> Callable:
        """The model with every subsampled plate made full, for log likelihoods and predictions."""
        return FullData(self._model)

    @property
    def settings(self) -> Settings:
        """The settings given at construction; ``None`` stands for an automatic choice."""
        return self._settings

    def share(self, other: "SGMCMCKernel") -> None:
        """Use the set-up functions that another kernel of the same model has compiled.

        Raises
        ------
        ValueError
            If it is a kernel of another model, or with another ``init_strategy``.
        """
        mine, theirs = self._settings.init_strategy, other._settings.init_strategy
        if other._model != self._model or mine is not theirs:
            raise ValueError(
                "Compiled functions can be shared between kernels of one model with one "
                "`init_strategy` only."
            )
        self._functions = other._functions

    def prepare(
        self,
        rng_key: jax.Array,
        args: tuple,
        kwargs: dict,
        init_params: dict | None = None,
        leading: tuple[int, ...] | None = None,
    ) -> Preparation:
        """Check the model and its arguments, choose all settings, and lay the data out.

        Parameters
        ----------
        rng_key
            Decides the partition of the rows, and everything random in the set-up.
        args, kwargs
            The model's own arguments.
        init_params
            Unconstrained initial values by site, with a leading axis if there are several points:
            where the search for the mode begins.
        leading
            The leading axis that they must have; None allows for any one, or none.
        """
        initial = None if init_params is None else (init_params, leading)
        return prepare(rng_key, self._model, self._settings, args, kwargs, initial, self._functions)

    def init(self, rng_key, num_warmup, init_params=None, model_args=(), model_kwargs=None):
        """Make the initial state of one chain, or of several if ``rng_key`` is a batch of keys."""
        several = not is_prng_key(rng_key)
        keys = rng_key if several else rng_key[None]
        if model_args and isinstance(model_args[0], MinibatchData):
            data = model_args[0]
        else:
            data = self._prepare_here(keys[0], model_args, model_kwargs or {}, init_params)
        start = self._starts if isinstance(keys, jax.core.Tracer) else self._starts_compiled()
        state = start(keys, data, jnp.asarray(num_warmup, jnp.int32))
        self._sample_fn = draw
        return state if several else jax.tree.map(lambda x: x[0], state)

    def sample(self, state: SGMCMCState, model_args, model_kwargs) -> SGMCMCState:
        """Advance the chain or chains by one draw."""
        data = self._resolve(model_args, model_kwargs)
        tuning, dynamics, model = data.tuning, data.dynamics, data.model
        density = whitened_log_density(model, data.constants, tuning.center, tuning.scale)
        parts = gradient_parts(dynamics.gradient, density, tuning.anchor, dynamics.cached)

        def advance(state, clock):
            return draw(state, clock, data.batches, *parts, data.sites, dynamics)

        if state.i.ndim:
            advance = jax.vmap(advance, in_axes=(0, None))
        return advance(state, clock(state))

    def postprocess_fn(self, args, kwargs):
        """Function from unconstrained sites to constrained and deterministic ones."""
        data = self._resolve(args, kwargs or {})
        if data.originals is not None:
            rows = data.originals
        elif isinstance(data.batches, Batches):
            # Without deterministic sites nothing is computed from the rows: any will do.
            rows = fetch(data.batches, 0).main
        else:
            rows = data.batches
        return lambda z: data.model.constrain(z, rows, data.constants)

    def get_diagnostics_str(self, state: SGMCMCState) -> str:
        """What the progress bar of a plain ``numpyro.infer.MCMC`` shows."""
        text = f"step size {float(jnp.max(state.step_size)):.2g}, {int(jnp.max(state.step))} steps"
        diverged = int(jnp.sum(state.diverging))
        return text + (f", {diverged} chains diverged" if diverged else "")

    def __getstate__(self):
        state = dict(self.__dict__)
        for name in ("_functions", "_prepared", "_starting"):
            del state[name]
        return {**state, "_sample_fn": None}

    def __setstate__(self, state):
        self.__dict__.update(state)
        self._forget()

    def _forget(self) -> None:
        # Compiled functions by model, and what a plain MCMC was prepared for: made again.
        self._functions, self._prepared, self._starting = {}, {}, None

    def _prepare_here(self, rng_key, args, kwargs, init_params) -> MinibatchData:
        """Prepare inside of ``numpyro.infer.MCMC``, which may be tracing."""
        traced = any(isinstance(x, jax.core.Tracer) for x in jax.tree.leaves((args, kwargs)))
        if traced:
            raise ValueError(_TRACED)
        with jax.ensure_compile_time_eval():
            # Under pmap key and initial points are traced: any partition will do.
            if isinstance(rng_key, jax.core.Tracer):
                rng_key, init_params = jax.random.key(0), None
            data = self.prepare(rng_key, args, kwargs, init_params).data
        self._prepared[signature_of(args, kwargs)] = data
        return data

    def _resolve(self, args, kwargs) -> MinibatchData:
        if args and isinstance(args[0], MinibatchData):
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

    def _starts(self, keys, data: MinibatchData, num_warmup) -> SGMCMCState:
        """The initial states of all chains."""
        tuning, dynamics = data.tuning, data.dynamics
        count = data.num_batches

        def one(key):
            start_key, rows_key, state_key = jax.random.split(key, 3)
            position = tuning.starts[jax.random.bits(start_key) % len(tuning.starts)]
            rows = ()
            if dynamics.order == "examples":
                rows = split_rows(initial_order(rows_key, "examples", data.model.size), count)
            return initial_state(
                state_key,
                data.sites(position),
                position,
                tuning.step_size,
                rows,
                num_warmup,
                count,
                dynamics,
            )

        return jax.vmap(one)(keys)


_TRACED = (
    "The model's arguments differ from those that the kernel was initialised with. If "
    "numpyro.infer.MCMC was given jit_model_args=True, leave it out: it turns Python numbers into "
    "arrays. SGWORLD and SGLD compile with data as arguments."
)
