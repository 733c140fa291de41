"""Check before the first step that the mean over minibatches equals the full log density."""

from collections.abc import Callable
from typing import NamedTuple

import jax
import numpy as np

from sgworld_mcmc.arrays import from_numpy
from sgworld_mcmc.compilation import quick_jit
from sgworld_mcmc.data.in_memory import is_large
from sgworld_mcmc.model.errors import NotMinibatchable
from sgworld_mcmc.model.numpyro_model import MinibatchModel
from sgworld_mcmc.progress import count_rows

__all__ = ["check_initial", "check_minibatching", "make_evaluation"]

# Number of points at which the model is checked, and of random points that are tried for them.
POINTS = 2
TRIES = 20


class Evaluation(NamedTuple):
    """The log densities of all sites at one point.

    Attributes
    ----------
    whole
        Terms by site, on all rows together.
    halves
        The sums (2,) of the terms by site, on each half of the rows; None if there is one row only.
    """

    whole: dict[str, jax.Array]
    halves: dict[str, jax.Array] | None


def make_evaluation(model: MinibatchModel) -> Callable:
    """Return the function that :func:`check_minibatching` calls, compiled once."""

    def evaluate(flat, data, constants):
        params, half = model.unravel(flat), jax.tree.leaves(data)[0].shape[0] // 2
        whole = model.log_densities(params, data, constants, total=False)
        if half == 0:
            return Evaluation(whole, None)
        parts = jax.tree.map(lambda x: x[: 2 * half].reshape(2, half, *x.shape[1:]), data)
        sums = lambda rows: model.log_densities(params, rows, constants)  # noqa: E731
        return Evaluation(whole, jax.lax.map(sums, parts))

    # If there are many rows, only a part is evaluated, in less time than it takes to compile well.
    return quick_jit(evaluate, "little" if is_large(model.size) else "some")


def check_minibatching(
    model: MinibatchModel, evaluate: Callable, data: tuple, constants: tuple
) -> frozenset[str]:
    """Return the names of the sites whose log density is a sum over rows.

    Every sample site is evaluated on all rows together and on each half of them, at two random
    points. Its log density must either add up (the likelihood) or be the same in each half (the
    prior, ``numpyro.factor`` terms of parameters alone, observations that are not data). Then the
    mean over batches of prior + M * likelihood is the full log density. If the number of rows is
    odd, the last one is left out of both sides. ``data`` may be a random part of the rows: a term
    that adds up over two halves of a part adds up over all of them.

    Raises
    ------
    ValueError
        If the log density of a site does neither; the message names the sites and their numbers.
    """
    size = jax.tree.leaves(data)[0].shape[0]
    if size % 2 and size > 1:
        data = jax.tree.map(lambda x: x[: size - 1], data)
    evaluations = _finite_evaluations(model, evaluate, data, constants)
    if size == 1:  # nothing to compare; one batch is all there is
        return model.additive
    additive, problems = set(), {}
    for name in evaluations[0].whole:
        adds_up = constant = True
        for whole, halves in evaluations:
            terms, values = np.asarray(whole[name], float), np.asarray(halves[name], float)
            precision = np.finfo(whole[name].dtype).eps
            # Sums that XLA made in the working precision are right to about 1e3 roundings; terms
            # that come row by row are added here, in double precision.
            tolerance = precision * (100 if terms.ndim else 1000)
            total, scale = terms.sum(), np.abs(values).sum() + np.abs(terms).sum()
            adds_up &= bool(abs(values.sum() - total) <= tolerance * scale)
            largest = np.abs(values).max() + abs(total)
            constant &= bool(np.all(np.abs(values - total) <= 10 * tolerance * largest))
            numbers = f"{total:.6g} on all rows, {values.sum():.6g} as the sum over two halves"
        if model.sites[name].kind == "latent":
            if not constant:
                problems[name] = "prior that changes with the rows of the minibatch"
        elif constant and not (adds_up and model.sites[name].kind == "observed"):
            pass
        elif adds_up:
            additive.add(name)
        else:
            problems[name] = f"log density that does not add up over the rows: {numbers}"
    if problems:
        listing = "; ".join(f"site {name!r} has a {text}" for name, text in problems.items())
        raise NotMinibatchable(
            f"The model cannot be minibatched as it is: {listing}. Common causes: the model "
            "standardises by the mean of the rows that it is given (standardise the data before "
            "the run), scales a site by a number of rows (leave all scaling to the sampler), or "
            "an argument that is not data has the observations' leading axis (bind it with "
            "functools.partial)."
        )
    if not additive:
        raise NotMinibatchable(
            "No site of the model depends on the rows of the data: every observed site has the "
            "same log density on every half of them. Does the model use its array arguments?"
        )
    return frozenset(additive)


def _finite_evaluations(model, evaluate, data, constants) -> list[Evaluation]:
    """Evaluate the model at two points near the origin where it is finite.

    The points lie within one unit of the origin, or nearer if too few of those are finite.
    """
    found, size = [], jax.tree.leaves(data)[0].shape[0]
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
                "whole in the model cannot be combined with some of the rows."
            ) from error
        count_rows(2 * size)
        if all(np.all(np.isfinite(term)) for term in made.whole.values()):
            found.append(made)
        if len(found) == POINTS:
            return found
    bad = [name for name, term in made.whole.items() if not np.all(np.isfinite(term))]
    raise ValueError(
        f"The log density of site {bad[0] if bad else '?'!r} is NaN or infinite at {TRIES} random "
        "points near the origin of the unconstrained space. Check the model's parameters there, "
        "for instance with numpyro.validation_enabled()."
    )


def check_initial(
    model: MinibatchModel, evaluate: Callable, flat: np.ndarray, data: tuple, constants: tuple
) -> None:
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
