"""From a model and its arguments to data laid out for a run, with every setting chosen."""

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from sgworld_mcmc.checks import check_finite, check_integer
from sgworld_mcmc.data.batches import Batches
from sgworld_mcmc.data.in_memory import cut, generator_of, joined, shuffle, to_single
from sgworld_mcmc.gradients.estimators import Anchor
from sgworld_mcmc.model.additivity import check_initial, check_minibatching, make_evaluations
from sgworld_mcmc.model.arguments import flatten_arguments, is_array, signature_of
from sgworld_mcmc.model.numpyro_model import MinibatchModel, minibatch_model
from sgworld_mcmc.model.precision import closes_over_numpy
from sgworld_mcmc.progress import stage
from sgworld_mcmc.sampling.chain import Dynamics
from sgworld_mcmc.sampling.lagged_moments import MAX_COORDINATES
from sgworld_mcmc.setup.choose import Choice, Request, choose
from sgworld_mcmc.setup.compiled_functions import SetUpFunctions
from sgworld_mcmc.setup.coordinates_from_mode import (
    Center,
    find_center,
    set_up_batches,
    spectrum,
    zero_anchor,
)
from sgworld_mcmc.setup.curvature import apply_scale
from sgworld_mcmc.setup.measurements import Measurements, measure
from sgworld_mcmc.setup.posterior import Bench, gaussian_draws

__all__ = ["MinibatchData", "Preparation", "Settings", "Tuning", "TuningWarning", "prepare"]

# In posterior standard deviations from the center: farther away, a chain has diverged.
FARTHEST = 1e4
# Offsets of the batches, M x D numbers, above which they are computed again in every step.
CACHE = 2**26
# A position whose rounding in single precision moves it by more posterior standard deviations than
# this, is sampled in double precision.
ROUNDING = 0.01


class TuningWarning(UserWarning):
    """The automatic settings could not be made as good as the tolerance asks."""


class Settings(NamedTuple):
    """The settings of a kernel, fixed at construction: see :class:`sgworld_mcmc.SGWORLD`."""

    order: str
    batch_size: int | None
    step_size: float | None
    temperature: float
    steps_per_draw: int | None
    gradient: str | None
    preconditioner: Any
    noise: str
    tolerance: float
    init_strategy: Callable
    record_moments: bool = False


class Tuning(NamedTuple):
    """The numbers that all chains share.

    Attributes
    ----------
    center, scale
        (D,) and (D, D) or (D,): theta = center + scale z.
    step_size
        h, in the coordinates z.
    anchor
        :class:`~sgworld_mcmc.gradients.estimators.Anchor`: what control variates know of the
        center.
    starts
        (P, D) positions z from which chains start.
    """

    center: jax.Array
    scale: jax.Array
    step_size: jax.Array
    anchor: Anchor
    starts: jax.Array


@partial(
    jax.tree_util.register_dataclass,
    data_fields=["batches", "constants", "originals", "tuning"],
    meta_fields=["model", "dynamics"],
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
    tuning
        Coordinates, step size and control variates.
    model
        The :class:`~sgworld_mcmc.model.numpyro_model.MinibatchModel`, static.
    dynamics
        The :class:`~sgworld_mcmc.sampling.chain.Dynamics`, static.
    """

    batches: Batches | tuple
    constants: tuple
    originals: tuple | None
    tuning: Tuning
    model: MinibatchModel
    dynamics: Dynamics

    @property
    def num_batches(self) -> int:
        """M."""
        return self.dynamics.num_batches

    def sites(self, position: jax.Array) -> dict[str, jax.Array]:
        """The unconstrained sites at a position z (D,)."""
        return self.model.unravel(self.tuning.center + apply_scale(self.tuning.scale, position))


class Preparation(NamedTuple):
    """What :func:`prepare` returns.

    Attributes
    ----------
    data
        For the compiled loop.
    functions
        Of the model, compiled.
    center
        The mode and the curvature there.
    measurements
        Of pilot chains; None where there was nothing to choose.
    choice
        The settings and their predicted errors; None where nothing was measured.
    double
        Whether the sampler works in double precision.
    too_coarse
        Whether it would need to, but cannot (:mod:`sgworld_mcmc.model.precision`).
    """

    data: MinibatchData
    functions: SetUpFunctions
    center: Center
    measurements: Measurements | None
    choice: Choice | None
    double: bool
    too_coarse: bool


def prepare(
    rng_key: jax.Array,
    model: Callable,
    settings: Settings,
    args: tuple,
    kwargs: dict,
    init_params: tuple[dict, tuple | None] | None,
    cache: dict,
) -> Preparation:
    """Check the model and its arguments, choose all settings, and lay the data out.

    Parameters
    ----------
    init_params
        Unconstrained initial values by site and the leading axis that they must have (None:
        any), or None.
    cache
        Compiled functions of models seen before, by the signature of their arguments.
    """
    stage("checking the model")
    generator = generator_of(rng_key)
    functions, rows, whole = checked_model(generator, model, settings, args, kwargs, cache)
    view = functions.model
    initial = _initial_points(view, init_params)
    if initial is not None:
        with jax.enable_x64(view.precise):
            check_initial(view, view.evaluations, initial, rows, whole)
    _warn_of_left_out(view)
    data, _ = view.layout.split(args, kwargs)
    originals = jax.tree.map(jnp.asarray, data) if view.deterministics else None
    return _set_up(generator, functions, settings, rows, whole, originals, initial)


def checked_model(
    generator: np.random.Generator,
    model: Callable,
    settings: Settings,
    args: tuple,
    kwargs: dict,
    cache: dict,
) -> tuple[SetUpFunctions, tuple, tuple]:
    """The model seen through minibatches, after all checks, and its data.

    Returns
    -------
    functions, rows, constants
        Functions of the model, to be compiled; the data leaves in random order, and the other
        arrays, in the precision of the set-up.
    """
    leaves = flatten_arguments(model, args, kwargs)
    check_finite({name: leaf for name, leaf in leaves.items() if is_array(leaf)})
    signature = signature_of(args, kwargs)
    base = cache.get(("base", signature))
    if base is None:
        base = minibatch_model(model, args, kwargs)
        base.precise = _may_be_precise(base, args, kwargs)
        base.evaluations = make_evaluations(base)
        cache["base", signature] = base
    _check_settings(base, settings)
    data, constants = base.layout.split(args, kwargs)
    with jax.enable_x64(base.precise):
        rows, whole = shuffle(generator, data), jax.tree.map(jnp.asarray, constants)
        additive = check_minibatching(base, base.evaluations, rows, whole)
    view = cache.setdefault((signature, additive), base.with_additive(additive))
    if view not in cache:
        cache[view] = SetUpFunctions(view, settings.init_strategy)
    return cache[view], rows, whole


def _may_be_precise(view: MinibatchModel, args: tuple, kwargs: dict) -> bool:
    """Whether the set-up may use double precision: always if the user does."""
    if jax.config.jax_enable_x64:
        return True
    abstract = lambda x: jax.ShapeDtypeStruct(x.shape, jax.dtypes.canonicalize_dtype(x.dtype))  # noqa: E731
    data, constants = jax.tree.map(abstract, view.layout.split(args, kwargs))
    flat = jax.ShapeDtypeStruct((view.dimension,), jnp.result_type(float))
    return not closes_over_numpy(view.model, view.untraced, flat, data, constants)


def _set_up(
    generator, functions, settings, rows_double, constants_double, originals, initial
) -> Preparation:
    view = functions.model
    user = bool(jax.config.jax_enable_x64)
    stage("searching the mode")
    with jax.enable_x64(view.precise):
        batches = set_up_batches(rows_double)
        center = find_center(
            generator, functions, batches, constants_double, initial, settings.preconditioner
        )
    stage("coordinates")
    too_coarse = not user and _rounding(center) > ROUNDING
    double = user or (too_coarse and view.precise)
    with jax.enable_x64(double):
        rows, constants = rows_double, constants_double
        if view.precise and not double:
            rows, constants = to_single((rows, constants))
        tau = settings.temperature or 1.0
        bench = Bench(
            functions, rows, constants, rows_double, constants_double, batches, center, tau
        )
        measurements = choice = None
        if _nothing_to_choose(settings):
            starts = gaussian_draws(generator, bench) * np.sqrt(settings.temperature)
        else:
            kind = settings.preconditioner
            adapt = isinstance(kind, str) and kind in ("auto", "dense") and center.scale.ndim == 2
            measurements = measure(generator, bench, adapt)
            bench, starts = measurements.bench, measurements.starts
            stage("choosing settings")
            request = request_of(settings, view.size, bench.center)
            choice = choose(request, measurements.noise, measurements.steps)
        if isinstance(settings.preconditioner, str) and settings.preconditioner == "none":
            starts = np.zeros_like(starts)
        dynamics, step_size = _dynamics(settings, view, choice)
        prepared = _lay_out(bench, settings, dynamics, step_size, starts, originals)
    if measurements is not None:
        measurements = measurements._replace(bench=None)  # it holds the data once more
    return Preparation(
        prepared, functions, bench.center, measurements, choice, double, too_coarse and not double
    )


def bench_of(prepared: Preparation, settings: Settings) -> Bench:
    """The bench of a run that has been laid out, for measurements afterwards."""
    data = prepared.data
    rows = joined(data.batches) if isinstance(data.batches, Batches) else data.batches
    functions, tau = prepared.functions, settings.temperature or 1.0
    return Bench(
        functions,
        rows,
        data.constants,
        rows,
        data.constants,
        set_up_batches(rows),
        prepared.center,
        tau,
    )


def request_of(settings: Settings, size: int, center: Center) -> Request:
    """What the chooser is asked."""
    kinds = ("plain", "control_variate", "taylor")
    if center.hessian is None:
        kinds = kinds[:2]
    values, _ = spectrum(center)
    return Request(
        size,
        settings.order,
        settings.noise,
        settings.tolerance,
        settings.batch_size,
        settings.step_size,
        settings.steps_per_draw,
        kinds if settings.gradient is None else (settings.gradient,),
        1.0 if values is None else float(values.max()),
        1.0 / center.width if values is None else float(values.min()),
    )


def _dynamics(settings: Settings, view: MinibatchModel, choice: Choice | None):
    """The static choices, and the step size."""
    if choice is not None:
        gradient, batch_size = choice.gradient, choice.batch_size
        steps_per_draw, step_size = choice.steps_per_draw, choice.step_size
    else:
        gradient, batch_size = settings.gradient, settings.batch_size
        steps_per_draw, step_size = settings.steps_per_draw, settings.step_size
    count = -(-view.size // batch_size)
    if steps_per_draw is None:
        steps_per_draw = 2 * count if settings.order == "symmetric" else count
    unscaled = isinstance(settings.preconditioner, str) and settings.preconditioner == "none"
    dynamics = Dynamics(
        settings.order,
        settings.noise,
        settings.temperature,
        gradient,
        count,
        steps_per_draw,
        min(count, steps_per_draw),
        None if unscaled else FARTHEST,
        gradient == "control_variate"
        and settings.order != "examples"
        and count * view.dimension <= CACHE,
        min(view.dimension, MAX_COORDINATES) if settings.record_moments else 0,
    )
    return dynamics, step_size


def _nothing_to_choose(settings: Settings) -> bool:
    fixed = (settings.batch_size, settings.step_size, settings.gradient)
    return all(value is not None for value in fixed)


def _lay_out(bench, settings, dynamics: Dynamics, step_size, starts, originals) -> MinibatchData:
    center, dtype = bench.center, jnp.zeros(()).dtype
    position, scale = jnp.asarray(center.position, dtype), jnp.asarray(center.scale, dtype)
    batches = cut(bench.rows, dynamics.num_batches)
    anchor = Anchor((), ())
    if dynamics.cached:
        anchor = Anchor(bench.functions.offsets(position, scale, batches, bench.constants), ())
    elif dynamics.gradient != "plain":
        anchor = zero_anchor(center, bench.gradient(), 1.0, dtype)
    tuning = Tuning(
        position, scale, jnp.asarray(step_size, dtype), anchor, jnp.asarray(starts, dtype)
    )
    laid_out = bench.rows if settings.order == "examples" else batches
    return MinibatchData(
        laid_out, bench.constants, originals, tuning, bench.functions.model, dynamics
    )


def _rounding(center: Center) -> float:
    """Posterior standard deviations by which rounding to single precision moves the center."""
    size = np.abs(center.position) * np.finfo(np.float32).eps / 2
    if center.scale.ndim == 1:
        return float(np.max(size / center.scale))
    inverse = np.linalg.inv(center.scale)
    return float(np.sqrt(np.max((inverse**2) @ size**2)))


def _initial_points(view: MinibatchModel, given: tuple | None) -> np.ndarray | None:
    """(S, D) unconstrained initial points from a dict with or without a leading axis."""
    if given is None:
        return None
    init_params, leading = given
    view.check_params(init_params, leading, "init_params")
    name = view.latents[0]
    if np.ndim(init_params[name]) == len(view.shapes[name]):
        return np.asarray(view.ravel(init_params), float)[None]
    return np.asarray(jax.vmap(view.ravel)(jax.tree.map(jnp.asarray, init_params)), float)


def _warn_of_left_out(view: MinibatchModel) -> None:
    if view.left_out():
        warnings.warn(
            f"The deterministic sites {view.left_out()} have a value for each of "
            f"{view.size} rows and are left out of the draws. Compute them afterwards with "
            "numpyro.infer.Predictive.",
            stacklevel=5,
        )


def _check_settings(model: MinibatchModel, settings: Settings) -> None:
    if settings.batch_size is not None:
        check_integer("batch_size", settings.batch_size, 1, model.size)
    array = settings.preconditioner
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
