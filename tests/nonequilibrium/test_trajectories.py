"""Moments, areas and projections of trajectories; memory; messages about bad ones."""

import tracemalloc

import numpy as np
import pytest
from inference_data import inference_data
from linear_chains import linearised_sgd, simulate

from sgworld_mcmc import nonequilibrium as ne


def walk(chains=3, steps=30_000, dim=4, seed=0):
    return np.random.default_rng(seed).standard_normal((chains, steps, dim)).cumsum(axis=1) / 100


@pytest.mark.parametrize("center", [None, np.arange(4.0)])
def test_moments_in_chunks_equal_those_at_once(center):
    x = walk()
    moments = ne.trajectory_moments(x, (1, 7), center)
    about = x - (x.mean(axis=(0, 1)) if center is None else center)
    for lag in (1, 7):
        pairs = about[:, :-lag, :, None] * about[:, lag:, None, :]
        np.testing.assert_allclose(moments.lagged[lag], pairs.mean(axis=(0, 1)), rtol=1e-9)
    expected = np.einsum("csi,csj->ij", about, about) / (3 * 30_000)
    np.testing.assert_allclose(moments.covariance, expected, rtol=1e-9)
    np.testing.assert_allclose(moments.mean, x.mean(axis=(0, 1)), rtol=1e-12)


def test_small_fluctuations_about_a_large_mean_keep_their_digits():
    x = walk(chains=1)[0]
    expected = ne.areal_velocity(x)
    np.testing.assert_allclose(ne.areal_velocity(1e-5 * x + 1.0), 1e-10 * expected, rtol=1e-4)


def test_areal_velocity_estimates_the_circulation():
    step = 0.1
    hessian, diffusion = linearised_sgd(step)
    x = simulate(np.eye(3) - step * hessian, 2 * diffusion, 3000, 400, seed=0)
    estimates = np.array([ne.areal_velocity(chain, np.zeros(3)) for chain in x])
    estimates = estimates[:, *np.triu_indices(3, 1)]
    mean, error = estimates.mean(axis=0), estimates.std(axis=0) / 20
    # Exact for the discrete chain: its own covariance.
    exact = np.einsum("csi,csj->ij", x, x) / (400 * 3000)
    exact = ne.circulation_matrix(hessian, exact, step)[np.triu_indices(3, 1)]
    assert np.all(np.abs(mean - exact) < 4.5 * error)
    assert np.abs(mean / error).max() > 15
    joined = ne.areal_velocity(x, np.zeros(3))[np.triu_indices(3, 1)]
    np.testing.assert_allclose(joined, mean, rtol=1e-9)


def test_memmap_is_read_in_bounded_memory(tmp_path):
    path = tmp_path / "trajectory.npy"
    steps = 1_000_000  # 28 MB in float32
    x = np.lib.format.open_memmap(path, "w+", np.float32, (steps, 7))
    x[:] = np.random.default_rng(0).standard_normal((steps, 7), dtype=np.float32)
    x.flush()
    x = np.load(path, mmap_mode="r")
    ne.areal_velocity(x[:1000])
    tracemalloc.start()
    try:
        ne.areal_velocity(x)
        ne.plug_in_entropy_production(x)
        _, moments_peak = tracemalloc.get_traced_memory()
        tracemalloc.reset_peak()
        q = np.triu(np.full((7, 7), 0.01), 1)
        sigma = ne.entropy_production(x, q - q.T, np.eye(7), np.eye(7))
        ne.integral_fluctuation_theorem(sigma)
        ne.detailed_fluctuation_theorem(sigma)
        _, sigma_peak = tracemalloc.get_traced_memory()
        tracemalloc.reset_peak()
        del sigma
        ne.detailed_balance_violation(x)
        _, violation_peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert moments_peak < 10e6
    assert sigma_peak < 1.5 * 8 * steps
    assert violation_peak < 100e6


def test_arviz_draws_are_flattened_with_their_names():
    x = walk(chains=2, steps=500, dim=3)
    idata = inference_data({"alpha": x[..., 0], "beta": x[..., 1:]})
    np.testing.assert_allclose(ne.areal_velocity(idata), ne.areal_velocity(x), atol=1e-15)
    result = ne.detailed_balance_violation(idata)
    assert result.names == ("alpha", "beta[0]", "beta[1]")
    assert result.p_value == ne.detailed_balance_violation(x).p_value


def test_projection_keeps_the_leading_components():
    rng = np.random.default_rng(0)
    x = rng.standard_normal((2, 5000, 6)) * [5.0, 3.0, 1.0, 0.1, 0.1, 0.1]
    result = ne.project_principal_components(x, 2)
    assert result.trajectory.shape == (2, 5000, 2)
    np.testing.assert_allclose(np.abs(np.diag(result.components)), 1, atol=1e-2)
    np.testing.assert_allclose(
        result.trajectory.reshape(-1, 2).var(axis=0), result.variance, rtol=1e-10
    )
    assert 0.96 < result.explained < 0.98 and "2 of 6" in str(result)


def test_bad_trajectories_are_named():
    x = walk(chains=2, steps=200, dim=3)
    broken = x.copy()
    broken[1, 123, 2] = np.nan
    for function in (
        ne.areal_velocity,
        ne.detailed_balance_violation,
        ne.plug_in_entropy_production,
        ne.entropy_production_bound,
        ne.variational_entropy_production,
    ):
        with pytest.raises(ValueError, match="chain 1, step 123, coordinate 2"):
            function(broken)
    with pytest.raises(ValueError, match=r"200 steps.*at least 240.*twice the largest lag"):
        ne.trajectory_moments(x, (120,))
    for function in (ne.plug_in_entropy_production, ne.variational_entropy_production):
        with pytest.raises(ValueError, match="at least 240"):
            function(x, lag=120)
    with pytest.raises(ValueError, match="at least 240"):
        ne.detailed_balance_violation(x, lags=(1, 120))
    with pytest.raises(ValueError, match=r"`center` must be .*\(3,\)"):
        ne.areal_velocity(x, np.zeros(2))
    with pytest.raises(ValueError, match=r"same number of steps\. Cut them"):
        ne.areal_velocity([np.zeros((300, 2)), np.zeros((200, 2))])
    with pytest.raises(ValueError, match=r"one chain in front: x\[None\]"):
        ne.areal_velocity({"w": np.zeros((300, 2))})
    with pytest.raises(ValueError, match="`variance` is negative: -1"):
        ne.uncertainty_bound(1.0, -1.0)
    with pytest.raises(ValueError, match=r"\(chains, steps, D\)"):
        ne.areal_velocity(np.zeros((2, 3, 4, 5)))


@pytest.mark.parametrize(
    "function", [ne.plug_in_entropy_production, ne.variational_entropy_production]
)
def test_constant_and_duplicate_coordinates_are_named_or_projected(function):
    hessian, diffusion = linearised_sgd(0.3)
    x = simulate(np.eye(3) - 0.3 * hessian, 2 * diffusion, 1000, 8, seed=3)
    rate, p_value = function(x).rate, ne.detailed_balance_violation(x, num_blocks=40).p_value
    for extra, message in (
        (np.full_like(x[..., :1], 2.0), "coordinate 3 is constant"),
        (x[..., 1:2], "coordinates 1, 3 are duplicates"),
    ):
        longer = np.concatenate([x, extra], axis=2)
        with pytest.raises(ValueError, match=message):
            function(longer)
        with pytest.raises(ValueError, match=message):
            ne.detailed_balance_violation(longer)
        np.testing.assert_allclose(function(longer, project=True).rate, rate, rtol=1e-6)
        # T^2 does not depend on the coordinates.
        result = ne.detailed_balance_violation(longer, num_blocks=40, project=True)
        np.testing.assert_allclose(result.p_value, p_value, rtol=1e-6)
