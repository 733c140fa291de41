"""The benchmark of several hosts: what its cost model says, and that it runs."""

import os

import numpy as np
import pytest

from sgworld_benchmarks.hosts import Costs
from sgworld_mcmc.cli import main


def test_cost_model():
    costs = Costs(np.full(3, 1e6), np.full(3, 2e6), np.ones(3), 1e-4, 1e9, 204)
    reading, waiting = costs.pass_seconds(1e9, 1e4, 1, 50)
    assert reading == pytest.approx(1000) and waiting == 0
    reading, waiting = costs.pass_seconds(1e9, 2e4, 2, 50)
    # 50 000 steps wait for an exchange as it was measured, and move 50 numbers of four bytes.
    assert reading == pytest.approx(500) and waiting == pytest.approx(5e4 * (1e-4 + 2e-7))
    # Twice the levels of a tree, half the steps.
    _, more = costs.pass_seconds(1e9, 4e4, 4, 0)
    assert more == pytest.approx(5e4 * 1e-4)
    lines = costs.table(1e9, 1e4, 50).splitlines()
    assert len(lines) == 9 and lines[-1].split()[0] == "1000" and lines[2].split()[-1] == "100%"


@pytest.mark.slow
@pytest.mark.skipif(os.cpu_count() < 2, reason="two processes need two cores")
def test_table_of_a_small_case(capsys):
    arguments = ["--rounds=1", "--num-data=5000", "--dim=3", "--batch-size=1000", "--seconds=0.1"]
    assert main(["benchmark", "hosts", *arguments]) == 0
    text = capsys.readouterr().out
    assert "rows per second" in text and "1000" in text.splitlines()[-1]
