"""The problems of the benchmark: networks with training rows and rows at which they predict."""

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from numpyro.infer.util import log_density

from sgworld_benchmarks.networks import models

__all__ = ["PROBLEMS", "Network", "digits"]

TRAINING_DIGITS, TRAINING_PATIENTS = 1000, 300


class Network(NamedTuple):
    """A network with its data.

    Attributes
    ----------
    title
        What it is, in words.
    model
        The NumPyro model of ``(x, y)``.
    predict
        Function of (sites, x): probabilities (rows, classes) or values (rows,).
    x, y
        Training rows.
    test_x
        Rows at which predictions are compared.
    test_y
        Their labels, for classes; None for a regression.
    inside
        Which of these rows lie where there are training rows.
    """

    title: str
    model: Callable
    predict: Callable
    x: np.ndarray
    y: np.ndarray
    test_x: np.ndarray
    test_y: np.ndarray | None
    inside: np.ndarray

    @property
    def is_classifier(self) -> bool:
        """Whether the predictions are probabilities of classes."""
        return self.test_y is not None

    def energy(self, sites: dict) -> jax.Array:
        """Return minus the log joint density of data and (constrained) sites."""
        return -log_density(self.model, (jnp.asarray(self.x), jnp.asarray(self.y)), {}, sites)[0]


def digits(hidden: tuple[int, ...] = (32,), fan_in: bool = False) -> Network:
    """Return a dense network on 1000 of scikit-learn's digits; the other 797 are for testing."""
    x, y, test_x, test_y = _digits()
    layers = "-".join(str(width) for width in (64, *hidden, 10))
    prior = "1/fan-in" if fan_in else "1"
    return Network(
        f"digits, {layers} tanh, prior variance {prior}",
        partial(models.classifier, hidden=hidden, fan_in=fan_in),
        models.probabilities,
        x,
        y,
        test_x,
        test_y,
        np.ones(len(test_x), bool),
    )


def convolution() -> Network:
    """Return a convolutional network on the same digits as images of 8 x 8 pixels."""
    x, y, test_x, test_y = _digits()
    return Network(
        f"digits, {models.CHANNELS} channels {models.KERNEL} x {models.KERNEL} and a dense layer",
        models.convolutional,
        models.convolutional_probabilities,
        x.reshape(-1, 8, 8),
        y,
        test_x.reshape(-1, 8, 8),
        test_y,
        np.ones(len(test_x), bool),
    )


def curve(width: int, size: int, noise: float | None, seed: int = 0) -> Network:
    """Return a regression on one input with a gap; the noise is known, or has a prior if None."""
    rng = np.random.default_rng(seed)
    left, right = (-2.0, -0.5), (0.7, 2.0)
    x = np.concatenate([rng.uniform(*left, size // 2), rng.uniform(*right, size - size // 2)])
    y = np.sin(2 * x) + 0.3 * x + (noise or 0.1) * rng.normal(size=size)
    grid = np.linspace(-2, 2, 41)
    inside = (grid <= left[1]) | (grid >= right[0])
    return Network(
        f"curve, 1-{width}-1 tanh, noise {'with a prior' if noise is None else 'known'}",
        partial(models.regression, hidden=(width,), noise=noise),
        models.regression_function,
        x[:, None].astype(np.float32),
        y.astype(np.float32),
        grid[:, None].astype(np.float32),
        None,
        inside,
    )


def diabetes(width: int = 20, seed: int = 0) -> Network:
    """Return a regression on 300 of scikit-learn's diabetes patients; 142 are for testing."""
    load = _datasets().load_diabetes(scaled=False)
    order = np.random.default_rng(seed).permutation(len(load.data))
    x, y = load.data[order], load.target[order]
    x, y = ((v - v[:TRAINING_PATIENTS].mean(0)) / v[:TRAINING_PATIENTS].std(0) for v in (x, y))
    x, y = x.astype(np.float32), y.astype(np.float32)
    return Network(
        f"diabetes, 10-{width}-1 tanh, noise with a prior",
        partial(models.regression, hidden=(width,)),
        models.regression_function,
        x[:TRAINING_PATIENTS],
        y[:TRAINING_PATIENTS],
        x[TRAINING_PATIENTS:],
        None,
        np.ones(len(x) - TRAINING_PATIENTS, bool),
    )


# Functions that make the problems, so that no data are read before they are needed.
PROBLEMS: dict[str, Callable[[], Network]] = {
    "digits": digits,
    "curve-20": partial(curve, 20, 200, None),
    "curve-50": partial(curve, 50, 300, 0.1),
    "diabetes": diabetes,
    "convolution": convolution,
    "two-layers": partial(digits, (24, 16), True),
}


def _digits():
    """Return images (rows, 64) and labels for training and for testing."""
    load = _datasets().load_digits()
    order = np.random.default_rng(0).permutation(len(load.data))
    x = (load.data[order] / 16.0).astype(np.float32)
    y = load.target[order].astype(np.int32)
    return x[:TRAINING_DIGITS], y[:TRAINING_DIGITS], x[TRAINING_DIGITS:], y[TRAINING_DIGITS:]


def _datasets():
    try:
        from sklearn import datasets
    except ImportError as error:
        raise ImportError(
            "The networks' data are scikit-learn's: pip install 'sgworld-mcmc[demo]'."
        ) from error
    return datasets
