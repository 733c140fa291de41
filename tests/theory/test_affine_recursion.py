"""The affine recursion against enumerated orders, closed forms and the exact recursion."""

from itertools import permutations

import numpy as np
import pytest
from kinetic import UBU, FrictionEuler

from sgworld_mcmc.integrators.averaged import Averaged
from sgworld_mcmc.integrators.euler import Euler
from sgworld_mcmc.integrators.momentum import Momentum
from sgworld_mcmc.theory import affine_recursion as recursion
from sgworld_mcmc.theory import variance_bias as bias
from sgworld_mcmc.theory.affine_mode import mode_of
from sgworld_mcmc.theory.order_averages import LAWS
from sgworld_mcmc.theory.stationary_recursion import stationary_moments

OVERDAMPED = (Euler(), Averaged())
ALL = (*OVERDAMPED, Momentum(momentum=0.6), FrictionEuler(1.5), UBU(3.0))


def names(integrator):
    return integrator.name


def enumerated(integrator, h, deltas, offsets, law, curvature=1.0):
    """Mean and variance of the position at the draws, from all orders of the batches."""
    maps = [
        integrator.affine(h, np.array([[curvature + delta]]), temperature=0.7) for delta in deltas
    ]
    size = len(maps[0].advance)
    starts, draws = [], []
    for order in permutations(range(len(deltas))):
        visited = {"symmetric": order + order[::-1], "replacement": order[:1]}.get(law, order)
        a, c, q, path = np.eye(size), np.zeros(size), np.zeros((size, size)), []
        for b in visited:
            step = maps[b]
            a, q = step.advance @ a, step.advance @ q @ step.advance.T + step.kick @ step.kick.T
            c = step.advance @ c + step.push[:, 0] * offsets[b]
            path.append((np.kron(a, a), np.kron(a, c[:, None]) + np.kron(c[:, None], a), a, c, q))
        starts.append(path[-1])
        draws.append(path if law == "all_phases" else path[-1:])

    def push(terms, mean, moment):
        aa, ac, a, c, q = terms
        return a @ mean + c, aa @ moment + ac @ mean + (np.outer(c, c) + q).ravel()

    def stationary(orders):
        aa, ac, a, c, q = (np.mean([o[i] for o in orders], axis=0) for i in range(5))
        cc = np.mean([np.outer(o[3], o[3]) for o in orders], axis=0)
        mean = np.linalg.solve(np.eye(size) - a, c)
        source = ac @ mean + (cc + q).ravel()
        return mean, np.linalg.solve(np.eye(size**2) - aa, source)

    read = maps[0].read[0]
    if law == "once":
        variances = []
        for order in starts:
            mean, moment = stationary([order])
            variances.append(np.kron(read, read) @ moment - (read @ mean) ** 2)
        return 0.0, np.mean(variances)
    mean, moment = stationary(starts)
    pushed = [push(terms, mean, moment) for path in draws for terms in path]
    mean = read @ np.mean([m for m, _ in pushed], axis=0)
    return mean, np.kron(read, read) @ np.mean([s for _, s in pushed], axis=0) - mean**2


def marks(rng, count, square):
    values = rng.normal(size=count)
    values -= values.mean()
    return values * np.sqrt(square / np.mean(values**2))


@pytest.mark.parametrize("integrator", ALL, ids=names)
@pytest.mark.parametrize("law", LAWS)
@pytest.mark.parametrize("count", [2, 4])
@pytest.mark.parametrize("h", [0.1, 0.6])
def test_offsets_are_exact_for_enumerated_orders(integrator, law, count, h):
    offsets = marks(np.random.default_rng(count), count, 2.0)
    _, expected = enumerated(integrator, h, np.zeros(count), offsets, law, curvature=1.3)
    found = recursion.stationary_variance(
        integrator, h, count, 2.0, law=law, curvature=1.3, temperature=0.7
    )
    assert found == pytest.approx(expected, rel=1e-11, abs=1e-13)


@pytest.mark.parametrize(
    "integrator", [Euler(), Averaged(), FrictionEuler(1.5), UBU(3.0)], ids=names
)
@pytest.mark.parametrize("law", LAWS)
@pytest.mark.parametrize("count", [2, 4])
@pytest.mark.parametrize("h", [0.1, 0.6])
def test_hessian_noise_is_exact_to_first_order(integrator, law, count, h):
    slopes = []
    for k in (1e-5, 4e-5):
        deltas = marks(np.random.default_rng(count), count, k)
        settings = {"law": law, "curvature": 1.3}
        without, expected = (
            enumerated(integrator, h, d, 0 * d, **settings)[1] for d in (0 * deltas, deltas)
        )
        start, found = (
            recursion.stationary_variance(integrator, h, count, 0.0, x, temperature=0.7, **settings)
            for x in (0.0, k)
        )
        assert start == pytest.approx(without, rel=1e-12)
        slopes.append(((found - start) / k, (expected - without) / k))
    # Extrapolated in sqrt(K), in whose powers the enumerated variance goes on.
    found, expected = (2 * a - b for a, b in zip(*slopes, strict=True))
    assert found == pytest.approx(expected, rel=1e-3, abs=1e-5 * h)


@pytest.mark.parametrize("integrator", ALL, ids=names)
@pytest.mark.parametrize("law", ["batches", "symmetric", "all_phases"])
@pytest.mark.parametrize("h", [0.1, 0.6])
def test_mean_is_exact_to_first_order_in_the_coupling(integrator, law, h):
    rng = np.random.default_rng(8)
    deltas, offsets = marks(rng, 4, 1e-8), marks(rng, 4, 2.0)
    # The two signs differ in the terms of even order.
    plus, minus = (enumerated(integrator, h, sign * deltas, offsets, law)[0] for sign in (1, -1))
    found = recursion.mean_shift(integrator, h, 4, np.mean(deltas * offsets), law=law)
    assert found == pytest.approx((plus - minus) / 2, rel=1e-6)
    assert recursion.mean_shift(integrator, h, 4, 1.0, law="replacement") == 0


@pytest.mark.parametrize("integrator", OVERDAMPED, ids=names)
@pytest.mark.parametrize("law", LAWS)
@pytest.mark.parametrize(
    ("h", "count"), [(1e-3, 1000), (0.01, 100), (0.05, 7), (0.3, 40), (1.2, 3)]
)
def test_overdamped_dynamics_has_the_closed_forms(integrator, law, h, count):
    settings = {"scheme": law, "noise": integrator.law}
    base, noisy = (
        recursion.relative_variance_error(integrator, h, count, c0, law=law) for c0 in (0.0, 50.0)
    )
    terms = bias.variance_error_terms(h, count, **settings)
    assert base == pytest.approx(terms.euler, rel=1e-12, abs=1e-12)
    assert noisy - base == pytest.approx(50 * terms.batch, rel=1e-10, abs=1e-13)
    k = 1e-6
    slope = (recursion.relative_variance_error(integrator, h, count, 0.0, k, law=law) - base) / k
    expected = terms.hessian
    if law == "replacement":  # of the terms this one is that of averaged noise
        expected *= 1 + terms.euler
    close = 0.012 if h < 0.01 else 1e-4  # below 0.01 the closed form is of leading order
    assert slope == pytest.approx(expected, rel=close, abs=close * h / 2)


@pytest.mark.parametrize("integrator", OVERDAMPED, ids=names)
def test_with_replacement_hessian_noise_is_exact_at_any_size(integrator):
    c0, k = np.array([0.0, 3.0, 30.0]), np.array([1.7, 0.0, 4.0])
    found = recursion.relative_variance_error(integrator, 0.2, 9, c0, k, law="replacement")
    expected = bias.relative_variance_error(
        0.2, 9, c0, k, scheme="replacement", noise=integrator.law
    )
    np.testing.assert_allclose(found, expected, rtol=1e-11)


def test_curvature_is_a_matter_of_units():
    c0, k, a = 4.0, 0.3, 2.5
    for law in LAWS:
        found = recursion.relative_variance_error(Averaged(), 0.1, 12, c0, k, law=law, curvature=a)
        scaled = recursion.relative_variance_error(
            Averaged(), 0.1 * a, 12, c0 / a, k / a**2, law=law
        )
        assert found == pytest.approx(scaled, rel=1e-10)


def test_momentum_has_its_known_variance():
    eta, beta, a, c = 0.2, 0.8, 1.7, 3.0
    found = recursion.stationary_variance(
        Momentum(momentum=beta), eta, 5, c, law="replacement", curvature=a
    )
    expected = eta * c * (1 + beta) / (a * (1 - beta) * (2 * (1 + beta) - eta * a))
    assert found == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("law", ["batches", "symmetric", "all_phases"])
@pytest.mark.parametrize(("h", "k", "close"), [(0.1, 0.5, 0.02), (0.3, 1.5, 0.06)])
def test_large_hessian_noise_follows_the_exact_recursion(law, h, k, close):
    """Two noises at once do, too: each widens what the other one acts on."""
    rng = np.random.default_rng(1)
    deltas, offsets = marks(rng, 20, k), rng.normal(size=20)
    offsets -= offsets.mean() + deltas * (offsets @ deltas) / (deltas @ deltas)
    offsets *= np.sqrt(5 / np.mean(offsets**2))
    order = "symmetric" if law == "symmetric" else "batches"
    exact = stationary_moments(
        (1 + deltas)[:, None, None],
        offsets[:, None],
        h,
        order=order,
        draws="all" if law == "all_phases" else "epoch",
        num_orders=2000,
    )
    variance, error = exact.estimate(lambda mean, covariance: covariance[0, 0])
    found = recursion.stationary_variance(Euler(), h, 20, 5.0, k, law=law)
    assert found == pytest.approx(variance, rel=close, abs=4 * error)


def test_second_order_integrator_has_an_error_of_second_order():
    errors = [
        recursion.relative_variance_error(UBU(2.0), h, 1, 0.0, law="batches") for h in (0.05, 0.1)
    ]
    assert errors[1] / errors[0] == pytest.approx(4, rel=0.02)
    assert 1e-6 < abs(errors[0]) < 1e-2


def test_orders_help_kinetic_dynamics_as_they_help_the_overdamped_one():
    errors = {
        law: recursion.relative_variance_error(UBU(2.0), 0.002, 100, 100.0, law=law)
        for law in ("replacement", "batches", "symmetric")
    }
    assert errors["replacement"] == pytest.approx(0.05, rel=0.01)  # h C0 / 4 at this friction
    assert 0 < errors["symmetric"] < errors["batches"] / 5 < 1e-4


@pytest.mark.parametrize("integrator", ALL, ids=names)
def test_many_batches_forget_the_order(integrator):
    """Epochs much longer than a relaxation time are as good as none."""
    h, c0 = 0.2, 2.0
    replaced, whole = (
        recursion.stationary_variance(integrator, h, 10**6, c0, law=law)
        for law in ("replacement", "batches")
    )
    assert whole == pytest.approx(replaced, rel=1e-4)


def test_correlations_are_those_of_a_long_sum():
    integrator, h, number = FrictionEuler(0.7), 0.3, 3
    lags = [recursion.lag_correlation(integrator, h, number * n) for n in range(400)]
    assert lags[0] == pytest.approx((1.0, 1.0))
    first, second = (1 + 2 * sum(column[1:]) for column in zip(*lags, strict=True))
    found = recursion.autocorrelation_time(integrator, h, number)
    assert found == pytest.approx(max(first, second), rel=1e-9)
    assert second > first  # x oscillates, its square does not forget


@pytest.mark.parametrize("integrator", OVERDAMPED, ids=names)
def test_one_order_for_ever_shifts_the_mean(integrator):
    h, count = 0.002, 400
    found = recursion.fixed_order_shift(integrator, h, count, 7.0)
    assert found == pytest.approx(bias.once_mean_shift(h, count, 7.0), rel=0.01)


@pytest.mark.parametrize("law", ["batches", "symmetric", "all_phases"])
@pytest.mark.parametrize("time", [0.1, 1.0, 4.0])
def test_mean_shift_has_the_closed_form(law, time):
    h, count = time / 2000, 2000
    shift = recursion.mean_shift(Averaged(), h, count, 3.0, law=law)
    assert shift == pytest.approx(bias.order_mean_shift(h, count, 3.0, scheme=law), rel=2e-3)


def test_stability_is_that_of_the_second_moments():
    assert recursion.is_stable(Averaged(), 0.79, 1.5)
    assert not recursion.is_stable(Averaged(), 0.81, 1.5)
    limit = 2 / np.sqrt(4.0)  # symplectic Euler: h^2 a < 2 (1 + e)
    assert recursion.is_stable(FrictionEuler(1e-3), 0.99 * limit, curvature=4.0)
    assert not recursion.is_stable(FrictionEuler(1e-3), 1.01 * limit, curvature=4.0)


class _Implicit(Euler):
    def affine(self, step_size, hessian, temperature=1.0):
        step = super().affine(step_size, hessian, temperature)
        return step._replace(advance=np.linalg.inv(np.eye(1) + step_size * hessian))


class _Damped(Euler):
    def affine(self, step_size, hessian, temperature=1.0):
        step = super().affine(step_size, hessian, temperature)
        return step._replace(push=step.push * (1 - step_size * hessian))


@pytest.mark.parametrize("kind", [_Implicit, _Damped])
def test_a_step_that_is_not_affine_is_refused(kind):
    with pytest.raises(ValueError, match=f"{kind.__name__} is not affine"):
        mode_of(kind(), 0.1)


@pytest.mark.parametrize(
    ("change", "word"),
    [
        ({"law": "sorted"}, "law"),
        ({"num_batches": 2.5}, "num_batches"),
        ({"batch_noise": -1.0}, "batch_noise"),
        ({"hessian_noise": [0.1, -1.0]}, "hessian_noise"),
        ({"step_size": 2.1}, "step_size 2.1"),
    ],
)
def test_errors_name_the_argument(change, word):
    settings = {"step_size": 0.1, "num_batches": 4, "batch_noise": 1.0, "law": "batches"}
    with pytest.raises(ValueError, match=word):
        recursion.stationary_variance(Euler(), **(settings | change))
