"""The benchmark of streamed runs, on small files."""

import json

import pytest

from sgworld_mcmc.cli import main

pytestmark = pytest.mark.slow


def test_it_runs_and_prints_its_figures(tmp_path, capsys):
    path = tmp_path / "found.json"
    options = ["--rows", "40000", "--dim", "2", "--epoch-rows", "20000", "--json", str(path)]
    assert main(["benchmark", "streaming", *options, "--folder", str(tmp_path)]) == 0
    printed = capsys.readouterr().out
    assert "largest anonymous memory" in printed and "speed" in printed
    found = json.loads(path.read_text())
    assert found["limited"]["mean_error"] < 6 * found["limited"]["mean_se"] + 0.02
    assert found["limited"]["anonymous"] < 2e9
    assert len(found["epochs"]) == 5
    options = ["--rows", "40000", "--dim", "2", "--disk", "--json", str(path)]
    assert main(["benchmark", "streaming", *options, "--folder", str(tmp_path)]) == 0
    assert "sequential reads" in capsys.readouterr().out
    for made in json.loads(path.read_text())["disk"]:
        assert made["bytes"] > 40_000 * 3 * 4 and made["sequential"] > 0 < made["epochs"]
    assert [x.name for x in tmp_path.iterdir()] == ["found.json"]
