"""An ordinary NumPyro ``MCMCKernel`` whose draws are made of minibatch steps."""

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial, wraps
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from numpyro.infer import init_to_uniform
from numpyro.infer.mcmc import MCMCKernel
from numpyro.util import is_prng_key

from sgworld_mcmc.checks import check_choice, check_finite, check_integer, check_positive
from sgworld_mcmc.infer.arguments import flatten_arguments, is_array, signature_of
from sgworld_mcmc.infer.check import check_initial, check_minibatching, make_evaluations
from sgworld_mcmc.infer.driver import quick_jit
from sgworld_mcmc.infer.estimator import GRADIENTS, gradient_parts, whitened_log_density
from sgworld_mcmc.infer.model import FullData, MinibatchModel, minibatch_model
from sgworld_mcmc.infer.setup import (
    DENSE_DIMENSION,
    automatic_batch_size,
    automatic_time,
    initial_position,
    set_up,
    unconstrained_sites,
)
from sgworld_mcmc.infer.state import Dynamics, SGMCMCState, clock, draw, initial_state
from sgworld_mcmc.kernels.langevin import NOISES
from sgworld_mcmc.minibatch import (
    Batches,
    RowBatches,
    fetch,
    num_batches,
    partition_rows,
)
from sgworld_mcmc.orders import ORDERS

__all__ = ["MinibatchData", "SGMCMCKernel", "Settings"]

LARGE = 50_000
# In posterior standard deviations from the mode: farther away, a chain has diverged.
FARTHEST = 1e4
PRECONDITIONERS = ("auto", "dense", "diagonal", "none")


class Settings(NamedTuple):
    """The settings of a kernel, fixed at construction: see :class:`SGMCMCKernel`."""

    order: str
    batch_size: int | None
    step_size: float | None
    temperature: float
    steps_per_draw: int | None
    gradient: str
    preconditioner: Any
    noise: str
    tolerance: float
    init_strategy: Callable


@partial(
    jax.tree_util.register_dataclass,
    data_fields=["batches", "constants", "originals"],
    meta_fields=["model"],
)
@dataclass(frozen=True, eq=False)
class MinibatchData:
    """Model arguments that have been checked and laid out: what compiled loops are given.

    Attributes
    ----------
    batches
        Contiguous batches of the data leaves, or (order ``"examples"``) the data leaves.
    constants
        The other arrays.
    originals
        The data leaves in the user's order if deterministic sites need them, else None.
    model
        The :class:`~sgworld_mcmc.infer.model.MinibatchModel`, static.
    """

    batches: Batches | tuple
    constants: tuple
    originals: tuple | None
    model: MinibatchModel


class SGMCMCKernel(MCMCKernel):
    """Langevin dynamics on minibatches, as a kernel of ``numpyro.infer.MCMC``.

    :class:`sgworld_mcmc.SGWORLD` and :class:`sgworld_mcmc.SGLD` make one, lay the data out in
    contiguous batches, and run it; with a plain ``MCMC(kernel, ...)`` the rows of each batch are
    gathered in every step, which is slower by a factor of two to four.

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
    ) -> None:
        if not callable(model):
            raise TypeError(f"`model` must be a NumPyro model, a function, not {type(model)}.")
        check_choice("order", order, ORDERS)
        check_choice("noise", noise, NOISES)
        check_choice("gradient", gradient, ("auto", *GRADIENTS))
        if batch_size is not None:
            batch_size = check_integer("batch_size", batch_size, 1)
        if steps_per_draw is not None:
            steps_per_draw = check_integer("steps_per_draw", steps_per_draw, 1)
        if isinstance(step_size, str):
            check_choice("step_size", step_size, ("auto",))
            step_size = None
        else:
            step_size = check_positive("step_size", step_size)
        if isinstance(preconditioner, str):
            check_choice("preconditioner", preconditioner, PRECONDITIONERS)
        self._settings = Settings(
            order,
            batch_size,
            step_size,
            check_positive("temperature", temperature, zero=True),
            steps_per_draw,
            "control_variate" if gradient == "auto" else gradient,
            preconditioner,
            noise,
            check_positive("tolerance", tolerance),
            init_strategy,
        )
        self._model = model
        self._sample_fn = None
        self._models = {}
        self._compiled = {}

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

    def prepare(self, rng_key: jax.Array, args: tuple, kwargs: dict) -> MinibatchData:
        """Check the model and its arguments, and lay the data out in minibatches.

        Parameters
        ----------
        rng_key
            Decides the partition of the rows.
        args, kwargs
            The model's own arguments.
        """
        model, rows, data, constants = self._examine(rng_key, args, kwargs)
        batches = data if self._settings.order == "examples" else _lay_out(data, rows)
        return MinibatchData(batches, constants, data if model.deterministics else None, model)

    def init(self, rng_key, num_warmup, init_params=None, model_args=(), model_kwargs=None):
        """Make the initial state of one chain, or of several if ``rng_key`` is a batch of keys."""
        model_kwargs = {} if model_kwargs is None else model_kwargs
        several = not is_prng_key(rng_key)
        first, rest = jax.random.split(rng_key[0] if several else rng_key)
        if model_args and isinstance(model_args[0], MinibatchData):
            prepared = model_args[0]
            model, data, constants = prepared.model, prepared.batches, prepared.constants
            rows = () if isinstance(data, Batches) else self._deal(first, model)
        else:
            with jax.ensure_compile_time_eval():
                model, rows, data, constants = self._examine(first, model_args, model_kwargs)
        keys = jnp.concatenate([rest[None], rng_key[1:]]) if several else rest[None]

        batches = data if isinstance(data, Batches) else RowBatches(data, rows)
        functions = self._functions(model)
        split = functions["split"](keys)
        leading = (len(keys),) if several else ()
        if init_params is None:
            initial = functions["initial"](split[:, 0], batches, constants)
        else:
            model.check_params(init_params, leading, "init_params")
            initial = (
                jax.vmap(model.ravel)(init_params) if several else model.ravel(init_params)[None]
            )
        if not isinstance(initial, jax.core.Tracer):
            whole = _all_rows(data) if isinstance(data, Batches) else data
            check_initial(model, functions["evaluations"], initial, whole, constants)
        starts = functions["set_up"](split[:, 1], initial, batches, constants)
        state = functions["state"](split[:, 2], starts, rows, num_warmup, batches)
        self._sample_fn = draw
        return state if several else jax.tree.map(lambda x: x[0], state)

    def sample(self, state: SGMCMCState, model_args, model_kwargs) -> SGMCMCState:
        """Advance the chain or chains by one draw."""
        model, data, constants = self._resolve(model_args, model_kwargs)
        count = state.order.shape[-1]
        dynamics = self._dynamics(count)

        def advance(state, clock, data, constants):
            def gradient_of(state):
                density = whitened_log_density(model, constants, state.center, state.scale)
                fixed = dynamics.fixed_partition
                return gradient_parts(dynamics.gradient, density, state.anchor, fixed)

            return draw(state, clock, data, gradient_of, unconstrained_sites(model), dynamics)

        if state.i.ndim:
            advance = jax.vmap(advance, in_axes=(0, None, None, None))
        return advance(state, clock(state), data, constants)

    def postprocess_fn(self, args, kwargs):
        """Function from unconstrained sites to constrained and deterministic ones."""
        model, data, constants = self._resolve(args, kwargs or {})
        if args and isinstance(args[0], MinibatchData) and args[0].originals is not None:
            data = args[0].originals
        elif isinstance(data, Batches):
            # Without deterministic sites nothing is computed from the rows: any will do.
            data = fetch(data, 0).main
        return lambda z: model.constrain(z, data, constants)

    def get_diagnostics_str(self, state: SGMCMCState) -> str:
        """What the progress bar shows."""
        text = f"step size {float(jnp.max(state.step_size)):.2g}, {int(jnp.max(state.step))} steps"
        diverged = int(jnp.sum(state.diverging))
        return text + (f", {diverged} chains diverged" if diverged else "")

    def __getstate__(self):
        return {**self.__dict__, "_sample_fn": None, "_models": {}, "_compiled": {}}

    def _examine(self, rng_key, args, kwargs):
        """Check everything that can be checked before the first step; deal the rows."""
        leaves = flatten_arguments(self._model, args, kwargs)
        check_finite({name: leaf for name, leaf in leaves.items() if is_array(leaf)})
        key = signature_of(args, kwargs)
        base = self._models.get(("base", key))
        if base is None:
            base = minibatch_model(self._model, args, kwargs)
            base.evaluations = make_evaluations(base)
            self._models["base", key] = base
        self._check_settings(base)
        data, constants = base.layout.split(args, kwargs)
        data = jax.tree.map(jnp.asarray, data)
        rows = self._deal(rng_key, base)
        # Under pmap the key is traced; the check needs numbers, and any partition will do.
        traced = isinstance(rng_key, jax.core.Tracer)
        known = RowBatches(data, self._deal(jax.random.key(0), base) if traced else rows)
        additive = check_minibatching(base, base.evaluations, data, constants, known)
        model = self._models.setdefault((key, additive), base.with_additive(additive))
        self._models["last", key] = model
        if model.left_out():
            warnings.warn(
                f"The deterministic sites {model.left_out()} have a value for each of "
                f"{model.size} rows and are left out of the draws. Compute them afterwards with "
                "numpyro.infer.Predictive.",
                stacklevel=4,
            )
        return model, rows, data, constants

    def _check_settings(self, model: MinibatchModel) -> None:
        if self._settings.batch_size is not None:
            check_integer("batch_size", self._settings.batch_size, 1, model.size)
        array = self._settings.preconditioner
        if isinstance(array, str):
            return
        dimension = model.dimension
        if np.shape(array) not in ((dimension,), (dimension, dimension)):
            raise ValueError(
                f"`preconditioner` has shape {np.shape(array)}; the unconstrained position has "
                f"{dimension} coordinates {model.scalar_names()[:8]}..., so ({dimension},) or "
                f"({dimension}, {dimension}) is needed."
            )
        array = np.asarray(array, float)
        values = array if array.ndim == 1 else np.linalg.eigvalsh((array + array.T) / 2)
        if not np.all(np.isfinite(array)) or values.min() <= 0:
            raise ValueError("`preconditioner` must be a positive definite covariance estimate.")

    def _deal(self, rng_key, model):
        batch_size = self._settings.batch_size or automatic_batch_size(model.size)
        return _deal(rng_key, model.size, batch_size)

    def _dynamics(self, count: int) -> Dynamics:
        order, noise = self._settings.order, self._settings.noise
        default = 2 * count if order == "symmetric" else count
        steps = self._settings.steps_per_draw or default
        settings = self._settings
        unscaled = isinstance(settings.preconditioner, str) and settings.preconditioner == "none"
        limit = None if unscaled else FARTHEST
        return Dynamics(order, noise, settings.temperature, settings.gradient, steps, limit)

    def _resolve(self, args, kwargs):
        if args and isinstance(args[0], MinibatchData):
            return args[0].model, args[0].batches, args[0].constants
        model = self._models.get(("last", signature_of(args, kwargs)))
        if model is None:
            raise ValueError(
                "The model's arguments differ from those that the kernel was initialised with. "
                "If numpyro.infer.MCMC was given jit_model_args=True, leave it out: it turns "
                "Python numbers into arrays. SGWORLD and SGLD compile with data as arguments."
            )
        data, constants = model.layout.split(args, kwargs)
        return model, jax.tree.map(jnp.asarray, data), constants

    def _functions(self, model: MinibatchModel) -> dict[str, Callable]:
        """Compiled set-up functions, all over a leading axis of chains."""
        if model not in self._compiled:
            self._compiled[model] = self._compile(model)
        return self._compiled[model]

    def _compile(self, model: MinibatchModel) -> dict[str, Callable]:
        settings = self._settings
        preconditioner = settings.preconditioner
        if isinstance(preconditioner, str) and preconditioner == "auto":
            preconditioner = "dense" if model.dimension <= DENSE_DIMENSION else "diagonal"

        def initial(keys, batches, constants):
            return jax.vmap(
                lambda key: initial_position(key, model, settings.init_strategy, batches, constants)
            )(keys)

        def start(keys, initials, batches, constants):
            time = automatic_time(
                settings.tolerance, num_batches(batches), settings.order, settings.noise
            )

            def one(key, initial):
                return set_up(
                    key,
                    model,
                    initial,
                    batches,
                    constants,
                    preconditioner,
                    settings.step_size,
                    time,
                    settings.gradient,
                    settings.order != "examples",
                )

            return jax.vmap(one)(keys, initials)

        def state(keys, starts, rows, num_warmup, batches):
            count = num_batches(batches)

            def one(key, start):
                sites = unconstrained_sites(model)(start.center, start.scale, start.position)
                return initial_state(
                    key, sites, *start, rows, num_warmup, count, self._dynamics(count)
                )

            return jax.vmap(one)(keys, starts)

        return {
            "evaluations": model.evaluations,
            "split": _set_up_jit(jax.vmap(partial(jax.random.split, num=3)), small=True),
            "initial": _set_up_jit(initial, small=True),
            # The Hessian of many rows is worth the better code; of few, the compiler takes longer.
            "set_up": _set_up_jit(start, small=model.size <= LARGE),
            "state": _set_up_jit(state, small=True),
        }


@jax.jit
def _lay_out(data: tuple, rows: Batches) -> Batches:
    """The rows of each batch, copied into contiguous blocks."""
    return jax.tree.map(lambda index: tuple(x[index] for x in data), rows)


@jax.jit
def _all_rows(batches: Batches) -> tuple:
    """The data leaves again, their rows in the order of the batches."""
    main = jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:]), batches.main)
    if batches.extra is None:
        return main
    return jax.tree.map(lambda a, b: jnp.concatenate([a, b[:, 0]]), main, batches.extra)


_deal = jax.jit(partition_rows, static_argnums=(1, 2))


def _set_up_jit(function: Callable, small: bool) -> Callable:
    """Compile a set-up function; inside another transformation, leave it as it is."""
    compiled = (quick_jit if small else jax.jit)(function)

    @wraps(function)
    def call(*args):
        # Compiler options are refused inside pmap or vmap over chains.
        traced = any(isinstance(leaf, jax.core.Tracer) for leaf in jax.tree.leaves(args))
        return (function if traced else compiled)(*args)

    call._cache_size = compiled._cache_size
    return call
