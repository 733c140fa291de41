"""Check and invert the small matrices of linear theory. Errors name the coordinates."""

import numpy as np

__all__ = ["check_matrix", "inverse", "positive_spectrum"]

# A correlation matrix with an eigenvalue below this is singular to rounding error.
_SINGULAR = 1e-12


def check_matrix(name, matrix, dim=None, *, symmetric=True, antisymmetric=False):
    """Return a finite (D, D) float64 array, (anti)symmetrised; raise ValueError if it is not."""
    matrix = np.asarray(matrix, dtype=np.float64)
    if matrix.ndim != 2 or matrix.shape[0] != matrix.shape[1]:
        raise ValueError(f"`{name}` must be a square matrix (D, D), not of shape {matrix.shape}.")
    if dim is not None and len(matrix) != dim:
        raise ValueError(f"`{name}` is {matrix.shape}, but the other arguments have D = {dim}.")
    if not np.isfinite(matrix).all():
        where = [tuple(map(int, index)) for index in np.argwhere(~np.isfinite(matrix))[:5]]
        raise ValueError(f"`{name}` has NaN or infinity at {where}.")
    if not (symmetric or antisymmetric):
        return matrix
    sign, word = (-1, "antisymmetric") if antisymmetric else (1, "symmetric")
    if np.abs(matrix - sign * matrix.T).max() > 1e-5 * np.abs(matrix).max():
        raise ValueError(
            f"`{name}` must be {word}; symmetrise it with (A {'-' if sign < 0 else '+'} A.T) / 2 "
            "if the difference is only noise."
        )
    return (matrix + sign * matrix.T) / 2


def positive_spectrum(name, matrix, project):
    """Return eigenvalues and eigenvectors of a symmetric matrix that must be positive definite.

    With ``project`` only the positive part is returned; otherwise a negative or zero eigenvalue
    raises an error that says in which coordinates its direction lies.
    """
    eigenvalues, vectors = np.linalg.eigh(matrix)
    good = eigenvalues > max(eigenvalues[-1], 0) * len(matrix) * 1e-15
    if not good.any():
        raise ValueError(f"`{name}` has no positive eigenvalue (largest {eigenvalues[-1]:.3g}).")
    if good.all() or project:
        return eigenvalues[good], vectors[:, good]
    heavy = np.flatnonzero(np.abs(vectors[:, 0]) > 0.5 * np.abs(vectors[:, 0]).max())[:8].tolist()
    raise ValueError(
        f"`{name}` is not positive definite: {int((~good).sum())} of {len(matrix)} eigenvalues are "
        f"not positive (smallest {eigenvalues[0]:.3g}, its direction mostly in coordinates "
        f"{heavy}). Go to a minimum, remove redundant parameters, or pass `project=True` to "
        "work in the subspace of positive eigenvalues."
    )


def inverse(name, matrix, project=False, names=None):
    """Invert a covariance; drop singular directions if ``project``, else raise naming them.

    The matrix is scaled to a correlation matrix first, so that units of different sizes do no harm.
    """
    names = [str(i) for i in range(len(matrix))] if names is None else list(names)
    variance = np.diag(matrix)
    constant = np.flatnonzero(~(variance > 0))
    if constant.size and not project:
        raise ValueError(
            f"`{name}` is singular: coordinate {_listing(names, constant)} is constant (its "
            "variance is not positive). Leave it out, or pass `project=True` to drop it."
        )
    scale = np.where(variance > 0, 1 / np.sqrt(np.where(variance > 0, variance, 1)), 0.0)
    eigenvalues, vectors = np.linalg.eigh(scale[:, None] * matrix * scale)
    bad = eigenvalues < _SINGULAR * len(matrix)
    if bad.any() and not project:
        weight = np.abs(vectors[:, bad]).max(axis=1)
        raise ValueError(
            f"`{name}` is singular: coordinates {_listing(names, np.flatnonzero(weight > 0.05))} "
            f"are duplicates or linear combinations of each other ({int(bad.sum())} direction(s) "
            "without variance). Leave some out, or pass `project=True` to drop those directions."
        )
    kept = vectors[:, ~bad]
    return scale[:, None] * ((kept / eigenvalues[~bad]) @ kept.T) * scale


def _listing(names, indices):
    shown = ", ".join(str(names[i]) for i in indices[:8])
    return shown + (f" and {len(indices) - 8} more" if len(indices) > 8 else "")
