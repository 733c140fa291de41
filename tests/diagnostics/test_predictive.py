"""Scores of predictions: exact answers on probabilities whose calibration is known."""

import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg

from sgworld_mcmc.diagnostics import (
    agreement,
    coverage,
    function_space_r_hat,
    mutual_information,
    out_of_distribution_auc,
    plot_predictive,
    predictive_entropy,
    predictive_score,
    reliability,
    total_variation,
)

ROWS, CLASSES = 40_000, 4


@pytest.fixture(scope="module")
def calibrated():
    """Return probabilities, and labels that are drawn from them."""
    rng = np.random.default_rng(0)
    probabilities = rng.dirichlet(np.full(CLASSES, 0.5), ROWS)
    labels = (probabilities.cumsum(-1) > rng.random((ROWS, 1))).argmax(-1)
    return probabilities, labels


def test_calibrated_probabilities_lie_on_the_diagonal(calibrated):
    found = reliability(*calibrated)
    used = found.count > 0
    assert found.count.sum() == ROWS
    assert not used[: int(15 / CLASSES)].any()  # the largest of four is at least a quarter
    z = ((found.accuracy - found.confidence) / found.error)[used]
    assert np.abs(z).max() < 4
    assert found.expected_error < 0.01


def test_scores_of_calibrated_probabilities_are_their_expectations(calibrated):
    probabilities, labels = calibrated
    score = predictive_score(probabilities, labels)
    error = 4 / np.sqrt(ROWS)
    entropy = predictive_entropy(probabilities).mean()
    assert score.entropy == pytest.approx(entropy)
    assert score.log_likelihood == pytest.approx(-entropy, abs=error)
    assert score.accuracy == pytest.approx(probabilities.max(-1).mean(), abs=error)
    assert score.brier == pytest.approx(1 - (probabilities**2).sum(-1).mean(), abs=error)


def test_too_sure_probabilities_are_found_out(calibrated):
    probabilities, labels = calibrated
    sharp = probabilities**3 / (probabilities**3).sum(-1, keepdims=True)
    found = reliability(sharp, labels)
    expected = (sharp.max(-1) - probabilities.max(-1)).mean()
    assert found.expected_error == pytest.approx(expected, abs=0.01)
    assert expected > 0.1


def test_draws_are_averaged_before_they_are_scored(calibrated):
    probabilities, labels = calibrated
    rng = np.random.default_rng(1)
    draws = np.stack([rng.permutation(probabilities, axis=1) for _ in range(6)])
    draws = draws.reshape(2, 3, ROWS, CLASSES)
    assert predictive_score(draws, labels) == predictive_score(draws.mean((0, 1)), labels)


def test_information_is_the_entropy_that_draws_disagree_about(calibrated):
    probabilities, _ = calibrated
    np.testing.assert_allclose(mutual_information(np.stack([probabilities] * 5)), 0, atol=1e-12)
    sure = np.eye(CLASSES)[:, None, :]  # each draw is sure of another class
    assert mutual_information(sure) == pytest.approx(np.log(CLASSES))


def test_distances_between_predictions():
    p, q = np.array([[0.5, 0.5, 0], [1, 0, 0]]), np.array([[0.25, 0.75, 0], [0, 0, 1]])
    assert total_variation(p, q) == (0.25 + 1) / 2
    assert agreement(p, q) == 0
    assert agreement(p, p) == 1


def test_the_area_under_the_curve_is_a_probability():
    rng = np.random.default_rng(0)
    near, far = rng.normal(0, 1, 20_000), rng.normal(1, 1, 20_000)
    # The probability that N(1, 1) exceeds N(0, 1) is that of N(1, 2) being positive.
    assert out_of_distribution_auc(near, far) == pytest.approx(0.7602, abs=0.01)
    assert out_of_distribution_auc(near, near) == pytest.approx(0.5)


def test_intervals_cover_what_they_say():
    rng = np.random.default_rng(0)
    levels, rows = np.array([0.5, 0.9]), 4000
    draws, observed = rng.normal(size=(2, 1000, rows)), rng.normal(size=rows)
    found = coverage(draws, observed, levels)
    error = np.sqrt(levels * (1 - levels) / rows)
    assert np.abs(found - levels).max() < (4 * error).max()
    assert coverage(draws / 2, observed, levels)[1] < 0.65  # N(0, 1) in +- 1.645 / 2: 0.589


def test_chains_of_another_function_are_seen():
    rng = np.random.default_rng(0)
    same = rng.normal(size=(4, 400, 5, 2))
    assert function_space_r_hat(same).shape == (5, 2)
    assert function_space_r_hat(same).max() < 1.03
    same[0, :, 3, 1] += 2
    found = function_space_r_hat(same)
    assert found[3, 1] > 1.3
    assert np.delete(found.ravel(), 7).max() < 1.03
    assert function_space_r_hat(np.ones((2, 10, 3))).tolist() == [1, 1, 1]


@pytest.mark.parametrize(
    ("probabilities", "labels", "message"),
    [
        (np.zeros((3, 2)), np.zeros(3, int), "not logits"),
        (np.full((3, 2), 0.5), np.zeros(4, int), "must be 3 integers"),
        (np.full((3, 2), 0.5), np.zeros(3), "must be 3 integers"),
        (np.full((3, 2), 0.5), np.array([0, 1, 2]), "2 classes, numbered from 0"),
        (np.full(2, 0.5), np.zeros(1, int), "rows, classes"),
    ],
)
def test_slips_are_named(probabilities, labels, message):
    with pytest.raises(ValueError, match=message):
        predictive_score(probabilities, labels)


@pytest.mark.slow
def test_the_page_has_a_panel_for_all_that_it_is_given(calibrated, tmp_path):
    probabilities, labels = calibrated[0][:200], calibrated[1][:200]
    draws = np.stack([[probabilities] * 10] * 2)
    flat = np.full((50, CLASSES), 1 / CLASSES)
    path = tmp_path / "page.png"
    figure = plot_predictive(
        draws, labels, out_of_distribution=flat, reference=probabilities, path=path
    )
    titles = [axis.get_title(loc="left") for axis in figure.axes]
    assert titles == [
        "Reliability",
        "Rows by confidence",
        "Entropy of the predictions",
        "R-hat of the predictions (largest 1.000)",
        "Distance to the reference (mean 0.0000)",
    ]
    assert path.stat().st_size > 10_000
    FigureCanvasAgg(figure).draw()
    with pytest.raises(ValueError, match="same rows"):
        plot_predictive(draws, labels, reference=probabilities[:3])
