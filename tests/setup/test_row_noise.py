"""The noise of single rows, against sums over the rows written out in NumPy."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sgworld_mcmc.coordinates.dense import Dense
from sgworld_mcmc.coordinates.diagonal import Diagonal
from sgworld_mcmc.setup.row_noise import batch_factor, measure_noise, summarise_noise

SIZE, DIM = 60, 3
RNG = np.random.default_rng(3)
X = RNG.normal(size=(SIZE, DIM))
Y = (RNG.random(SIZE) < 0.5).astype(float)
CENTER = np.array([0.3, -0.2, 0.1])
DENSE = np.linalg.cholesky(np.array([[0.05, 0.01, 0.0], [0.01, 0.08, 0.02], [0.0, 0.02, 0.04]]))
DRAWS = RNG.normal(size=(7, DIM))


def log_density(theta, rows):
    x, y = rows
    logits = x @ theta
    return -theta @ theta / 2 + SIZE * jnp.mean(y * logits - jnp.logaddexp(0.0, logits))


def row_gradient(theta):
    """(N, D) gradient of the N-fold log density of each row, and (N, D, D) Hessian."""
    p = 1 / (1 + np.exp(-X @ theta))
    gradient = SIZE * (Y - p)[:, None] * X - theta
    hessian = -SIZE * (p * (1 - p))[:, None, None] * X[:, :, None] * X[:, None, :] - np.eye(DIM)
    return gradient, hessian


@pytest.mark.parametrize("diagonal", [False, True])
def test_variances_are_those_of_the_rows_along_the_parameters(diagonal):
    sd = np.sqrt(np.diag(DENSE @ DENSE.T))
    K = np.diag(sd) if diagonal else DENSE
    directions = np.eye(DIM) if diagonal else DENSE / sd[:, None]
    along = lambda g: g @ K @ directions.T  # noqa: E731
    coordinates = Diagonal(CENTER, sd) if diagonal else Dense(CENTER, DENSE)
    with jax.enable_x64(True):
        inputs = jax.tree.map(jnp.asarray, (coordinates, DRAWS, (X, Y)))
        measured = measure_noise(log_density, *inputs, SIZE)
        found = jax.tree.map(np.asarray, measured)

    base, hessian = row_gradient(CENTER)
    residual = base - base.mean(0)
    coupling = -np.einsum("nij,nj->i", hessian, residual @ K @ K.T) / SIZE
    for number, z in enumerate(DRAWS):
        value, _ = row_gradient(CENTER + K @ z)
        change = hessian @ (K @ z)
        kinds = {
            "plain": value,
            "control_variate": value - base,
            "taylor": value - base - change,
        }
        for kind, gradient in kinds.items():
            expected = np.var(along(gradient), axis=0, ddof=1)
            np.testing.assert_allclose(found["draw"][kind][number], expected, rtol=1e-9)
            expected = expected * 0
            if kind == "plain":
                expected = np.var(along(base), axis=0, ddof=1)
            np.testing.assert_allclose(found["center"][kind][number], expected, rtol=1e-9)
        np.testing.assert_allclose(found["coupling"][number], along(coupling), rtol=1e-9)


def test_draws_share_the_rows_among_them_and_the_mean_has_its_error():
    with jax.enable_x64(True):
        coordinates = Dense(CENTER, DENSE)
        inputs = jax.tree.map(jnp.asarray, (coordinates, DRAWS, (X, Y)))
        measured = measure_noise(log_density, *inputs, 8)
        components = coordinates.along(DRAWS)
        noise = summarise_noise(measured, components)
    starts = np.linspace(0, SIZE - 8, len(DRAWS)).astype(int)
    base = row_gradient(CENTER)[0]
    projected = base @ coordinates.covariance() / np.sqrt(np.diag(coordinates.covariance()))
    blocks = [np.var(projected[start : start + 8], axis=0, ddof=1) for start in starts]
    np.testing.assert_allclose(noise.center["plain"], np.mean(blocks, 0), rtol=1e-9)
    assert not noise.center["taylor"].any() and not noise.center["control_variate"].any()
    values = np.asarray(measured["draw"]["taylor"])
    error = values.std(0, ddof=1) / np.sqrt(len(DRAWS))
    np.testing.assert_allclose(noise.mean["taylor"], values.mean(0) + error)
    weights = components**2 / (components**2).sum(0)
    tail = (weights * values).sum(0)
    error = np.sqrt((weights**2 * (values - tail) ** 2).sum(0))
    np.testing.assert_allclose(noise.tail["taylor"], tail + error)


def test_factor_of_a_batch_vanishes_for_all_rows():
    assert batch_factor(SIZE, SIZE) == 0
    # All batches of two of three rows: the variance of their mean is (1/2 - 1/3) of a row's.
    rows = np.array([1.0, 4.0, -2.0])
    means = [rows[[i, j]].mean() for i, j in ((0, 1), (0, 2), (1, 2))]
    np.testing.assert_allclose(np.var(means), batch_factor(2, 3) * np.var(rows, ddof=1))
