"""The diagnostic example at a small size: the bias it predicts, and what the test sees."""

import runpy
from pathlib import Path

import numpy as np
import pytest

pytestmark = pytest.mark.slow

EXAMPLE = Path(__file__).parents[2] / "examples" / "sampler_diagnostic.py"


@pytest.fixture(scope="module")
def example():
    return runpy.run_path(str(EXAMPLE))


@pytest.fixture(scope="module")
def results(example, tmp_path_factory):
    folder = tmp_path_factory.mktemp("out")
    sizes = ["--chains=128", "--epochs=120", "--times", "0.25", "0.5", f"--out={folder}"]
    found = example["main"](sizes)
    assert 10_000 < (folder / "diagnostic.png").stat().st_size < 200_000
    return found


def test_only_the_circulating_sampler_is_seen(results):
    sgld, sgworld, whitened = results.values()
    assert sgld[1].p_value < 1e-4
    for row in (*sgworld, *whitened):
        assert row.p_value > 1e-3
        assert abs(row.measured - row.production) < 4.5 * row.measured_error + 1e-3
    # Biases in the order that the test cannot know.
    for a, b, c in zip(sgworld, sgld, whitened, strict=True):
        assert 0 < a.variance_error < 0.1 * b.variance_error
        assert b.variance_error < c.variance_error


def test_measured_production_is_that_of_the_recursion(results):
    for row in results["SGLD"]:
        assert abs(row.measured - row.production) < 4.5 * row.measured_error + 2e-4
    slow, fast = results["SGLD"]
    # The production of an epoch is of third order in the step.
    assert 2.0 < np.log2(fast.production / slow.production) < 3.5


def test_table_names_all(example, results):
    text = example["table"](results)
    assert all(name in text for name in results) and "R-hat" in text


def test_bad_sizes(example, capsys):
    with pytest.raises(SystemExit):
        example["main"](["--chains=1"])
    assert "at least 2 chains" in capsys.readouterr().err
