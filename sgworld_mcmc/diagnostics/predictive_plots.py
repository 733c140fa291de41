"""One page of pictures on the predictions of a classifier."""

from os import PathLike
from typing import TYPE_CHECKING

import numpy as np

from sgworld_mcmc.diagnostics import plot_grid
from sgworld_mcmc.diagnostics.predictive import (
    function_space_r_hat,
    out_of_distribution_auc,
    predictive_entropy,
    predictive_score,
    reliability,
    total_variation,
)

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["plot_predictive"]

INSIDE, OUTSIDE, REFERENCE = plot_grid.COLOURS[:3]


def plot_predictive(
    probabilities: np.ndarray,
    labels: np.ndarray,
    *,
    out_of_distribution: np.ndarray | None = None,
    reference: np.ndarray | None = None,
    bins: int = 15,
    path: str | PathLike | None = None,
) -> "Figure":
    """Draw how calibrated predictions are, how unsure of what, and whether the chains agree.

    Parameters
    ----------
    probabilities : array (chains, draws, rows, classes)
        Predictive probabilities of test rows at each draw; (draws, rows, classes) or
        (rows, classes) leave out the panel on the chains.
    labels : array of int (rows,)
        The right classes, numbered from 0.
    out_of_distribution : array (..., rows, classes), optional
        Probabilities of rows unlike the training data: their entropy is compared.
    reference : array (rows, classes), optional
        Probabilities of a reference, such as a long run of NUTS: their distance is shown.
    bins : int
        Bins of the reliability diagram. Default: the usual 15.
    path : path, optional
        File to write; its ending decides the format.

    Returns
    -------
    matplotlib.figure.Figure
        A figure that does not belong to pyplot and needs no closing.

    Raises
    ------
    ValueError
        If shapes do not fit, or the probabilities do not add up to one.

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> probabilities = rng.dirichlet(np.ones(3), size=(4, 100, 50))
    >>> len(plot_predictive(probabilities, rng.integers(0, 3, 50)).axes)
    4
    """
    probabilities = np.asarray(probabilities)
    found = reliability(probabilities, labels, bins)
    panels = [
        lambda axis: _reliability(axis, found),
        lambda axis: _confidence(axis, found),
        lambda axis: _entropy(axis, probabilities, out_of_distribution),
    ]
    if probabilities.ndim == 4 and probabilities.shape[1] >= 4:
        panels.append(lambda axis: _r_hat(axis, probabilities))
    if reference is not None:
        panels.append(lambda axis: _distance(axis, probabilities, np.asarray(reference)))
    figure, axes = plot_grid.make_panels(len(panels), min(len(panels), 3), width=2.7, height=2.3)
    for axis, draw in zip(axes, panels, strict=True):
        draw(axis)
    score = predictive_score(probabilities, labels)
    figure.suptitle(
        f"log likelihood {score.log_likelihood:.3f}, accuracy {score.accuracy:.1%}, "
        f"expected calibration error {score.calibration_error:.3f}, Brier score {score.brier:.3f}",
        fontsize=8,
    )
    if path is not None:
        plot_grid.save(figure, path)
    return figure


def _reliability(axis, found) -> None:
    plot_grid.label_panel(axis, "Reliability")
    axis.plot([0, 1], [0, 1], color=plot_grid.DARK, linewidth=0.8)
    axis.errorbar(
        found.confidence,
        found.accuracy,
        found.error,
        fmt="o",
        markersize=3,
        linewidth=1,
        color=INSIDE,
    )
    axis.set(xlim=(0, 1), ylim=(0, 1.03))
    _say(axis, "confidence", "accuracy")


def _confidence(axis, found) -> None:
    plot_grid.label_panel(axis, "Rows by confidence")
    bins = len(found.count)
    axis.bar((np.arange(bins) + 0.5) / bins, found.count, 1 / bins, color=INSIDE, alpha=0.8)
    axis.set_xlim(0, 1)
    _say(axis, "confidence", "rows")


def _entropy(axis, probabilities, outside) -> None:
    plot_grid.label_panel(axis, "Entropy of the predictions")
    inside = predictive_entropy(probabilities)
    edges = np.linspace(0, np.log(probabilities.shape[-1]), 21)
    axis.hist(inside, edges, density=True, color=INSIDE, alpha=0.6, label="test rows")
    if outside is not None:
        other = predictive_entropy(outside)
        auc = out_of_distribution_auc(inside, other)
        label = f"unlike the data\n(AUC {auc:.2f})"
        axis.hist(other, edges, density=True, color=OUTSIDE, alpha=0.6, label=label)
        axis.legend(fontsize=6.5, frameon=False)
    _say(axis, "nats", "density")


def _r_hat(axis, probabilities) -> None:
    found = function_space_r_hat(probabilities).ravel()
    plot_grid.label_panel(axis, f"R-hat of the predictions (largest {found.max():.3f})")
    axis.hist(found, 30, color=INSIDE, alpha=0.8)
    axis.axvline(1.01, color=plot_grid.DARK, linewidth=0.8, linestyle="--")
    _say(axis, "split R-hat", "probabilities")


def _distance(axis, probabilities, reference) -> None:
    mean = probabilities.reshape(-1, *probabilities.shape[-2:]).mean(0)
    if reference.shape != mean.shape:
        raise ValueError(
            f"`reference` has the shape {reference.shape}, the predictions {mean.shape}: give the "
            "reference's mean probabilities of the same rows"
        )
    each = np.abs(mean - reference).sum(-1) / 2
    distance = total_variation(mean, reference)
    plot_grid.label_panel(axis, f"Distance to the reference (mean {distance:.4f})")
    axis.hist(each, 30, color=REFERENCE, alpha=0.8)
    _say(axis, "total variation of a row", "rows")


def _say(axis, across: str, upward: str) -> None:
    axis.set_xlabel(across, fontsize=7)
    axis.set_ylabel(upward, fontsize=7)
