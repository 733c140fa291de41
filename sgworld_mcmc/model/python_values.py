"""Answer what Python asks of the data inside a model, also where the model sees a minibatch.

A model with ``int(group.max()) + 1`` or ``len(np.unique(group))`` needs the values of an array
while JAX traces it, and a minibatch would give other values than all rows do. The answers are found
on all rows: the model is traced up to its first question, and the program that leads there is run
on the data; then up to the second, with the first answer known; and so on. Every later trace, of
minibatches too, is given the same answers in the same order. Whether the model then still is a sum
over rows is checked as for every model (:mod:`sgworld_mcmc.model.additivity`).
"""

import functools
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import jax
import numpy as np

from sgworld_mcmc.compilation import quick_jit

__all__ = ["QUESTIONS", "WithAnswers", "find_answers"]

# What JAX raises when Python asks a traced array for its values.
QUESTIONS = (
    jax.errors.ConcretizationTypeError,
    jax.errors.TracerArrayConversionError,
    jax.errors.TracerIntegerConversionError,
)
# A model that asks more often does so in a loop over rows or the like.
MOST = 20
# The latent sites are drawn anew this many times: an answer that follows from them will differ.
SEEDS = 8


class WithAnswers:
    """A model whose questions about the values of arrays are answered.

    Parameters
    ----------
    model
        The model as the user wrote it.
    answers
        NumPy arrays: the values of the arrays that Python asks for, in the order of the questions.
    """

    def __init__(self, model: Callable, answers: tuple[np.ndarray, ...]) -> None:
        functools.update_wrapper(self, model)
        self.model, self.answers = model, answers

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        with _answering(self.answers):
            return self.model(*args, **kwargs)

    @property
    def key(self) -> tuple:
        """A hashable value that is equal for equal answers."""
        return tuple((x.shape, x.dtype.str, x.tobytes()) for x in self.answers)


def find_answers(run: Callable, model: Callable, arrays: tuple) -> WithAnswers | None:
    """Return the model with the answers to all of its questions about these arrays.

    Parameters
    ----------
    run
        ``run(model, rng_key, arrays)`` calls a model on arrays that may be traced.
    model, arrays
        The model, and the arrays of all rows.

    Returns
    -------
    WithAnswers or None
        None if there is no end of questions, or they cannot be answered: if an answer depends on
        the values of latent sites, or comes from inside of a transformation of the user's own.
    """
    answers: tuple[np.ndarray, ...] = ()
    while len(answers) <= MOST:
        finished = []
        with_answers = WithAnswers(model, answers)

        def upto(rng_key, arrays, model=with_answers, finished=finished):
            try:
                run(model, rng_key, arrays)
            except _Question as question:
                return question.asked
            finished.append(True)
            return ()

        program = quick_jit(upto, "little")
        try:
            made = [np.asarray(program(jax.random.key(seed), arrays)) for seed in range(SEEDS)]
        except jax.errors.UnexpectedTracerError:
            return None
        if finished:
            return with_answers if answers else None
        if not all(np.array_equal(made[0], other) for other in made[1:]):
            return None
        answers = (*answers, made[0])
    return None


class _Question(BaseException):
    """Raised where Python asks for the values of a traced array that are not known yet.

    It is no Exception, so that the user's own ``except`` does not catch it.
    """

    def __init__(self, asked: jax.Array) -> None:
        self.asked = asked


class _Asked(threading.local):
    """The answers that are still to be given in this thread, innermost model last."""

    def __init__(self) -> None:
        self.stack: list[Iterator[np.ndarray]] = []


_asked = _Asked()


@contextmanager
def _answering(answers: tuple[np.ndarray, ...]) -> Iterator[None]:
    _install()
    _asked.stack.append(iter(answers))
    try:
        yield
    finally:
        _asked.stack.pop()


@functools.cache
def _install() -> None:
    """Let traced arrays look for an answer before they refuse to give their values.

    Outside of a model with answers they refuse as before.
    """
    for name, answer in _METHODS.items():
        setattr(jax.core.Tracer, name, _answered(getattr(jax.core.Tracer, name), answer))


def _answered(refuse: Callable, answer: Callable) -> Callable:
    @functools.wraps(refuse)
    def method(self, *args, **kwargs):
        if not _asked.stack:
            return refuse(self, *args, **kwargs)
        value = next(_asked.stack[-1], None)
        if value is None:
            raise _Question(self)
        return answer(value, *args, **kwargs)

    return method


def _as_array(value: np.ndarray, dtype: Any = None, **_: Any) -> np.ndarray:
    return np.array(value, dtype=dtype)


# How each conversion to Python's own values follows from the values of the array.
_METHODS = {
    "__int__": int,
    "__index__": lambda value: value.item(),
    "__float__": float,
    "__bool__": bool,
    "__complex__": complex,
    "__array__": _as_array,
    "item": lambda value, *args: value.item(*args),
    "tolist": lambda value: value.tolist(),
}
