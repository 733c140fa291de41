"""The benchmark of checkpoints: what it computes from times, and that it runs."""

import numpy as np
import pytest

from sgworld_benchmarks.checkpoints import CheckpointCosts
from sgworld_mcmc.cli import main

pytest.importorskip("orbax.checkpoint")
pytest.importorskip("zarr")


def test_cost_of_one_checkpoint():
    seconds = np.array([[10.0, 20.0, 10.0], [10.1, 20.1, 10.1], [10.5, 20.5, 11.1]])
    costs = CheckpointCosts(("none", "end", "often"), seconds, seconds, np.array([0, 1, 11]), 5, 8)
    np.testing.assert_allclose(costs.ratio(), [1, 1.01, 1.05])
    np.testing.assert_allclose(costs.milliseconds(2, processor=True), [40, 40, 70])
    assert "40 ms (40-70) of a processor, 0.40 % at every=10" in costs.table()


@pytest.mark.slow
@pytest.mark.parametrize("streamed", [[], ["--streamed"]])
def test_table_of_a_small_case(capsys, streamed):
    arguments = ["--seconds=0.5", "--rounds=1", "--num-data=500", "--dim=2", "--batch-size=100"]
    assert main(["benchmark", "checkpoints", *arguments, *streamed]) == 0
    text = capsys.readouterr().out
    assert "one at the end" in text and "draws on disk: a checkpoint takes" in text
