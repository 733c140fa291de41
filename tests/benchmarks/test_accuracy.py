"""The accuracy benchmark: it can fail, its references are right, and the command runs."""

import json
import warnings

import jax
import numpy as np
import pytest

from sgworld_benchmarks import accuracy
from sgworld_benchmarks.accuracy import references
from sgworld_benchmarks.accuracy.problem import Moments, Posterior, describe
from sgworld_benchmarks.accuracy.problems import PROBLEMS, build
from sgworld_benchmarks.accuracy.references import (
    MAXIMUM_K_HAT,
    MAXIMUM_RHAT,
    MINIMUM_ESS,
    check_fingerprint,
    moments_from,
    reference,
    stored,
)
from sgworld_benchmarks.accuracy.run import package_warnings, run_problem
from sgworld_benchmarks.accuracy.score import moments_of, score
from sgworld_mcmc.cli import main

pytestmark = pytest.mark.slow

# One of some 60 comparisons crosses 4.5 standard errors by chance once in 2000 times.
SIGMAS = 4.5


def normal_truth(*names):
    zero = np.zeros(len(names))
    return Moments(names, zero + 3, zero + 2, zero, zero, zero + np.inf)


def draws(shift=0.0, stretch=1.0, shape=(4, 1000, 2)):
    """Independent draws of N(3, 2^2), moved by ``shift`` sd and stretched."""
    return 3 + 2 * (shift + stretch * np.random.default_rng(0).normal(size=shape))


@pytest.mark.parametrize(
    ("shift", "stretch", "within"),
    [(0, 1, True), (0.2, 1, False), (-0.2, 1, False), (0, 1.15, False), (0, 0.87, False)],
)
def test_score_flags_shift_and_width(shift, stretch, within):
    """Standard errors are 0.016 of the mean and 0.011 of the ratio: no verdict is by chance."""
    found = score({"b": draws(shift, stretch)}, normal_truth("b[0]", "b[1]"))
    assert found.within() is within
    assert found.mean_error == pytest.approx(shift, abs=0.07)
    assert found.sd_ratio == pytest.approx(stretch, abs=0.05)
    assert found.mean_error_se == pytest.approx(stretch / np.sqrt(4000), rel=0.15)
    assert found.sd_ratio_se == pytest.approx(stretch / np.sqrt(8000), rel=0.2)
    assert np.all((found.ess > 2500) & (found.ess <= 4000))


def test_score_asks_every_scalar():
    samples = draws()
    samples[..., 1] += 0.4
    assert not score({"b": samples}, normal_truth("b[0]", "b[1]")).within()
    assert score({"b": samples}, normal_truth("b[0]")).within()


def test_score_of_hopeless_draws():
    samples = draws()
    samples[2, 5, 0] = np.nan
    assert not score({"b": samples}, normal_truth("b[0]", "b[1]")).within()
    stuck = score({"b": np.full((4, 1000, 2), 3.0)}, normal_truth("b[0]", "b[1]"))
    assert not stuck.within() and np.all(stuck.ess == 0)
    with pytest.raises(KeyError, match="c"):
        score({"b": samples}, normal_truth("c"))


def test_constants_are_not_compared():
    """The diagonal of a correlation matrix, up to rounding."""
    samples = draws(shape=(4, 100, 2))
    samples[..., 1] = 1 + 1e-8 * np.random.default_rng(1).normal(size=(4, 100))
    truth = moments_of({"b": samples})
    assert truth.sd[0] > 0 and truth.sd[1] == 0
    assert score({"b": samples + 1e-3}, truth).names == ("b[0]",)


def test_stored_references_agree_with_exact_posteriors():
    """The machinery that makes references, on problems whose moments are known."""
    checked = set()
    for name, entry in stored().items():
        exact = build(name).exact
        if exact is None:
            continue
        found = moments_from(entry)
        assert found.names == exact.names
        mean_z = (found.mean - exact.mean) / found.mean_se
        sd_z = (found.sd - exact.sd) / found.sd_se
        assert np.abs(mean_z).max() < SIGMAS, (name, mean_z)
        assert np.abs(sd_z).max() < SIGMAS, (name, sd_z)
        checked |= {name}
    assert {"beta_bernoulli", "gaussian_mean", "flat_prior", "dirichlet"} <= checked


def test_stored_references_are_long_enough():
    """Every problem has a truth whose own error is far below the tolerances."""
    entries = stored()
    assert len(PROBLEMS) >= 16 and set(entries) <= set(PROBLEMS)
    for name in set(PROBLEMS) - set(entries):
        assert build(name).exact is not None, name
    for name, entry in entries.items():
        moments = moments_from(entry)
        free = moments.sd > 0
        assert free.any() and np.isfinite(moments.mean).all(), name
        assert moments.ess[free].min() >= MINIMUM_ESS, name
        if entry["method"] == "NUTS":
            assert max(entry["rhat"]) <= MAXIMUM_RHAT and entry["divergences"] == 0, name
        else:
            assert entry["k_hat"] <= MAXIMUM_K_HAT, name
        assert np.max(moments.mean_se[free] / moments.sd[free]) < 0.02, name
        assert np.max(moments.sd_se[free] / moments.sd[free]) < 0.03, name


@pytest.mark.parametrize("name", ["poisson", "funnel", "calendar_poisson"])
def test_stored_run_belongs_to_the_model(name):
    problem = build(name)
    found = reference(name, problem)
    sites = {scalar.split("[")[0] for scalar in found.names}
    assert sites == set(problem.sites)
    entry, changed = (
        stored()[name],
        problem._replace(data=(problem.data[0] + 0.01, *problem.data[1:])),
    )
    with pytest.raises(ValueError, match="--regenerate"):
        check_fingerprint(name, entry, describe(changed).fingerprint)


def test_calendar_year_is_ill_conditioned():
    problem = build("calendar_year")
    X = problem.data[0]
    condition = np.linalg.cond(X.T @ X)
    assert 1e5 < condition < 1e12 and np.all(X == X.astype(np.float32))


@pytest.mark.parametrize(
    ("size", "shift", "divergences", "stored"),
    [(3000, 0, 0, True), (500, 0, 0, False), (3000, 1, 0, False), (3000, 0, 1, False)],
)
def test_bad_runs_are_refused(size, shift, divergences, stored, tmp_path, monkeypatch):
    """Too few draws, a chain elsewhere, a divergence: nothing is written."""
    path, problem = tmp_path / "references.json", build("gaussian_mean")
    samples = {"mu": draws(shape=(4, size)) + shift * np.arange(4)[:, None]}
    monkeypatch.setattr(references, "_nuts", lambda *_: (samples, divergences))
    monkeypatch.setattr(references, "describe", lambda _: Posterior(1, -3.25))
    if stored:
        entry = references.regenerate("gaussian_mean", problem, 7, path)
        assert references.stored(path) == {"gaussian_mean": entry}
        assert entry["seed"] == 7 and entry["fingerprint"] == -3.25
        assert entry["mean"] == pytest.approx([3], abs=0.08)
        return
    with pytest.raises(ValueError, match="is no reference"):
        references.regenerate("gaussian_mean", problem, 7, path)
    assert not path.exists()


class Fake:
    """A sampler whose draws are off by ``shift`` posterior sd."""

    def __init__(self, shift, act=lambda: None):
        self.shift, self.act = shift, act

    def __call__(self, model):
        return self

    def run(self, rng_key, *data):
        self.act()
        exact = build("gaussian_mean").exact
        z = np.asarray(jax.random.normal(rng_key, (4, 1000)))
        self.draws = exact.mean[0] + exact.sd[0] * (self.shift + z)

    def get_samples(self, group_by_chain):
        assert group_by_chain
        return {"mu": self.draws}


def warn_as(module):
    """A function of a module of this name that warns on behalf of its caller."""
    namespace = {"__name__": module, "warnings": warnings}
    exec("def act(): warnings.warn('far from the mode', UserWarning, stacklevel=2)", namespace)
    return namespace["act"]


def fail():
    raise ValueError("no mode")


@pytest.mark.parametrize(
    ("sampler", "within", "silent"),
    [
        (Fake(0.0), True, False),
        (Fake(0.3), False, True),
        (Fake(0.3, warn_as("sgworld_mcmc.infer.other")), False, False),
        (Fake(0.0, fail), False, False),
    ],
)
def test_misses_without_a_word(sampler, within, silent):
    problem = build("gaussian_mean")
    outcome = run_problem("gaussian_mean", problem, problem.exact, 1, jax.random.key(0), sampler)
    assert (outcome.within, outcome.silent_miss) == (within, silent)
    assert f"{int(within)} of 1 within" in accuracy.summary([outcome])
    assert ("gaussian_mean" in accuracy.summary([outcome])) is silent
    assert "gaussian_mean" in accuracy.table([outcome])
    assert json.loads(json.dumps(outcome.to_dict()))["within"] is within


def test_only_the_packages_own_warnings_count():
    with pytest.warns(UserWarning, match="far from"), package_warnings() as messages:
        warn_as("numpyro.infer")()
    assert messages == []
    with package_warnings() as messages:
        warn_as("sgworld_mcmc.infer.other")()
        warn_as("sgworld_mcmc.infer.other")()
    assert messages == ["UserWarning: far from the mode"]


def test_command(tmp_path, capsys):
    """One cheap model, from the command line to the file."""
    arguments = ["--models", "gaussian_mean", "--seed", "3", "--out", str(tmp_path / "new")]
    code = main(["benchmark", "accuracy", *arguments])
    (entry,) = json.loads((tmp_path / "new" / "accuracy.json").read_text())
    text = capsys.readouterr().out
    assert code == int(entry["silent_miss"])
    assert entry["name"] == "gaussian_mean" and entry["size"] == 8 and entry["dimension"] == 1
    # Four Monte Carlo errors and a bias of 0.1 sd, 10 %: whatever the automatic settings are.
    assert abs(entry["score"]["mean_error"][0]) < 0.1 + 4 * entry["score"]["mean_error_se"][0]
    assert abs(entry["score"]["sd_ratio"][0] - 1) < 0.1 + 4 * entry["score"]["sd_ratio_se"][0]
    assert "gaussian_mean" in text and "of 1 within" in text


def test_unknown_model(capsys):
    with pytest.raises(SystemExit):
        main(["benchmark", "accuracy", "--models", "linear", "nothing"])
    assert "There is no model 'nothing'" in capsys.readouterr().err


def test_seeds_are_tallied_by_model(monkeypatch, capsys):
    """Two seeds whose draws are off without a warning, one with, and one that is warned in vain."""
    shifts = {
        0: (0.5, ""),
        1: (0.14, ""),
        2: (0.5, "a miss: of which the package knows"),
        3: (0, "x"),
    }

    def fake(models, seed):
        shift, text = shifts[seed]
        key, problem = jax.random.key(seed), build(models[0])
        found = run_problem(models[0], problem, problem.exact, 1, key, Fake(shift))
        return [found._replace(warnings=(f"TuningWarning: {text}",) if text else ())]

    monkeypatch.setattr(accuracy, "run", fake)
    assert main(["benchmark", "accuracy", "--models", "gaussian_mean", "--seeds", "4"]) == 1
    lines = capsys.readouterr().out.splitlines()
    assert lines[-2] == (
        "4 runs: 3 missed, 2 of them by more than Monte Carlo error and 2 without a warning; 1 "
        "within were warned; 0 raised an error"
    )
    # Clopper and Pearson's intervals: 1 of 4 is 0.63 to 80.6 %, 2 of 4 6.8 to 93.2 %.
    assert lines[-1] == (
        "in percent of the runs: missed 75.0 (19.4 to 99.4), missed without a warning 50.0 (6.8 "
        "to 93.2), warned without need 25.0 (0.6 to 80.6)"
    )
    (row,) = [line for line in lines if line.startswith("gaussian_mean") and "(1)" in line]
    assert row.split()[:7] == ["gaussian_mean", "4", "3", "2", "2", "1", "0"]
    assert "a miss: of which the package knows (1)" in row and "x (1)" in row
    assert sum(" NO " in line for line in lines) == 3
