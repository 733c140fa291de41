"""The benchmark of networks: its problems, references and scores, and runs on tiny networks."""

import jax
import numpy as np
import pytest

from sgworld_benchmarks import networks
from sgworld_benchmarks.networks import epochs, problems, references
from sgworld_benchmarks.networks.nuts import NutsChain
from sgworld_benchmarks.networks.problems import PROBLEMS, curve
from sgworld_benchmarks.networks.references import Length, Reference
from sgworld_benchmarks.networks.runs import predictions, run_network
from sgworld_benchmarks.networks.scores import score
from sgworld_mcmc import SGLD
from sgworld_mcmc.cli import BENCHMARKS, main


@pytest.mark.parametrize("name", PROBLEMS)
def test_problems_have_rows_to_train_and_to_test(name):
    network = PROBLEMS[name]()
    assert len(network.x) == len(network.y) >= 200
    assert len(network.inside) == len(network.test_x) and network.inside.mean() > 0.5
    assert not network.is_classifier or len(network.test_y) == len(network.test_x)


@pytest.mark.slow
@pytest.mark.parametrize("name", PROBLEMS)
def test_stored_references_belong_to_the_problems_and_are_accurate(name):
    network = PROBLEMS[name]()
    reference = references.load(name, network)  # raises for another model or other data
    assert len(reference.mean) == len(network.test_x) and np.all(reference.se >= 0)
    assert len(reference.about["seeds"]) == len(reference.about["energy"]) > 1
    assert sum(reference.about["divergences"]) == 0
    if network.is_classifier:
        assert np.allclose(reference.mean.sum(-1), 1, atol=1e-4)
    # The reference's own error is at most half of what the benchmark allows.
    own = score(network, reference.mean, reference.sd, reference)
    assert own.within()
    if network.is_classifier:
        assert own.tv == 0 and own.tv_error < 0.0075
    else:
        assert own.mean_error == 0 and own.mean_error_of_reference < 0.075


def test_references_are_small():
    files = list(references.FOLDER.glob("*.npz"))
    assert {file.stem for file in files} == set(PROBLEMS)
    assert sum(file.stat().st_size for file in files) < 300_000


def small_reference(mean):
    mean = np.asarray(mean, float)
    return Reference(mean, np.full(mean.shape, 0.5), np.full(mean.shape, 0.01), {"energy": [1.0]})


def test_scores_of_classes():
    network = PROBLEMS["digits"]()._replace(test_y=np.array([0, 1]))
    reference = small_reference([[0.9, 0.1], [0.2, 0.8]])
    found = score(network, np.array([[0.4, 0.6], [0.2, 0.8]]), None, reference)
    assert np.isclose(found.tv, 0.25) and found.agreement == 0.5
    assert np.isclose(found.log_likelihood, np.log(0.4 / 0.9) / 2)
    assert not found.within()


def test_scores_of_a_regression_tell_inside_from_outside():
    network = curve(3, 20, 0.1)._replace(inside=np.array([True, True, False]))
    reference = small_reference([0.0, 1.0, 2.0])
    found = score(network, np.array([0.1, 1.0, 3.0]), np.array([0.5, 0.6, 1.0]), reference)
    assert np.isclose(found.mean_error, 0.1) and np.isclose(found.sd_ratio, 1.1)
    assert found.outside == (2.0, 2.0)
    assert not score(network, np.array([0.2, 1.0, 2.0]), reference.sd, reference).within()


def test_a_reference_is_the_average_of_its_chains():
    chains = [
        NutsChain(np.array([m]), np.array([m**2 + 1]), m, 7, 0, 1.0, 1.0) for m in (-1.0, 3.0)
    ]
    found = references.pool(chains, {"title": "two"})
    assert found.mean == [1.0] and np.isclose(found.sd[0], np.sqrt(5)) and found.energy == 1.0
    assert np.isclose(found.se[0], 2.0)  # sd of the two means, 2 sqrt(2), over sqrt(2)
    assert found.about["leapfrogs"] == [7, 7] and found.about["title"] == "two"


@pytest.mark.slow
def test_a_reference_of_other_data_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(references, "FOLDER", tmp_path)
    with pytest.raises(ValueError, match=r"no stored reference of 'digits'; run with --reference"):
        references.load("digits", PROBLEMS["digits"]())
    file = references.Path(references.__file__).with_name("references") / "curve-20.npz"
    with pytest.raises(ValueError, match="other data: make it again with --reference curve-20"):
        references.load("curve-20", curve(20, 201, None), file)
    with pytest.raises(ValueError, match="at least 2 chains"):
        references.make("curve-20", Length(1, 10, 10))


def test_budgets_are_checked_before_the_runs():
    for wrong in ((), (3,), (10, 15), (20, 30)):
        with pytest.raises(ValueError, match="`budgets` must be even numbers"):
            epochs.run(curve(3, 20, 0.1), None, jax.random.key(0), budgets=wrong)


def test_the_command_line_knows_the_benchmark(capsys):
    assert "networks" in BENCHMARKS
    with pytest.raises(SystemExit):
        main(["benchmark", "networks", "--help"])
    assert "--against-epochs" in capsys.readouterr().out


@pytest.mark.slow
def test_a_run_agrees_with_a_reference_made_on_the_spot(tmp_path, monkeypatch, capsys):
    network = curve(4, 40, 0.3)
    monkeypatch.setitem(networks.PROBLEMS, "tiny", lambda: network)
    made = references.make("tiny", Length(6, 300, 300), path=tmp_path / "tiny.npz")
    assert capsys.readouterr().out.count("tiny, seed") == 6
    stored = references.load("tiny", network, tmp_path / "tiny.npz")
    assert np.allclose(stored.mean, made.mean, atol=1e-6)
    assert np.allclose(stored.sd, made.sd, rtol=1e-2)
    outcome = run_network(network, stored, jax.random.key(0), dynamics="kinetic", num_chains=8)
    assert outcome.error is None and outcome.score.within(), str(outcome)
    assert abs(outcome.excess) < 0.1 and outcome.r_hat < 1.1
    assert outcome.epochs > 1000 and "within the limits" in str(outcome)
    # At many times the temperature the spread is wrong, and the score says so.
    hot = run_network(
        network, stored, jax.random.key(1), dynamics="kinetic", temperature=4.0, num_samples=500
    )
    assert hot.score.sd_ratio > 1.3 and hot.excess > 0.5 and not hot.score.within()


@pytest.mark.slow
def test_an_error_of_the_sampler_is_a_result(capsys):
    network = curve(3, 20, 0.1)
    outcome = run_network(network, None, jax.random.key(0), "SGLD", SGLD, batch_size=50)
    assert outcome.score is None and "50" in outcome.error and outcome.error in str(outcome)
    assert "Traceback" in capsys.readouterr().err


@pytest.mark.slow
def test_predictions_of_chains_that_disagree():
    network = curve(1, 20, 0.1)
    ones = np.ones((2, 10, 1), np.float32)
    draws = {"w1": 0 * ones[..., None], "b1": 0 * ones, "w2": ones[..., None], "b2": ones.copy()}
    draws["b2"][1] += 2
    draws["b2"] += 0.01 * np.random.default_rng(0).normal(size=ones.shape).astype(np.float32)
    found = predictions(network, draws)
    assert np.allclose(found.mean, 2, atol=0.02) and np.allclose(found.sd, 1, atol=0.02)
    assert found.r_hat.min() > 10
    expected = np.mean([network.energy({s: x[c, 0] for s, x in draws.items()}) for c in (0, 1)])
    assert np.isclose(found.energy, expected, rtol=0.05)


@pytest.mark.slow
def test_the_symmetric_order_is_better_than_replacement_on_a_tiny_network():
    whole = problems.digits(hidden=(4,))
    network = whole._replace(x=whole.x[:200], y=whole.y[:200], test_x=whole.test_x[:50])
    chains = references.NutsChains(network, 300, 300)
    reference = references.pool([chains.run(seed) for seed in (1, 2, 3)], {})
    table = epochs.run(
        network,
        reference,
        jax.random.key(0),
        budgets=(100, 1600),
        step_size=0.01,
        batch_size=40,
    )
    assert table.tv.shape == table.excess.shape == (5, 2)
    assert np.all(table.tv[:, 1] < table.tv[:, 0] + 0.02)
    replaced, symmetric = table.excess[2, 1], table.excess[4, 1]
    assert abs(symmetric) < 0.5 * replaced
    assert np.all(table.tv[2:, 1] < 0.6 * table.tv[:2, 1].min())  # a velocity gains much more
    assert "UBU, symmetric" in table.text()
