"""The benchmark of hierarchies, on a small one."""

import numpy as np
import pytest

from sgworld_benchmarks import hierarchies
from sgworld_mcmc import cli


@pytest.mark.slow
def test_both_samplers_agree_on_a_small_hierarchy(monkeypatch):
    small = {"centred": (hierarchies.centred, 20_000, 320)}
    monkeypatch.setattr(hierarchies, "PROBLEMS", small)
    ours, other = hierarchies.compare("centred", warmup=200, draws=500)
    assert ours.ess > 400 and ours.epochs < 2
    far, wide = hierarchies.disagreement(ours, other)
    assert far < 0.4 and wide < 0.3  # with the Monte Carlo errors of a short run of NUTS


@pytest.mark.parametrize("name", hierarchies.PROBLEMS)
def test_problems_have_rows_and_groups(name):
    make, _, _ = hierarchies.PROBLEMS[name]
    _, data = make(300, 30)
    rows = [x for x in data if np.ndim(x)]
    assert {len(x) for x in rows} == {300}
    assert max(int(x.max()) for x in rows if x.dtype.kind == "i") < 30


def test_the_command_line_knows_the_benchmark():
    assert "hierarchies" in cli.BENCHMARKS
