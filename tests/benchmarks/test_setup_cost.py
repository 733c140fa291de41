"""The set-up benchmark: its simulation, and what it counts."""

import numpy as np
import pytest

from sgworld_benchmarks import setup_cost
from sgworld_mcmc.cli import main


@pytest.mark.parametrize("arrays", setup_cost.ARRAYS)
def test_simulated_rows_follow_their_model(arrays):
    X, y = setup_cost.simulate(100_000, 3, arrays, 0)
    assert X.dtype == y.dtype == (np.float64 if arrays == "double" else np.float32)
    assert isinstance(X, np.ndarray) == (arrays != "jax")
    coefficients = np.random.default_rng(0).standard_normal(3) / np.sqrt(3)
    X, y = np.asarray(X, float), np.asarray(y, float)
    mean = 1 / (1 + np.exp(-X @ coefficients))
    # The score at the coefficients that the rows were made with, in its own standard deviations.
    score = X.T @ (y - mean) / np.sqrt((X**2 * (mean * (1 - mean))[:, None]).sum(0))
    assert np.all(np.abs(score) < 4.5)


@pytest.mark.slow
def test_table_of_a_small_case(capsys):
    assert main(["benchmark", "setup", "--num-data=2000", "--dim=2"]) == 0
    text = capsys.readouterr().out
    assert "N=2000, D=2, numpy" in text
    lines = {line.split("  ")[0]: line for line in text.splitlines()}
    # A look at all numbers, the shuffle, and the additivity: on all rows and both halves, twice.
    assert lines["checking the model"].endswith("6.00")
    assert "searching the mode" in lines and "draws" in lines
    assert "1.00 passes before it samples" in text and "times the data" in text
