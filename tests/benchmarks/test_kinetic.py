"""The benchmark of kinetic dynamics: closed forms, the whole table, and a simulation beside it."""

import csv

import numpy as np
import pytest

from sgworld_benchmarks import kinetic
from sgworld_benchmarks.kinetic_plot import plot_kinetic
from sgworld_benchmarks.kinetic_search import SCHEMES, Search
from sgworld_mcmc.cli import main
from sgworld_mcmc.integrators.ubu import UBU
from sgworld_mcmc.theory.affine_recursion import autocorrelation_time

SGLD, _, _, WITH_REPLACEMENT, FRESH, SYMMETRIC = SCHEMES


def test_sgld_has_its_closed_form():
    """The variance is (2 + h C0) / (2 - h), and the position shrinks by 1 - h in a step (B1)."""
    setting = Search(SGLD, 1.0, num_batches=50, tolerance=0.04).best()
    step = 2 * 0.04 / (51 + 0.04)
    decay = (1 - step) ** 50
    assert setting.step_size == pytest.approx(step, rel=1e-3)
    assert setting.epochs == pytest.approx((1 + decay) / (1 - decay), rel=1e-3)
    assert np.isnan(setting.friction) and 0.0399 < setting.error <= 0.04


@pytest.mark.parametrize("friction", [0.5, 3.0])
def test_with_replacement_velocities_gain_nothing(friction):
    """Heating by the batches takes kappa / tolerance epochs at every friction (K8)."""
    setting = Search(WITH_REPLACEMENT, 100.0).at_friction(friction)
    assert setting.epochs == pytest.approx(100 / 0.02, rel=0.01)


@pytest.mark.parametrize(
    ("scheme", "epochs"),
    [
        (FRESH, 2 * 1e4 ** (2 / 3) / (24 * 0.02) ** (1 / 3)),
        (SYMMETRIC, 2 * 1e4 ** (3 / 5) / (45 * 0.02) ** (1 / 5)),
    ],
    ids=lambda x: getattr(x, "law", None),
)
def test_without_replacement_the_closed_form_holds_at_large_condition_numbers(scheme, epochs):
    search = Search(scheme, 1e4)
    setting = search.at_friction(0.01)
    assert setting.epochs == pytest.approx(epochs, rel=0.01)
    assert setting.error <= 0.02 < search.error(UBU(0.01), 1.01 * setting.step_size)


def test_to_leave_out_draws_never_helps():
    search = Search(SYMMETRIC, 10.0)
    for friction in (0.1, 0.3, 3.0):
        costs = [
            gap
            * max(
                autocorrelation_time(UBU(friction), 0.005, 100 * gap, curvature=curvature)
                for curvature in (1.0, 0.1)
            )
            for gap in range(2, 21, 2)
        ]
        assert costs[0] == pytest.approx(search.epochs(UBU(friction), 0.005), rel=1e-12)
        assert np.all(np.array(costs[1:]) >= costs[0])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"conditions": (0.5,)}, "`conditions` must be"),
        ({"num_batches": 1}, "`num_batches` must be"),
        ({"tolerance": 0.0}, "`tolerance` must be"),
        ({"noise": "none"}, "`noise` must be"),
    ],
)
def test_wrong_settings(options, message):
    with pytest.raises(ValueError, match=message):
        kinetic.run(**options)


def test_picture(tmp_path):
    epochs = {1.0: (50, 3, 2.6, 50, 3, 2.5), 100.0: (5000, 270, 200, 5000, 55, 32)}
    plot_kinetic([scheme.name for scheme in SCHEMES], epochs, tmp_path / "kinetic.png")
    assert (tmp_path / "kinetic.png").stat().st_size > 10_000


@pytest.mark.slow
def test_table(tmp_path, capsys):
    """As good as the coarse search or better; the command prints what it writes."""
    options = ["--conditions", "1", "100", "10000", "--out", str(tmp_path)]
    assert main(["benchmark", "kinetic", *options]) == 0
    text = capsys.readouterr().out
    with open(tmp_path / "kinetic.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    found = {(float(row["condition"]), row["scheme"]): row for row in rows}
    assert len(found) == 18 and (tmp_path / "kinetic.png").stat().st_size > 10_000
    for kappa, coarse in kinetic.COARSE.items():
        for scheme, expected in zip(SCHEMES, coarse, strict=True):
            row = found[kappa, scheme.name]
            epochs, step = float(row["epochs"]), float(row["step_size"])
            assert epochs < 1.02 * expected, (kappa, scheme.name)
            # At large condition numbers the coarse search missed the best friction.
            if not (scheme.kinetic and kappa == 1e4 and scheme.law != "replacement"):
                assert epochs > expected / 1.2, (kappa, scheme.name)
            assert f"{epochs:.4g}" in text
            _check(Search(scheme, kappa), float(row["friction"]), step, epochs)


def _check(search, friction, step, epochs):
    """Look at smaller steps, closely, and at other frictions."""
    integrator = search.integrator(friction)
    steps = step * np.geomspace(0.05, 0.999, 60)
    assert max(search.error(integrator, smaller) for smaller in steps) <= search.tolerance
    assert min(search.epochs(integrator, smaller) for smaller in steps) >= epochs * 0.999
    if search.scheme.kinetic:
        others = [search.at_friction(friction * factor).epochs for factor in (0.7, 0.9, 1.1, 1.4)]
        assert min(others) >= epochs * 0.995


@pytest.mark.slow
@pytest.mark.parametrize("scheme", [FRESH, SYMMETRIC], ids=lambda scheme: scheme.law)
def test_simulated_batches_heat_as_much_as_was_computed(scheme):
    """The chain minus one with full gradients and the same noise moves by the batches alone."""
    friction, chains, count = 0.1, 1000, 100
    setting = Search(scheme, 100.0).at_friction(friction)
    h, rng = setting.step_size, np.random.default_rng(0)
    noise = rng.normal(size=count)
    noise -= noise.mean()
    noise *= np.sqrt(count / np.mean(noise**2))
    left = np.exp(-friction * h / 2)
    lead = (1 - left) / friction
    x, v = np.zeros((2, chains))
    order, seen = np.tile(np.arange(count)[:, None], (1, chains)), []
    for epoch in range(200):
        backward = scheme.law == "symmetric" and epoch % 2
        order = order[::-1] if backward else rng.permuted(order, axis=0)
        for batch in order:
            x, v = x + lead * v, left * v
            v = v - h * (x - noise[batch])
            x, v = x + lead * v, left * v
        if epoch >= 120 and (scheme.law != "symmetric" or backward):
            seen.append(np.mean(x**2))
    # The error of the step size itself is -h^2 / 6 (K5).
    assert np.mean(seen) == pytest.approx(setting.error + h**2 / 6, rel=0.08)
