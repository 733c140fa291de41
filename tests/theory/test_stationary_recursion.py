"""The exact recursion against enumeration and simulation, and the benchmark built on it."""

import argparse
from decimal import Decimal, localcontext
from itertools import permutations

import numpy as np
import pytest
from kinetic import UBU, FrictionEuler

from sgworld_benchmarks import stationary
from sgworld_mcmc.integrators.averaged import Averaged
from sgworld_mcmc.integrators.euler import Euler
from sgworld_mcmc.integrators.momentum import Momentum
from sgworld_mcmc.theory.affine_recursion import stationary_variance
from sgworld_mcmc.theory.regression_terms import batch_statistics, whitened_regression
from sgworld_mcmc.theory.stationary_recursion import (
    gaussian_kl,
    stationary_moments,
    stationary_path,
)
from sgworld_mcmc.theory.variance_bias import order_mean_shift, relative_variance_error

TIMES = (0.05, 0.1, 0.3, 1.0, 2.0, 5.0)


@pytest.fixture(scope="module")
def small_problem():
    """Seven rows with a prior, for ragged batches; correlated and not centred at the mode."""
    rng = np.random.default_rng(11)
    features = rng.normal(size=(7, 2)) @ np.array([[0.4, 0.2], [0.0, 0.3]])
    response = features @ np.array([1.0, -2.0]) + rng.normal(size=7)
    rows = features[:, :, None] * features[:, None, :], features * response[:, None]
    prior = np.diag([0.3, 0.6]), np.array([0.2, -0.1])
    parts = np.array_split(np.arange(7), 3)
    batches = [
        p + 3 * np.array([r[i].sum(0) for i in parts]) for r, p in zip(rows, prior, strict=True)
    ]
    return rows, prior, batches


def _simulate(draw_terms, step_size, noise, temperature, epochs, chains=30_000):
    """Plain simulation of many chains; ``draw_terms(rng)`` yields one epoch's (H, r) by step."""
    rng = np.random.default_rng(3)
    x, last = np.zeros((chains, 2)), rng.normal(size=(chains, 2))
    scale = np.sqrt(2 * step_size * temperature)
    for _ in range(epochs):
        for matrix, offset in draw_terms(rng, chains):
            fresh = rng.normal(size=(chains, 2))
            kick = (last + fresh) / 2 if noise == "averaged" else fresh
            gradient = np.einsum("...ij,...j->...i", matrix, x) - offset
            x = x - step_size * gradient + scale * kick
            last = fresh
    return x


def _orders(order, problem):
    rows, prior, batches = problem

    def pick(index):
        return batches[0][index], batches[1][index]

    def dealt(rng, chains, size=None):
        permuted = rng.permuted(np.tile(np.arange(7), (chains, 1)), axis=1)
        slots = np.array_split(permuted, 3, axis=1) if size is None else [permuted[:, :size]]
        factor = 3 if size is None else 7 / size
        for slot in slots:
            yield tuple(p + factor * r[slot].sum(1) for r, p in zip(rows, prior, strict=True))

    def epoch(rng, chains):
        if order == "replacement":
            return [pick(rng.integers(0, 3, chains)) for _ in range(3)]
        if order == "fresh batches":
            return [terms for _ in range(3) for terms in dealt(rng, chains, 3)]
        if order == "examples":  # dealt to batches of 3, 2 and 2 rows, visited in random order
            places = rng.permuted(np.tile(np.arange(3), (chains, 1)), axis=1)
            terms = [np.stack(part, 1) for part in zip(*dealt(rng, chains), strict=True)]
            return [tuple(t[np.arange(chains), k] for t in terms) for k in places.T]
        if order == "once":
            return [pick(b) for b in range(3)]
        index = rng.permuted(np.tile(np.arange(3), (chains, 1)), axis=1).T
        sweep = [pick(b) for b in index]
        return sweep + sweep[::-1] if order == "symmetric" else sweep

    return epoch


@pytest.mark.parametrize("noise", ["independent", "averaged"])
@pytest.mark.parametrize(
    "order", ["replacement", "fresh batches", "batches", "examples", "symmetric", "once"]
)
def test_recursion_agrees_with_simulated_chains(small_problem, order, noise):
    rows, prior, batches = small_problem
    step_size, temperature = 0.25, 0.7
    settings = {"noise": noise, "temperature": temperature, "num_orders": 4000}
    if order in ("examples", "fresh batches"):
        settings |= {"num_batches": 3, "prior_matrix": prior[0], "prior_offset": prior[1]}
    terms = rows if order in ("examples", "fresh batches") else batches
    name = "replacement" if order == "fresh batches" else order
    exact = stationary_moments(*terms, step_size, order=name, **settings)
    x = _simulate(_orders(order, small_problem), step_size, noise, temperature, epochs=15)
    # Standard errors of the chains' moments, from the spread of each product over the chains.
    deviation = x - exact.mean
    products = np.einsum("ni,nj->nij", deviation, deviation)
    for value, expected in ((x, exact.mean), (products, exact.covariance)):
        error = value.std(0) / np.sqrt(len(x))
        assert np.all(np.abs(value.mean(0) - expected) < 4.5 * error)
    assert np.all(products.std(0) / np.sqrt(len(x)) < 0.02 * np.trace(exact.covariance))


def _enumerated_moments(matrices, offsets, step_size, symmetric, noise):
    """Moments from all orders, the state (x, last noise) carried along explicitly."""
    m, dim = offsets.shape
    eye, zero = np.eye(dim), np.zeros((dim, dim))
    s = np.sqrt(2 * step_size)
    averages = [0.0, 0.0, 0.0, 0.0]
    orders = list(permutations(range(m)))
    for order in orders:
        a, c, q = np.eye(2 * dim), np.zeros(2 * dim), np.zeros((2 * dim, 2 * dim))
        for b in order + order[::-1] if symmetric else order:
            old, new = (s / 2, s / 2) if noise == "averaged" else (0.0, s)
            step = np.block([[eye - step_size * matrices[b], old * eye], [zero, zero]])
            inject = np.vstack([new * eye, eye])
            a, q = step @ a, step @ q @ step.T + inject @ inject.T
            c = step @ c + step_size * np.concatenate([offsets[b], np.zeros(dim)])
        terms = (np.kron(a, a), np.kron(a, c[:, None]) + np.kron(c[:, None], a), a, c)
        averages[0] += terms[0] / len(orders)
        averages[1] += terms[1] / len(orders)
        averages[2] += terms[2] / len(orders)
        averages[3] += np.concatenate([c, (np.outer(c, c) + q).ravel()]) / len(orders)
    aa, ac, a, source = averages
    c, second = source[: 2 * dim], source[2 * dim :]
    mean = np.linalg.solve(np.eye(2 * dim) - a, c)
    moment = np.linalg.solve(np.eye(4 * dim**2) - aa, ac @ mean + second)
    covariance = moment.reshape(2 * dim, 2 * dim) - np.outer(mean, mean)
    return mean[:dim], covariance[:dim, :dim]


@pytest.mark.parametrize("noise", ["independent", "averaged"])
@pytest.mark.parametrize("order", ["batches", "symmetric"])
@pytest.mark.parametrize("step_size", [0.01, 0.2])
def test_sampled_orders_agree_with_all_orders(order, noise, step_size):
    rng = np.random.default_rng(2)
    root = rng.normal(size=(5, 2, 2))
    matrices = np.eye(2) + 0.2 * (root + root.swapaxes(1, 2))
    offsets = rng.normal(size=(5, 2)) + 0.3
    mean, covariance = _enumerated_moments(
        matrices, offsets, step_size, order == "symmetric", noise
    )
    found = stationary_moments(
        matrices, offsets, step_size, order=order, noise=noise, num_orders=6000
    )
    _, mean_error = found.estimate(lambda m, s: m)
    _, covariance_error = found.estimate(lambda m, s: s)
    # Ten jackknife groups: Student's t with 9 degrees of freedom, 6 errors is p = 2e-4.
    assert np.all(np.abs(found.mean - mean) < 6 * mean_error + 1e-12)
    assert np.all(np.abs(found.covariance - covariance) < 6 * covariance_error + 1e-12)
    assert np.max(covariance_error) < 2e-3 * np.trace(covariance)


@pytest.mark.parametrize("integrator", [Euler(), Averaged()], ids=lambda x: x.name)
@pytest.mark.parametrize(
    "order", ["replacement", "fresh batches", "batches", "examples", "symmetric", "once"]
)
def test_integrator_gives_what_its_noise_gives(small_problem, integrator, order):
    """Averaged noise as a state of two numbers is the Markov chain of one number."""
    rows, prior, batches = small_problem
    settings, terms = {"temperature": 0.7, "num_orders": 40}, batches
    if order in ("examples", "fresh batches"):
        settings |= {"num_batches": 3, "prior_matrix": prior[0], "prior_offset": prior[1]}
        terms = rows
    settings["order"] = "replacement" if order == "fresh batches" else order
    settings["draws"] = "all" if order in ("batches", "examples") else "epoch"
    by_noise = stationary_moments(*terms, 0.25, noise=integrator.name, **settings)
    found = stationary_moments(*terms, 0.25, integrator=integrator, **settings)
    np.testing.assert_allclose(found.mean, by_noise.mean, rtol=1e-9)
    np.testing.assert_allclose(found.covariance, by_noise.covariance, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("integrator", [FrictionEuler(1.0), UBU(2.0)], ids=lambda x: x.name)
@pytest.mark.parametrize("order", ["replacement", "batches", "symmetric"])
def test_kinetic_moments_are_those_of_the_modes(small_problem, integrator, order):
    """One curvature, no noise of it: every direction is a mode of its own."""
    offsets = small_problem[2][1] - small_problem[2][1].mean(0)
    matrices = np.broadcast_to(1.5 * np.eye(2), (3, 2, 2))
    found = stationary_moments(matrices, offsets, 0.3, order=order, integrator=integrator)
    variance = stationary_variance(
        integrator, 0.3, 3, np.mean(offsets**2, axis=0), law=order, curvature=1.5
    )
    np.testing.assert_allclose(np.diag(found.covariance), variance, rtol=1e-9)


def test_kinetic_recursion_agrees_with_simulated_chains(small_problem):
    integrator, h, chains = FrictionEuler(1.0), 0.4, 30_000
    rng, terms = np.random.default_rng(4), _orders("batches", small_problem)
    exact = stationary_moments(*small_problem[2], h, integrator=integrator, num_orders=4000)
    x, v, left = np.zeros((chains, 2)), rng.normal(size=(chains, 2)), np.exp(-h)
    for _ in range(25):
        for matrix, offset in terms(rng, chains):
            kick = np.sqrt(1 - left**2) * rng.normal(size=(chains, 2))
            v = left * v - h * (np.einsum("nij,nj->ni", matrix, x) - offset) + kick
            x = x + h * v
    deviation = x - exact.mean
    products = np.einsum("ni,nj->nij", deviation, deviation)
    for value, expected in ((x, exact.mean), (products, exact.covariance)):
        error = value.std(0) / np.sqrt(chains)
        assert np.all(np.abs(value.mean(0) - expected) < 4.5 * error)


class _Mixing(Euler):
    def affine(self, step_size, hessian, temperature=1.0):
        step = super().affine(step_size, hessian, temperature)
        return step._replace(kick=step.kick * np.arange(1, len(hessian) + 1))


def test_integrators_that_the_recursion_cannot_serve_are_refused(small_problem):
    with pytest.raises(ValueError, match="all coordinates alike"):
        stationary_moments(*small_problem[2], 0.1, integrator=_Mixing())
    with pytest.raises(ValueError, match="although there is no gradient"):
        decaying = Momentum(momentum=0.5, weight_decay=0.1)
        stationary_moments(*small_problem[2], 0.1, integrator=decaying)
    stationary_moments(*small_problem[2], 0.1, integrator=Momentum(momentum=0.5), num_orders=20)


def test_temperature_zero_leaves_the_batch_noise():
    h, offsets = 0.3, np.array([[1.0], [-2.0], [1.0]])
    found = stationary_moments(np.ones((3, 1, 1)), offsets, h, order="replacement", temperature=0)
    assert found.covariance[0, 0] == pytest.approx(h * 2.0 / (2 - h))


def test_moments_move_with_the_coordinates(small_problem):
    batches = small_problem[2]
    shift = np.array([5.0, -3.0])
    moved = batches[0], batches[1] + batches[0] @ shift
    for order in ("replacement", "batches", "once"):
        here, there = (stationary_moments(*b, 0.1, order=order) for b in (batches, moved))
        np.testing.assert_allclose(there.mean, here.mean + shift, rtol=1e-10)
        np.testing.assert_allclose(there.covariance, here.covariance, rtol=1e-9)


@pytest.fixture(scope="module")
def regression():
    rows, prior = whitened_regression(np.random.default_rng(0), 1000, 3)
    parts = np.array_split(np.arange(1000), 100)
    batches = [100 * np.array([r[i].sum(0) for i in parts]) for r in rows]
    return rows, prior, batches


@pytest.mark.parametrize("noise", ["independent", "averaged"])
@pytest.mark.parametrize(
    "scheme", ["replacement", "batches", "examples", "symmetric", "all_phases"]
)
def test_variance_error_follows_the_closed_form(regression, scheme, noise):
    rows, _, batches = regression
    fresh = scheme in ("replacement", "examples")
    c0, k, _ = batch_statistics(*(rows if fresh else batches), 10 * fresh)
    steps = np.array(TIMES) / 100
    path = stationary_path(
        *rows,
        steps,
        order="batches" if scheme == "all_phases" else scheme,
        draws="all" if scheme == "all_phases" else "epoch",
        noise=noise,
        num_batches=100,
        num_orders=1000,
    )
    estimates = [m.estimate(lambda mean, cov: np.trace(cov) / 3 - 1) for m in path]
    error, sampling = (np.array(part) for part in zip(*estimates, strict=True))
    predicted = relative_variance_error(steps, 100, c0, k, scheme=scheme, noise=noise)
    assert np.all(
        np.abs(error - predicted) < 0.05 * np.abs(predicted) + 2 * steps**2 + 4 * sampling
    )
    assert np.all(sampling < 0.01 * np.abs(predicted) + 3 * steps**2)


def test_mean_shift_follows_the_closed_form(regression):
    rows, _, batches = regression
    for order, terms, size in (("batches", batches, 0), ("examples", rows, 10)):
        coupling = batch_statistics(*terms, size).coupling
        for time in (0.1, 1.0):
            found = stationary_moments(
                *rows, time / 100, order=order, num_batches=100, num_orders=1000
            )
            _, sampling = found.estimate(lambda mean, cov: mean)
            predicted = order_mean_shift(time / 100, 100, coupling)
            size_of = np.linalg.norm(predicted)
            assert np.all(np.abs(found.mean - predicted) < 0.05 * size_of + 5 * sampling)
            assert np.max(sampling) < 0.2 * size_of


@pytest.mark.parametrize("seed", [0, 1])
def test_without_replacement_is_a_thousand_times_closer(seed):
    orders = ("replacement", "batches", "examples")
    result = stationary.run(times=(0.1, 0.3), orders=orders, seed=seed, num_orders=400)
    worst = result.kl[0] / (result.kl + 3 * result.kl_error)
    assert np.all(worst[1:, 0] >= 2500)
    assert np.all(worst[1:, 1] >= 1000)
    # The sampling error over orders must not decide.
    assert np.all(result.kl_error[1:] < 0.1 * result.kl[1:])


def test_predicted_kl_and_slopes():
    orders = ("replacement", "batches", "symmetric")
    result = stationary.run(times=(0.03, 0.1, 0.3, 1.0), orders=orders, num_orders=400)
    np.testing.assert_allclose(result.kl, result.predicted_kl, rtol=0.12)
    slopes = result.slopes(high=0.1)
    assert slopes["replacement"] == pytest.approx(2, abs=0.1)
    assert slopes["batches"] == pytest.approx(2, abs=0.2)
    assert result.slopes(low=0.3)["batches"] > 4


def test_one_order_for_ever_is_as_far_off_as_sgld():
    result = stationary.run(times=(0.1, 0.3), orders=("replacement", "once"), num_once=30)
    deviation = np.abs(result.kl[1] - result.predicted_kl[1]) / result.kl_error[1]
    assert np.all(deviation < 4.5)
    assert np.all(result.ratio()[1] < 3)


def test_wide_prior_and_ragged_batches_keep_the_target():
    orders = ("replacement", "batches", "examples")
    result = stationary.run(
        203, 10, 2, times=(0.1, 1.0), orders=orders, prior_variance=9.0, num_orders=400
    )
    assert result.num_batches == 21
    np.testing.assert_allclose(result.variance_error, result.predicted_variance_error, rtol=0.25)


def test_kl_agrees_with_its_definition_in_high_precision():
    target = np.array([1.0, -2.0]), np.diag([4.0, 0.25])
    for size in (1e-9, 1e-5, 1e-3, 0.05, 2.0):
        mean, variances = target[0] + np.array([size, 0.0]), np.diag(target[1]) * [1 + size, 1]
        with localcontext() as context:
            context.prec = 50
            ratio = Decimal(variances[0]) / 4
            shift = Decimal(mean[0]) - 1
            exact = float((ratio - 1 - ratio.ln() + shift**2 / 4) / 2)
        found = gaussian_kl(mean, np.diag(variances), *target)
        assert found == pytest.approx(exact, rel=1e-6 if size < 1e-6 else 1e-10)
        # The same after a linear change of coordinates, where nothing is diagonal.
        turn = np.array([[1.0, 2.0], [-0.5, 1.5]])
        moved = gaussian_kl(
            turn @ mean,
            turn @ np.diag(variances) @ turn.T,
            turn @ target[0],
            turn @ target[1] @ turn.T,
        )
        assert moved == pytest.approx(exact, rel=max(1e-10, 1e-14 / size))


@pytest.mark.slow
def test_command_line_writes_table_and_picture(tmp_path, capsys):
    parser = argparse.ArgumentParser()
    stationary.add_arguments(parser)
    options = ["--num-data", "60", "--batch-size", "10", "--dim", "2", "--noise", "averaged"]
    options += ["--num-orders", "40"]
    assert stationary.run_cli(parser.parse_args([*options, "--out", str(tmp_path)])) == 0
    printed = capsys.readouterr().out
    assert "KL of SGLD" in printed and "averaged noise, M = 6" in printed
    lines = (tmp_path / "stationary.csv").read_text().splitlines()
    assert len(lines) == 1 + len(stationary.ORDERS) * len(stationary.TIMES)
    assert (tmp_path / "stationary.png").stat().st_size > 20_000


@pytest.mark.parametrize(
    ("settings", "word"),
    [
        ({"order": "sorted"}, "order"),
        ({"noise": "white"}, "noise"),
        ({"draws": "some"}, "draws"),
        ({"order": "examples"}, "num_batches"),
        ({"order": "once", "draws": "all"}, "draws"),
        ({"num_batches": 9}, "num_batches"),
        ({"prior_offset": np.zeros(2)}, "prior_offset"),
    ],
)
def test_errors_name_the_argument(small_problem, settings, word):
    with pytest.raises(ValueError, match=word):
        stationary_moments(*small_problem[2], 0.1, **settings)


def test_divergence_is_an_error(small_problem):
    with pytest.raises(ValueError, match="step_size 3"):
        stationary_moments(*small_problem[2], 3.0, order="replacement")
    with pytest.raises(ValueError, match="batch_size"):
        stationary.run(num_data=10, batch_size=11)
    with pytest.raises(ValueError, match="matrices"):
        stationary_moments(np.ones((2, 3)), np.ones((2, 3)), 0.1)
