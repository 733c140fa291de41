"""Test whether vectors are symmetric about zero, as contrasts are under detailed balance."""

import numpy as np
import scipy

__all__ = ["symmetry_test"]


def symmetry_test(blocks) -> tuple[float, float, tuple[int, int]]:
    """Test that vectors are symmetric about zero.

    Parameters
    ----------
    blocks : array (chains, blocks, contrasts)
        Independent vectors, for example antisymmetric sums accumulated during a run.

    Returns
    -------
    tuple
        Statistic, p-value and degrees of freedom.

    Notes
    -----
    The test is Hotelling's T^2 if there are fewer than half as many contrasts as vectors. Otherwise
    a direction from the first half of the blocks of each chain, or of the chains if each is one
    block, is tested by Student's t in the second half.
    """
    blocks = np.asarray(blocks, dtype=np.float64)
    chains, count, size = blocks.shape
    total = chains * count
    scale = np.sqrt(np.mean(blocks**2, axis=(0, 1)))
    flat = (blocks / np.where(scale > 0, scale, 1)).reshape(total, size)
    if 2 * size + 4 <= total:
        mean = flat.mean(axis=0)
        _, singular, rows = np.linalg.svd(flat - mean, full_matrices=False)
        kept = singular > 1e-9 * singular[0]
        rank = int(kept.sum())
        projected = rows[kept] @ mean / singular[kept]
        # T^2 = n m^T S^-1 m with S = X^T X / (n - 1), through the singular values of X.
        statistic = float(total * (total - 1) * np.sum(projected**2))
        ratio = (total - rank) / (rank * (total - 1)) * statistic
        dof = (rank, total - rank)
        return statistic, float(scipy.stats.f.sf(ratio, *dof)), dof
    by_chain = flat.reshape(chains, count, size)
    first, second = (
        (by_chain[: chains // 2], by_chain[chains // 2 :])
        if count == 1
        else (by_chain[:, : count // 2], by_chain[:, count // 2 :])
    )
    first, second = first.reshape(-1, size), second.reshape(-1, size)
    direction = first.mean(axis=0) / np.maximum(first.var(axis=0), 1e-12)
    scores = second @ direction
    statistic = float(scores.mean() / (scores.std(ddof=1) / np.sqrt(len(scores))))
    return statistic, float(scipy.stats.t.sf(statistic, len(scores) - 1)), (1, len(scores) - 1)
