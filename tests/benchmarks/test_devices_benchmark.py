"""The benchmark of several devices: what it computes from times, and that it runs."""

import numpy as np
import pytest

from sgworld_benchmarks.devices import Comparison
from sgworld_mcmc.cli import main


def test_line_of_a_comparison():
    times = np.array([1.0, 2.0, 4.0])
    line = Comparison("rows", 1e-6, times, 1.5 * times, 100).line()
    assert "1.50  1.50-1.50" in line and line.split()[-1] == "10000.0"


@pytest.mark.slow
def test_table_of_a_small_case(capsys):
    arguments = ["--seconds=0.2", "--rounds=1", "--num-data=20000", "--dim=20", "--devices=2"]
    assert main(["benchmark", "devices", *arguments]) == 0
    text = capsys.readouterr().out
    lines = [line for line in text.splitlines() if "over" in line]
    assert len(lines) == 3
    for line in lines:
        apart = float(line.split("devices" if "devices" in line else "over 1")[1].split()[0])
        assert apart < 1e-3
