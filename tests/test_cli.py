"""The command line: help, wrong arguments, the demo's files and numbers, the epoch benchmark."""

import csv
import subprocess
import sys
import time

import arviz as az
import jax
import numpy as np
import pytest

from sgworld_benchmarks import epoch
from sgworld_mcmc import __version__
from sgworld_mcmc.cli import BENCHMARKS, main
from sgworld_mcmc.demo.clock import measure
from sgworld_mcmc.demo.problems import Problem, breast_cancer, diabetes
from sgworld_mcmc.demo.samplers import Run, same_bias_step_size
from sgworld_mcmc.demo.scores import MEAN_TOLERANCE, SD_TOLERANCE, score
from sgworld_mcmc.theory.variance_bias import relative_variance_error


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--help"], ["demo", "benchmark", "--version"]),
        (["demo", "--help"], ["--out", "--seed", "--quick", "--problem", "scikit-learn"]),
        (["benchmark", "--help"], list(BENCHMARKS)),
        (["benchmark", "stationary", "--help"], ["benchmark stationary", "--num-data", "--out"]),
        (["benchmark", "epoch", "--help"], ["benchmark epoch", "--batch-size", "--rounds"]),
        (["benchmark", "setup", "--help"], ["benchmark setup", "--num-data", "--arrays"]),
    ],
)
def test_help(arguments, words, capsys):
    with pytest.raises(SystemExit) as stop:
        main(arguments)
    assert stop.value.code == 0
    text = capsys.readouterr().out
    assert all(word in text for word in words)


@pytest.mark.parametrize("arguments", [["benchmark"], ["benchmark", "all"]])
def test_benchmark_without_a_name_runs_all(arguments, monkeypatch, capsys):
    ran = []
    monkeypatch.setattr("sgworld_mcmc.cli._one_benchmark", lambda *given: ran.append(given) or 0)
    assert main(arguments) == 0
    assert ran == [(name, []) for name in BENCHMARKS]
    assert "=== stationary" in capsys.readouterr().out


def test_version(capsys):
    with pytest.raises(SystemExit) as stop:
        main(["--version"])
    assert stop.value.code == 0
    assert capsys.readouterr().out == f"sgworld-mcmc {__version__}\n"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "COMMAND"),
        (["benchmrk"], "invalid choice: 'benchmrk'"),
        (["demo", "--seed", "one"], "invalid int value: 'one'"),
        (["demo", "--problem", "iris"], "invalid choice: 'iris'"),
        (["demo", "--fast"], "unrecognized arguments: --fast"),
        (["benchmark", "nothing"], "invalid choice: 'nothing'"),
        (["benchmark", "epoch", "--rounds", "0"], "`rounds` must be at least 1"),
        (["benchmark", "epoch", "--num-data", "50", "--batch-size", "60"], "`batch_size`"),
        (["benchmark", "epoch", "--chain", "x"], "invalid int value: 'x'"),
        (["benchmark", "stationary", "--batch-size", "2000"], "batch_size must be"),
    ],
)
def test_wrong_arguments(arguments, message, capsys):
    with pytest.raises(SystemExit) as stop:
        main(arguments)
    assert stop.value.code == 2
    assert message in capsys.readouterr().err


def test_folder_that_is_a_file(tmp_path, capsys):
    (tmp_path / "out").write_text("in the way")
    with pytest.raises(SystemExit) as stop:
        main(["demo", "--out", str(tmp_path / "out")])
    assert stop.value.code == 2
    assert "out" in capsys.readouterr().err


def test_without_scikit_learn(monkeypatch, capsys, tmp_path):
    monkeypatch.setitem(sys.modules, "sklearn", None)
    assert main(["demo", "--out", str(tmp_path / "none")]) == 1
    assert "pip install 'sgworld-mcmc[demo]'" in capsys.readouterr().err
    assert not (tmp_path / "none").exists()


def test_help_imports_no_command():
    code = (
        "import sys; from sgworld_mcmc.cli import _parser; _parser().format_help();"
        "print([m for m in sys.modules if m.startswith(('sgworld_mcmc.demo', "
        "'sgworld_benchmarks', 'sklearn'))])"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "[]"


@pytest.mark.slow
def test_demo(tmp_path, capsys):
    out = tmp_path / "new" / "out"
    assert main(["demo", "--quick", "--problem", "diabetes", "--out", str(out), "--seed", "3"]) == 0
    names = {"density.png", "trace.png", "sgworld.nc", "table.csv"}
    assert {path.name for path in out.iterdir()} == {f"diabetes_{name}" for name in names}
    assert all((out / f"diabetes_{name}").stat().st_size > 1000 for name in names)

    with open(out / "diabetes_table.csv", newline="") as file:
        lines = list(csv.DictReader(file))
    samplers = {line["sampler"].split(" (")[0] for line in lines}
    assert samplers == {
        "SGWORLD, defaults",
        "SGWORLD, plain gradients",
        "SGLD, same step size",
        "SGLD, same bias",
        "full-gradient Langevin",
        "NUTS",
        "Laplace approximation",
    }

    def column(start, name):
        rows = [line for line in lines if line["sampler"].startswith(start)]
        assert len(rows) == 11
        return np.array([float(row[name]) for row in rows])

    assert all(np.isfinite(float(v)) for line in lines for v in list(line.values())[2:])
    # 1000 draws: the demo's tolerances (0.1 sd, 8 %) and four Monte Carlo errors on top.
    for start in ("SGWORLD, defaults", "SGLD, same bias", "full-gradient", "NUTS"):
        error, noise = column(start, "mean_error"), column(start, "mean_error_se")
        assert np.all(np.abs(error) < 0.1 + 4 * noise)
        ratio, noise = column(start, "sd_ratio"), column(start, "sd_ratio_se")
        assert np.all(np.abs(ratio - 1) < 0.08 + 4 * noise)
    # What the table is for: at the same step SGLD is wider, by 17 % predicted at C0 = M.
    wider = column("SGLD, same step", "sd_ratio").mean() - column("SGWORLD, pl", "sd_ratio").mean()
    assert 0.06 < wider < 0.35
    # Four chains of 350 calls: small batches by default, epochs where all rows are used.
    assert np.all(column("SGWORLD, defaults", "epochs") < 300)
    assert np.all(column("full-gradient", "epochs") == 1400)
    assert np.all(column("NUTS", "epochs") > 4 * 500)

    text = capsys.readouterr().out
    assert "Within tolerance" in text or "Not told apart" in text
    assert "442" in text and "SGWORLD, defaults" in text and "Whole demo" in text
    data = az.from_netcdf(out / "diabetes_sgworld.nc")
    assert data["posterior"]["beta"].shape == (4, 250, 10)
    assert data["log_likelihood"]["y"].shape == (4, 250, 442)


def test_data_are_standardised():
    for problem, shape in ((diabetes(), (442, 10)), (breast_cancer(), (569, 30))):
        X, y = problem.data
        assert X.shape == shape and y.shape == shape[:1] and problem.size == shape[0]
        assert np.allclose(X.mean(0), 0, atol=1e-5) and np.allclose(X.std(0), 1, atol=1e-5)


def test_same_bias_step_size():
    error = relative_variance_error(0.07, 10, 10, scheme="batches", noise="averaged")
    step = same_bias_step_size(0.07, 10)
    assert step < 0.01
    assert relative_variance_error(
        step, 10, 10, scheme="replacement", noise="averaged"
    ) == pytest.approx(error, rel=1e-6)


def test_score_against_reference_draws():
    """Draws shifted and stretched by known amounts; independent, so that errors are known."""
    rng = np.random.default_rng(0)
    problem = Problem("none", "none", None, (), None)
    reference = Run("reference", {"b": 3 + 2 * rng.normal(size=(4, 5000, 2))}, 0, 0, 1)

    def shifted(shift, stretch):
        draws = 3 + 2 * (shift + stretch * rng.normal(size=(4, 1000, 2)))
        return score(problem, Run("run", {"b": draws}, 0, 0, 1), reference)

    same, off, wide = shifted(0, 1), shifted(0.3, 1), shifted(0, 1.2)
    # Standard errors: sqrt(1/4000 + 1/20000) = 0.017 of a mean, 0.012 of a ratio.
    assert same.mean_error_se == pytest.approx(0.0173, rel=0.15)
    assert same.sd_ratio_se == pytest.approx(0.0122, rel=0.2)
    assert np.all(np.abs(same.mean_error) < 0.07) and same.verdict() == "yes"
    assert off.mean_error == pytest.approx(0.3, abs=0.07) and off.verdict() == "no"
    assert wide.sd_ratio == pytest.approx(1.2, abs=0.06) and wide.verdict() == "no"
    assert off.ks == pytest.approx(0.119, abs=0.03)  # 2 Phi(0.15) - 1
    noisy = same._replace(mean_error=np.array([MEAN_TOLERANCE + 0.02, 0]))
    assert noisy.verdict() == "noise"
    assert SD_TOLERANCE < 0.2


def test_clock_tells_compiling_from_running():
    with measure() as idle:
        time.sleep(0.05)
    assert idle.compile == 0 and 0.05 <= idle.run < 1
    function = jax.jit(lambda x: (x @ x.T).sum() * 3.25)
    with measure() as first:
        function(np.ones((4, 5), np.float32)).block_until_ready()
    with measure() as second:
        function(np.ones((4, 5), np.float32)).block_until_ready()
    assert first.compile > 0.001 and second.compile < first.compile / 2


@pytest.mark.slow
def test_epoch_benchmark(capsys, monkeypatch):
    """It prints a ratio for each case, and each SGWORLD case makes all M steps of an epoch."""
    made = {}
    cases_of = epoch._cases
    monkeypatch.setattr(epoch, "_cases", lambda *args: made.setdefault("cases", cases_of(*args)))
    sizes = ["--num-data=101", "--dim=2", "--batch-size=20", "--rounds=2", "--chains=3"]
    assert main(["benchmark", "epoch", *sizes]) == 0
    text = capsys.readouterr().out
    assert "N=101, D=2" in text
    assert all(label in text for label in made["cases"])
    for label, function in made["cases"].items():
        result = function()
        if "BlackJAX" in label:
            assert result.shape == (2,)
            continue
        if label.startswith("SGWORLD(model)"):
            rows = int(label.split("B=")[1].split(",")[0])
            chains = int(label.split("chains: ")[1].split(",")[0])
            assert np.ravel(result.step).tolist() == [-(-101 // rows)] * chains
            continue
        state, info = result
        steps = {"B=20": 6, "B=2": 51, "B=19": 6}[label.split(", ")[2]]
        assert np.all(np.asarray(info.finite_steps) == steps), label
        assert not np.any(info.diverging)
        assert state.position.shape == ((3, 2) if "vmap" in label else (2,))
