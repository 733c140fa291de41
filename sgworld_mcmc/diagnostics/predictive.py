"""Judge predictions instead of parameters: calibration, distance to a reference, and mixing.

The weights of a network cannot be compared, their predictions can. Probabilities of classes have
the shape (..., rows, classes) and predicted values of a regression (..., rows); the axes before are
those of the draws, chains first.
"""

from typing import NamedTuple

import numpy as np
from scipy.special import entr

from sgworld_mcmc.slabs import r_hats

__all__ = [
    "PredictiveScore",
    "Reliability",
    "agreement",
    "coverage",
    "function_space_r_hat",
    "mutual_information",
    "out_of_distribution_auc",
    "predictive_entropy",
    "predictive_score",
    "reliability",
    "total_variation",
]

# Probabilities below this count as this in logarithms: the smallest that single precision has.
TINY = np.finfo(np.float32).tiny


class Reliability(NamedTuple):
    """How often predictions of some confidence are right.

    Attributes
    ----------
    confidence
        (bins,) mean probability of the most probable class; NaN in an empty bin.
    accuracy
        (bins,) fraction of these rows for which that class is the right one.
    error
        (bins,) standard error of the accuracy, binomial.
    count
        (bins,) number of rows.
    """

    confidence: np.ndarray
    accuracy: np.ndarray
    error: np.ndarray
    count: np.ndarray

    @property
    def expected_error(self) -> float:
        """The expected calibration error: mean distance of confidence and accuracy over rows."""
        used = self.count > 0
        gap = np.abs(self.confidence - self.accuracy)[used]
        return float(np.average(gap, weights=self.count[used]))


class PredictiveScore(NamedTuple):
    """How good the predictions of test rows are.

    Attributes
    ----------
    log_likelihood
        Mean logarithm of the predictive probability of the right class, in nats.
    accuracy
        Fraction of the rows whose most probable class is right.
    brier
        Mean squared distance of the probabilities from the right answer, 0 to 2.
    calibration_error
        Expected calibration error, in 15 bins.
    entropy
        Mean entropy of the predictive probabilities, in nats.
    """

    log_likelihood: float
    accuracy: float
    brier: float
    calibration_error: float
    entropy: float


def predictive_score(probabilities: np.ndarray, labels: np.ndarray) -> PredictiveScore:
    """Score the predictive probabilities, averaged over the draws, of test rows.

    Parameters
    ----------
    probabilities
        (..., rows, classes) probabilities at each draw, or their mean (rows, classes).
    labels
        (rows,) the right classes, integers from 0.

    Examples
    --------
    >>> draws = np.array([[[0.9, 0.1], [0.3, 0.7]], [[0.7, 0.3], [0.5, 0.5]]])
    >>> score = predictive_score(draws, np.array([0, 1]))
    >>> round(score.log_likelihood, 3), score.accuracy
    (-0.367, 1.0)
    """
    mean, labels = _checked(probabilities, labels)
    right = mean[np.arange(len(mean)), labels]
    squares = (mean**2).sum(-1) - 2 * right + 1
    return PredictiveScore(
        float(np.log(np.maximum(right, TINY)).mean()),
        float(np.mean(mean.argmax(-1) == labels)),
        float(squares.mean()),
        reliability(mean, labels).expected_error,
        float(predictive_entropy(mean).mean()),
    )


def reliability(probabilities: np.ndarray, labels: np.ndarray, bins: int = 15) -> Reliability:
    """Compare confidence with accuracy in bins of equal width (Guo et al., 2017, ICML).

    Parameters
    ----------
    probabilities, labels
        As for :func:`predictive_score`.
    bins
        Number of bins of the confidence from 0 to 1; 15 is the usual number.

    Examples
    --------
    >>> sure = np.array([[0.8, 0.2]] * 5)
    >>> found = reliability(sure, np.array([0, 0, 0, 0, 1]))
    >>> round(found.expected_error, 6)
    0.0
    """
    if bins < 1:
        raise ValueError(f"`bins` is {bins}: give at least one bin")
    mean, labels = _checked(probabilities, labels)
    confidence, right = mean.max(-1), mean.argmax(-1) == labels
    place = np.clip(np.ceil(confidence * bins).astype(int) - 1, 0, bins - 1)
    count = np.bincount(place, minlength=bins)
    safe = np.where(count > 0, count, np.nan)
    average = np.bincount(place, confidence, bins) / safe
    accuracy = np.bincount(place, right, bins) / safe
    return Reliability(average, accuracy, np.sqrt(accuracy * (1 - accuracy) / safe), count)


def coverage(predicted: np.ndarray, observed: np.ndarray, levels: np.ndarray) -> np.ndarray:
    """Return how many observations lie in central predictive intervals, for a regression.

    Parameters
    ----------
    predicted
        (..., rows) draws from the predictive distribution, noise included.
    observed
        (rows,) what was observed.
    levels
        (L,) probability masses of the intervals, between 0 and 1.

    Returns
    -------
    numpy.ndarray
        (L,) fractions of the rows: equal to the levels if the predictions are calibrated.

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> coverage(rng.normal(size=(4000, 500)), rng.normal(size=500), np.array([0.5, 0.9]))
    array([0.47 , 0.876])
    """
    predicted, observed = np.asarray(predicted), np.asarray(observed)
    if predicted.ndim < 2 or observed.shape != predicted.shape[-1:]:
        raise ValueError(
            f"`predicted` has the shape {predicted.shape} and `observed` {observed.shape}: give "
            "draws (..., rows) and observations (rows,)"
        )
    draws = predicted.reshape(-1, predicted.shape[-1])
    rank = (draws < observed).mean(0) + (draws == observed).mean(0) / 2
    return np.array([np.mean(np.abs(2 * rank - 1) <= level) for level in np.asarray(levels)])


def total_variation(p: np.ndarray, q: np.ndarray) -> float:
    """Return the total variation distance of (rows, classes) probabilities, averaged over rows.

    Half the sum of the absolute differences (Izmailov et al., 2021, arXiv:2104.14421).

    Examples
    --------
    >>> total_variation(np.array([[0.5, 0.5]]), np.array([[0.75, 0.25]]))
    0.25
    """
    return float(np.abs(np.asarray(p) - np.asarray(q)).sum(-1).mean() / 2)


def agreement(p: np.ndarray, q: np.ndarray) -> float:
    """Return the fraction of rows for which the most probable class is the same.

    Examples
    --------
    >>> agreement(np.array([[0.6, 0.4], [0.2, 0.8]]), np.array([[0.9, 0.1], [0.7, 0.3]]))
    0.5
    """
    return float(np.mean(np.argmax(p, -1) == np.argmax(q, -1)))


def predictive_entropy(probabilities: np.ndarray) -> np.ndarray:
    """Return the entropy (rows,) of the probabilities averaged over the draws, in nats.

    Rows unlike the training data should have a large one.

    Examples
    --------
    >>> predictive_entropy(np.array([[1.0, 0.0], [0.5, 0.5]])).round(3)
    array([0.   , 0.693])
    """
    return _entropy(_mean(probabilities))


def mutual_information(probabilities: np.ndarray) -> np.ndarray:
    """Return the part of the entropy (rows,) that more data would take away, in nats.

    The entropy of the averaged probabilities minus the averaged entropy of each draw's.

    Examples
    --------
    >>> torn = np.array([[[1.0, 0.0]], [[0.0, 1.0]]])  # two draws, each sure, that disagree
    >>> mutual_information(torn).round(3)
    array([0.693])
    """
    probabilities = np.asarray(probabilities)
    draws = probabilities.reshape(-1, *probabilities.shape[-2:])
    return predictive_entropy(draws) - np.mean([_entropy(draw) for draw in draws], axis=0)


def out_of_distribution_auc(inside: np.ndarray, outside: np.ndarray) -> float:
    """Return the probability that a row from outside has the larger entropy (or other score).

    The area under the ROC curve of a detector: 0.5 if the score tells nothing.

    Examples
    --------
    >>> out_of_distribution_auc(np.array([0.1, 0.2]), np.array([0.15, 0.9]))
    0.75
    """
    inside, outside = np.sort(np.ravel(inside)), np.ravel(outside)
    below = np.searchsorted(inside, outside, "left") + np.searchsorted(inside, outside, "right")
    return float(below.mean() / (2 * len(inside)))


def function_space_r_hat(predictions: np.ndarray) -> np.ndarray:
    """Return the split R-hat of each prediction, of whatever shape the predictions have.

    Weights of a network need not mix, since many weights are the same function; these have to.

    Parameters
    ----------
    predictions
        (chains, draws, ...) values, at least 4 draws.

    Returns
    -------
    numpy.ndarray
        (...) R-hat; one for predictions that do not vary.

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> bool(function_space_r_hat(rng.normal(size=(4, 500, 3))).max() < 1.02)
    True
    """
    predictions = np.asarray(predictions, float)
    if predictions.ndim < 2 or predictions.shape[1] < 4:
        raise ValueError(
            f"`predictions` has the shape {predictions.shape}: give (chains, draws, ...) with at "
            "least 4 draws"
        )
    shape = predictions.shape[2:]
    flat = predictions.reshape(*predictions.shape[:2], -1)
    moving = np.ptp(flat, axis=(0, 1)) > 0
    found = np.ones(flat.shape[2])
    if moving.any():
        found[moving] = r_hats(flat[:, :, moving])
    return found.reshape(shape)


def _mean(probabilities: np.ndarray) -> np.ndarray:
    probabilities = np.asarray(probabilities, float)
    if probabilities.ndim < 2:
        raise ValueError(
            f"`probabilities` has the shape {probabilities.shape}: give (..., rows, classes)"
        )
    return probabilities.reshape(-1, *probabilities.shape[-2:]).mean(0)


def _entropy(mean: np.ndarray) -> np.ndarray:
    return entr(mean).sum(-1)


def _checked(probabilities: np.ndarray, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return mean probabilities (rows, classes) and integer labels that fit them."""
    mean, labels = _mean(probabilities), np.asarray(labels)
    if np.abs(mean.sum(-1) - 1).max() > 1e-3 or mean.min() < -1e-6:
        raise ValueError(
            "`probabilities` do not add up to one over the last axis: pass probabilities, not "
            "logits (jax.nn.softmax)"
        )
    if labels.shape != mean.shape[:1] or not np.issubdtype(labels.dtype, np.integer):
        raise ValueError(
            f"`labels` must be {mean.shape[0]} integers, one for each row, and are "
            f"{labels.dtype} of the shape {labels.shape}"
        )
    if labels.min() < 0 or labels.max() >= mean.shape[1]:
        raise ValueError(
            f"`labels` lie between {labels.min()} and {labels.max()}, but there are "
            f"{mean.shape[1]} classes, numbered from 0"
        )
    return mean, labels
