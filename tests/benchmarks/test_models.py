"""The suite of models as people write them: verdicts, references and the command."""

import jax
import numpy as np
import pytest

from sgworld_benchmarks import models
from sgworld_benchmarks.accuracy.problem import Moments, describe
from sgworld_benchmarks.accuracy.references import moments_from, stored
from sgworld_benchmarks.accuracy.run import Outcome
from sgworld_benchmarks.accuracy.score import Score
from sgworld_benchmarks.models.problems import FAMILIES, MODELS, build
from sgworld_benchmarks.models.table import line, summary, verdict
from sgworld_mcmc.cli import main

pytestmark = pytest.mark.slow


def outcome(mean_error=None, warnings=(), error=None, num_batches=10):
    """The outcome of a run whose only mean is off by so many standard deviations."""
    found = None
    if mean_error is not None:
        one = np.ones(1)
        found = Score(("mu",), mean_error * one, 0.01 * one, one, 0.01 * one, 1000 * one)
    settings = {"num_batches": num_batches}
    return Outcome("globe", 9, 1, found, 1.0, 0.1, warnings, error, settings, {}, None)


def fail():
    """A builder whose model cannot be made."""
    raise RuntimeError("no data\nat all")


@pytest.mark.parametrize(
    ("given", "expected", "words"),
    [
        (outcome(0.02), "ok", "0.020"),
        (outcome(0.3), "MISS", "minibatches"),
        (outcome(np.nan, num_batches=1), "MISS", "all rows"),
        (outcome(0.3, ("TuningWarning: chains differ",)), "warned", "chains differ"),
        (outcome(), "ran", "minibatches"),
        (outcome(error="ValueError: first line\nsecond"), "did not start", "first line"),
    ],
)
def test_verdicts(given, expected, words):
    assert verdict(given) == expected
    assert words in line(given) and "\n" not in line(given) and "second" not in line(given)
    assert f"1 {expected}" in summary([given])
    named = expected in ("MISS", "did not start")
    assert (f"{expected}: globe" in summary([given])) is named


def test_names_are_unique_and_documented():
    """No family hides a model of another one."""
    assert len(MODELS) == sum(map(len, FAMILIES)) >= 45
    titles = [build(name).title for name in MODELS]
    assert len(set(titles)) == len(titles) and max(map(len, titles)) <= 36
    for name, builder in MODELS.items():
        assert builder.__doc__.endswith("."), name


def test_models_without_a_reference_say_why():
    for name in MODELS:
        problem = build(name)
        assert problem.sites or problem.note, name


def test_stored_references_belong_to_models():
    entries = stored(models.REFERENCES)
    assert set(entries) <= set(MODELS)
    for name, entry in entries.items():
        moments = moments_from(entry)
        sites = {scalar.split("[")[0] for scalar in moments.names}
        assert sites == set(build(name).sites), name
        assert moments.ess[moments.sd > 0].min() >= models.MINIMUM_ESS, name


@pytest.mark.parametrize("name", ["closed_over", "subsample", "dictionary"])
def test_fingerprints_of_unusual_arguments(name):
    """No arrays at all, a plate that NumPyro cannot evaluate, arrays in a dictionary."""
    assert describe(build(name)).dimension == 3
    assert build(name).size == {"closed_over": 0, "subsample": 2000, "dictionary": 250}[name]


def test_an_error_is_an_outcome():
    found = models.run_one("broken", fail, jax.random.key(0))
    assert verdict(found) == "did not start" and found.error.startswith("RuntimeError: no data")
    assert line(found).endswith("RuntimeError: no data")


def test_references_of_other_data_are_not_compared(monkeypatch, tmp_path):
    """The outcome says which reference is out of date."""
    path = tmp_path / "references.json"
    one = np.ones(1)
    moments = Moments(("p",), one, one, one, one, one)
    entry = {field: list(value) for field, value in moments._asdict().items()}
    monkeypatch.setattr(models, "stored", lambda path: {"globe": entry | {"fingerprint": -1.0}})
    found = models.run_one("globe", MODELS["globe"], jax.random.key(0), path)
    assert "made with another model or other data" in found.error


@pytest.mark.slow
def test_command(capsys):
    """A model that starts is compared or not; one that cannot be made does not end the command."""
    MODELS["broken"] = fail
    try:
        code = main(["benchmark", "models", "--only", "broken", "gaussian_regression"])
    finally:
        del MODELS["broken"]
    text = capsys.readouterr().out
    assert code == 0
    assert "RuntimeError: no data" in text and "2 models:" in text
    assert "gaussian_regression" in text and "did not start: broken" in text


def test_unknown_model(capsys):
    with pytest.raises(SystemExit):
        main(["benchmark", "models", "--only", "globe", "nothing"])
    assert "There is no model 'nothing'" in capsys.readouterr().err
