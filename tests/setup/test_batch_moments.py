"""The moments of batches, against sums over the batches written out in NumPy."""

import jax
import jax.numpy as jnp
import numpy as np

from sgworld_mcmc.coordinates.dense import Dense
from sgworld_mcmc.setup.batch_moments import batch_moments

BATCHES, PIECES, LENGTH, DIM = 5, 2, 6, 3
RNG = np.random.default_rng(4)
X = RNG.normal(size=(BATCHES * PIECES, LENGTH, DIM))
Y = (RNG.random(X.shape[:2]) < 0.5).astype(float)
CENTER = np.array([0.3, -0.2, 0.1])
ROOT = np.linalg.cholesky(np.array([[0.05, 0.01, 0.0], [0.01, 0.08, 0.02], [0.0, 0.02, 0.04]]))
DRAWS = RNG.normal(size=(4, DIM))
WEIGHT = 60.0


def log_density(theta, rows):
    x, y = rows
    logits = x @ theta
    return -theta @ theta / 2 + WEIGHT * jnp.mean(y * logits - jnp.logaddexp(0.0, logits))


def of_batches(theta):
    """(M, D) gradients of the log density of each batch, and (M, D, D) Hessians."""
    x, y = X.reshape(BATCHES, -1, DIM), Y.reshape(BATCHES, -1)
    p = 1 / (1 + np.exp(-x @ theta))
    gradient = WEIGHT * np.einsum("bn,bni->bi", y - p, x) / x.shape[1] - theta
    curvature = np.einsum("bn,bni,bnj->bij", p * (1 - p), x, x) / x.shape[1]
    return gradient, -WEIGHT * curvature - np.eye(DIM)


def test_variances_and_couplings_are_those_of_the_batches():
    sd = np.sqrt(np.diag(ROOT @ ROOT.T))
    along = lambda g: g @ ROOT @ (ROOT / sd[:, None]).T  # noqa: E731
    with jax.enable_x64(True):
        inputs = jax.tree.map(jnp.asarray, (Dense(CENTER, ROOT), DRAWS, (X, Y)))
        # More parts than are used: they do not count.
        found = batch_moments(log_density, *inputs, jnp.int32(PIECES), jnp.int32(BATCHES))
        found = jax.tree.map(np.asarray, found)
    base, hessian = of_batches(CENTER)
    for number, z in enumerate(DRAWS):
        value, _ = of_batches(CENTER + ROOT @ z)
        change = hessian @ (ROOT @ z)
        kinds = {"plain": value, "control_variate": value - base, "taylor": value - base - change}
        for kind, gradient in kinds.items():
            expected = np.var(along(gradient), axis=0, ddof=1)
            np.testing.assert_allclose(found["draw"][kind][number], expected, rtol=1e-9)
    np.testing.assert_allclose(found["center"]["plain"], [np.var(along(base), 0, ddof=1)] * 4)
    assert set(found["coupling"]) == {"plain", "control_variate"}
    for kind, products in found["coupling"].items():
        expected = np.zeros(DIM)
        for z in (DRAWS[0], -DRAWS[0]):
            gradient, here = of_batches(CENTER + ROOT @ z)
            residual = gradient if kind == "plain" else gradient - base
            # Differences of neighbours have twice the covariance of batches.
            change = np.diff(residual, axis=0) @ ROOT @ ROOT.T
            products_of = np.einsum("bij,bj->bi", np.diff(here, axis=0), change)
            expected -= products_of.mean(0) / 4
        np.testing.assert_allclose(products, along(expected), rtol=1e-9)
