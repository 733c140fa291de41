"""Check before the first step that the mean over minibatches equals the full log density."""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from sgworld_mcmc.arrays import from_numpy
from sgworld_mcmc.compilation import quick_jit
from sgworld_mcmc.data.in_memory import is_large
from sgworld_mcmc.model.errors import NotMinibatchable
from sgworld_mcmc.model.numpyro_model import MinibatchModel
from sgworld_mcmc.model.rounding import rounding_of
from sgworld_mcmc.progress import count_rows

__all__ = ["check_initial", "check_minibatching", "make_evaluation"]

# Number of points at which the model is checked, and of random points that are tried for them.
POINTS = 2
TRIES = 20
# In single precision sums are compared on at most this many blocks of a few rows.
BLOCKS, SMALL = 8, 32


class Evaluation(NamedTuple):
    """The log densities of all sites at one point.

    Attributes
    ----------
    whole
        Terms by site, on all rows together.
    halves
        The sums (2,) of the terms by site, on each half of the rows; None if there is one row only.
    rounding
        By site, how far rounding moves sums of ill-conditioned terms, where it has been measured.
    """

    whole: dict[str, jax.Array]
    halves: dict[str, jax.Array] | None
    rounding: dict[str, float] | None = None


def make_evaluation(model: MinibatchModel) -> Callable:
    """Return the function that :func:`check_minibatching` calls, compiled once."""

    def evaluate(flat, data, constants):
        params, half = model.unravel(flat), jax.tree.leaves(data)[0].shape[0] // 2
        # _judge compares the terms of the first half of the rows with those that it has alone. Both
        # need the same random numbers, and have them with one key: JAX counts from the first row.
        key = jax.random.key(0) if model.random else None
        whole = model.log_densities(params, data, constants, total=False, key=key)
        if half == 0:
            return Evaluation(whole, None)
        parts = jax.tree.map(lambda x: x[: 2 * half].reshape(2, half, *x.shape[1:]), data)
        sums = lambda rows: model.log_densities(params, rows, constants, key=key)  # noqa: E731
        return Evaluation(whole, jax.lax.map(sums, parts))

    # If there are many rows, only a part is evaluated, in less time than it takes to compile well.
    return quick_jit(evaluate, "little" if is_large(model.size) else "some")


def check_minibatching(
    model: MinibatchModel,
    evaluate: Callable,
    data: tuple,
    constants: tuple,
    points: list[jax.Array] | None = None,
    given: tuple | None = None,
) -> frozenset[str]:
    """Return the names of the sites whose log density is a sum over rows.

    Every sample site is evaluated on all rows together and on each half of them, at two random
    points. Its log density must either add up (the likelihood) or be the same in each half (the
    prior, ``numpyro.factor`` terms of parameters alone, observations that are not data). Then the
    mean over batches of prior + M * likelihood is the full log density. If the number of rows is
    odd, the last one is left out of both sides. ``data`` may be a random part of the rows: a term
    that adds up over two halves of a part adds up over all of them. If ``points`` are given, the
    sites are compared there. ``given`` are the same rows in the user's order, in which a model may
    be finite that is not so in another.

    A model with random parts is compared row by row: the terms of the first half of the rows must
    be the same with and without the second half, and the other way round.

    Where sums do not add up, rounding may be the cause. It is measured then
    (:mod:`sgworld_mcmc.model.rounding`), and the sites are judged once more.

    Raises
    ------
    ValueError
        If the log density of a site does neither; the message names the sites and their numbers.
    """
    size = jax.tree.leaves(data)[0].shape[0]
    if size % 2 and size > 1:
        size -= 1
        data = jax.tree.map(lambda x: x[:size], data)
    evaluations = None
    if points is None:
        points, evaluations = _finite_points(model, evaluate, data, constants, given)
    if size == 1:  # nothing to compare; one batch is all there is
        return model.additive
    parts, length = [data], size
    if not model.precise and size >= 2 * SMALL:
        # In single precision a sum of many rows hides what does not add up: of n rows it is of the
        # order 1/n or n^-1/2, and rounding grows. A few rows show it best.
        parts, length = [_block(data, start) for start in _starts(size)], SMALL
        evaluations = None
    if model.random:  # the first half of each part is looked at
        parts = [turned for part in parts for turned in (part, _turned(part, length))]
        evaluations = None
    places = [(flat, part) for flat in points for part in parts]
    if evaluations is None:
        evaluations = [jax.device_get(evaluate(*place, constants)) for place in places]
    additive, problems = _judge(model, evaluations, length)
    if problems and all(model.sites[name].kind == "observed" for name in problems):
        sharp = {name: _tolerance(evaluations[0].whole[name], length) for name in problems}
        evaluations = [
            made._replace(rounding=rounding_of(evaluate, *place, constants, sharp))
            for made, place in zip(evaluations, places, strict=True)
        ]
        additive, problems = _judge(model, evaluations, length)
    _raise_problems(model, additive, problems)
    return additive


def _judge(
    model: MinibatchModel, evaluations: list[Evaluation], length: int
) -> tuple[frozenset[str], dict[str, str]]:
    """Return the sites that add up over the rows, and what is wrong with others, by name.

    Parameters
    ----------
    evaluations
        The sites' terms on the same number of rows, at several points or on several blocks.
    length
        That number of rows.
    """
    additive, problems = set(), {}
    for name in evaluations[0].whole:
        adds_up = constant = True
        for whole, halves, rounding in evaluations:
            terms, values = np.asarray(whole[name], float), np.asarray(halves[name], float)
            tolerance = _tolerance(whole[name], length)
            total, scale = terms.sum(), np.abs(values).sum() + np.abs(terms).sum()
            largest = np.abs(values).max() + abs(total)
            constant &= bool(np.all(np.abs(values - total) <= 10 * tolerance * largest))
            numbers = f"{total:.6g} on all rows, {values.sum():.6g} as the sum over two halves"
            if model.random and terms.ndim and len(terms) == length:
                # Other rows have other random numbers: only the first half can be compared.
                values, total = values[0], terms[: length // 2].sum()
                numbers = f"{total:.6g} for half of the rows among all, {values:.6g} for them alone"
            allowed = tolerance * scale + (rounding or {}).get(name, 0.0)
            adds_up &= bool(abs(values.sum() - total) <= allowed)
        if model.sites[name].kind == "latent":
            if not constant:
                problems[name] = "prior that changes with the rows of the minibatch"
        elif constant and not (adds_up and model.sites[name].kind == "observed"):
            pass
        elif adds_up:
            additive.add(name)
        else:
            problems[name] = f"log density that does not add up over the rows: {numbers}"
    return frozenset(additive), problems


def _tolerance(terms: np.ndarray, length: int) -> float:
    """Return the relative error of a sum of well-conditioned terms of so many rows."""
    # A sum of n terms in the working precision is right to n roundings, and to about their square
    # root if they are random; terms that come row by row are added here, in double precision.
    roundings = 100 if terms.ndim else 100 + 10 * length**0.5
    return float(np.finfo(terms.dtype).eps) * roundings


def _raise_problems(
    model: MinibatchModel, additive: frozenset[str], problems: dict[str, str]
) -> None:
    """Raise if there is a problem with a site, or if no site adds up over the rows."""
    if problems:
        listing = "; ".join(f"site {name!r} has a {text}" for name, text in problems.items())
        state = [name for name, site in model.sites.items() if site.kind == "mutable"]
        if state:
            raise ValueError(
                f"The rows of a batch depend on each other: {listing}. The modules' statistics "
                f"{state} say why: BatchNorm standardises by the mean and the deviation of the "
                "rows that it is given, so that the log density is no sum over rows, and a "
                "prediction depends on the rows beside it. Use LayerNorm or GroupNorm, or fixed "
                "statistics (`use_running_average=True`, `inference=True`)."
            )
        if model.random:
            raise ValueError(
                f"The model draws random numbers (numpyro.prng_key, or a module's `rngs`), and "
                f"cannot be minibatched as it is: {listing}. Each row must have random numbers of "
                "its own, from one key by functions of jax.random whose shape begins with the rows "
                "(or jax.random.split(key, len(X))), and each observed site a value for each row. "
                "For random numbers that stay the same give a key of your own, jax.random.key(0)."
            )
        raise NotMinibatchable(
            f"The model cannot be minibatched as it is: {listing}. Common causes: rows depend on "
            "each other (a time series, a Gaussian process) or are told apart by their place (a "
            "parameter for each row), for which there are no minibatches; the model "
            "standardises by the mean of the rows that it is given (standardise the data before "
            "the run), or scales a site by a number of rows (leave all scaling to the sampler); "
            "or an argument that is not data has the observations' leading axis (bind it with "
            "functools.partial)."
        )
    if not additive:
        raise NotMinibatchable(
            "No site of the model depends on the rows of the data: every observed site has the "
            "same log density on every half of them. Does the model use its array arguments?"
        )


def _starts(size: int) -> list[int]:
    """Return where blocks of a few rows begin."""
    return np.linspace(0, size - SMALL, min(BLOCKS, size // SMALL)).astype(int).tolist()


def _turned(data: tuple, size: int) -> tuple:
    """Return an even number of rows, the second half first."""
    return jax.tree.map(lambda x: jnp.roll(x[:size], size // 2, axis=0), data)


def _block(data: tuple, start: int) -> tuple:
    """Return a few rows of the data."""
    return jax.tree.map(lambda x: x[start : start + SMALL], data)


def _finite_points(
    model, evaluate, data, constants, given
) -> tuple[list[jax.Array], list[Evaluation]]:
    """Return two points near the origin where the model is finite, and its evaluations there.

    The points lie within one unit of the origin, or nearer if too few of those are finite.
    """
    points, found, size = [], [], jax.tree.leaves(data)[0].shape[0]
    generator = np.random.default_rng(0)
    for attempt in range(TRIES):
        radius = 1.0 if attempt < TRIES // 2 else 0.1
        flat = from_numpy(generator.uniform(-radius, radius, model.dimension))
        try:
            made = jax.device_get(evaluate(flat, data, constants))
        except Exception as error:
            if model.reason is not None or size == 1:
                raise
            raise NotMinibatchable(
                f"The model fails on half of its rows ({type(error).__name__}: "
                f"{str(error).splitlines()[0] if str(error) else error!r}). An array that is used "
                "whole in the model cannot be combined with some of the rows: observations that "
                "are bound to it (functools.partial, handlers.condition) have to be arguments of "
                "the run."
            ) from error
        count_rows(2 * size)
        if all(np.all(np.isfinite(term)) for term in made.whole.values()):
            points.append(flat)
            found.append(made)
        if len(found) == POINTS:
            return points, found
    bad = [name for name, term in made.whole.items() if not np.all(np.isfinite(term))]
    if given is not None and model.reason is None:
        try:
            _finite_points(model, evaluate, jax.tree.map(from_numpy, given), constants, None)
        except ValueError:
            pass
        else:
            raise NotMinibatchable(
                f"The log density of site {bad[0]!r} is finite with the rows as they come, and "
                "NaN or infinite with the rows in random order: it is no sum over rows, as that of "
                "a time series or of a differential equation whose times have to increase, or "
                "the model knows rows by their numbers (x.at[missing].set(values))."
            )
    raise ValueError(
        f"The log density of site {bad[0] if bad else '?'!r} is NaN or infinite at {TRIES} random "
        "points near the origin of the unconstrained space. Check the model's parameters there, "
        "for instance with numpyro.validation_enabled()."
    )


def check_initial(evaluate: Callable, flat: np.ndarray, data: tuple, constants: tuple) -> None:
    """Raise unless the model is finite at the initial points ``flat`` (chains, D)."""
    for chain, position in enumerate(flat):
        whole = evaluate(from_numpy(position), data, constants).whole
        bad = [name for name, term in whole.items() if not np.all(np.isfinite(term))]
        if bad:
            raise ValueError(
                "The model's log density is NaN or infinite at the initial point of chain "
                f"{chain}, at site {bad[0]!r}. Give finite `init_params`, or another "
                "`init_strategy`, for instance numpyro.infer.init_to_median, and check the priors."
            )
