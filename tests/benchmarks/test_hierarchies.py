"""The benchmark of hierarchies, on a small one."""

import argparse

import numpy as np
import pytest

from sgworld_benchmarks.hierarchies import problems, run
from sgworld_mcmc import cli


@pytest.mark.slow
def test_both_samplers_agree_on_a_small_hierarchy(monkeypatch):
    small = {"centred": (problems.centred, 20_000, 320)}
    monkeypatch.setattr(run, "PROBLEMS", small)
    ours, other = run.compare("centred", warmup=200, draws=500)
    assert ours.ess > 400 and ours.epochs < 2
    far, wide = run.disagreement(ours, other)
    assert far < 0.4 and wide < 0.3  # with the Monte Carlo errors of a short run of NUTS


@pytest.mark.slow
@pytest.mark.parametrize(
    "option, size, groups, labels",
    [
        ("--kinetic", 20_000, 320, ("overdamped", "kinetic")),
        ("--streamed", 60_000, 1010, ("in memory", "streamed")),
    ],
)
def test_two_ways_to_run_agree(option, size, groups, labels, monkeypatch, capsys):
    monkeypatch.setattr(run, "PROBLEMS", {"centred": (problems.centred, size, groups)})
    parser = argparse.ArgumentParser()
    run.add_arguments(parser)
    options = parser.parse_args([option])
    options.problem = "centred"
    assert run.run_cli(options) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[1].startswith(labels[0]) and lines[2].startswith(labels[1])
    far = float(lines[-1].split("at most ")[1].split(" sd")[0])
    assert far < 0.25  # with the Monte Carlo errors of both
    assert 0.2 < float(lines[-2].rsplit(" ", 1)[1]) < 5


@pytest.mark.slow
def test_nuts_on_fewer_rows_is_charged_for_all(monkeypatch):
    monkeypatch.setattr(run, "PROBLEMS", {"centred": (problems.centred, 40_000, 320)})
    limits = {"warmup": 50, "draws": 25}
    few = run.compare("centred", nuts_rows=5000, **limits)[1]
    monkeypatch.setattr(run, "PROBLEMS", {"centred": (problems.centred, 5000, 320)})
    own = run.compare("centred", **limits)[1]
    assert few.drawing > 2 * own.drawing and few.epochs == pytest.approx(own.epochs)


@pytest.mark.parametrize("name", problems.PROBLEMS)
def test_problems_have_rows_and_groups(name):
    make, _, _ = problems.PROBLEMS[name]
    _, data = make(300, 30)
    rows = [x for x in data if np.ndim(x)]
    assert {len(x) for x in rows} == {300}
    assert max(int(x.max()) for x in rows if x.dtype.kind == "i") < 30


def test_the_command_line_knows_the_benchmark():
    assert "hierarchies" in cli.BENCHMARKS
