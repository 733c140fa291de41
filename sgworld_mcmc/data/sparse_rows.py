"""Sparse matrices as rows of equal length, so that batches of them are cut like any array.

A row of a design matrix with many columns (words, one-hot categories, crossed factors) holds a few
numbers. They are stored with the numbers of their columns in two arrays whose leading axis is that
of the rows. The model is given a ``jax.experimental.sparse.BCOO`` matrix of the rows of its batch,
on which ``X @ beta`` costs as many multiplications as the rows hold numbers, and its gradient too.
"""

import warnings
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental.sparse import BCOO, BCSR

from sgworld_mcmc.data.model_views import Shown

__all__ = ["SparseRows", "is_sparse", "sparse_rows"]

# A warning says so if the longest row makes the matrix this many times larger than the numbers in
# it, and costs at least this many numbers.
WASTE, MANY = 4, 2**24


@jax.tree_util.register_pytree_with_keys_class
class SparseRows(Shown):
    """A sparse (N, D) matrix whose rows are all stored with the length k of the longest.

    Parameters
    ----------
    values
        (N, k) numbers; 0 where a row is shorter.
    columns
        (N, k) numbers of their columns, ascending in each row; D where a row is shorter.
    width
        Number of columns D.

    Examples
    --------
    >>> rows = SparseRows(np.array([[5.0, 2.0], [1.0, 0.0]]), np.array([[0, 2], [1, 3]]), 3)
    >>> print(rows.as_model_sees().todense())
    [[5. 0. 2.]
     [0. 1. 0.]]
    """

    def __init__(self, values: Any, columns: Any, width: int) -> None:
        self.values, self.columns, self.width = values, columns, width

    def as_model_sees(self) -> BCOO:
        """Return the rows as the sparse matrix that a model is given."""
        # Without batch dimensions all operations are defined, and on a CPU they take half the time.
        rows = jax.lax.broadcasted_iota(jnp.int32, self.columns.shape, 0)
        indices = jnp.stack([rows.reshape(-1), jnp.asarray(self.columns).reshape(-1)], axis=1)
        shape = (self.columns.shape[0], self.width)
        # Entries whose column is D are outside of the matrix: JAX leaves them out.
        data = jnp.asarray(self.values).reshape(-1)
        return BCOO((data, indices), shape=shape, indices_sorted=True)

    def tree_flatten_with_keys(self):
        key = jax.tree_util.GetAttrKey
        return ((key("values"), self.values), (key("columns"), self.columns)), self.width

    def tree_flatten(self):
        return (self.values, self.columns), self.width

    @classmethod
    def tree_unflatten(cls, width, leaves):
        return cls(*leaves, width)


def is_sparse(value: object) -> bool:
    """Return whether a value is a sparse matrix of SciPy or JAX with rows and columns."""
    if isinstance(value, BCOO | BCSR):
        return value.ndim == 2 and value.n_dense == 0
    # SciPy is not imported to look at other objects.
    return type(value).__module__.startswith("scipy.sparse") and len(value.shape) == 2


def sparse_rows(name: str, matrix: Any) -> SparseRows:
    """Return a sparse matrix of SciPy or JAX as :class:`SparseRows`, with NumPy's arrays.

    Parameters
    ----------
    name
        The name of the argument, for messages.
    matrix
        The matrix (N, D), in any of the formats; entries given twice are added.
    """
    from scipy import sparse

    if not sparse.issparse(matrix):
        matrix = _scipy_matrix(matrix)
    rows = sparse.csr_array(matrix)
    if not rows.has_canonical_format:
        rows = rows.copy()  # it may share the user's memory
        rows.sum_duplicates()
    size, width = rows.shape
    counts = np.diff(rows.indptr)
    longest = max(1, int(counts.max(initial=0)))
    if size * longest > max(WASTE * rows.nnz, MANY):
        row = int(counts.argmax())
        warnings.warn(
            f"Row {row} of `{name}` has {longest} entries and the mean row {rows.nnz / size:.3g}. "
            f"All {size} rows are stored with room for {longest}, "
            f"{size * longest * (rows.dtype.itemsize + 4) / 1e6:.0f} MB. If few columns fill the "
            "long rows, pass these columns as a dense array of their own.",
            stacklevel=2,
        )
    values = np.zeros((size, longest), rows.dtype)
    columns = np.full((size, longest), width, np.int32)
    if rows.nnz == size * longest:  # the usual one-hot matrix: nothing is moved
        return SparseRows(rows.data.reshape(size, longest), _int32(rows).reshape(size, -1), width)
    filled = np.arange(longest) < counts[:, None]
    values[filled], columns[filled] = rows.data, rows.indices
    return SparseRows(values, columns, width)


def _int32(rows) -> np.ndarray:
    return rows.indices.astype(np.int32, copy=False)


def _scipy_matrix(matrix):
    """Return a sparse matrix of JAX as one of SciPy."""
    from scipy import sparse

    if isinstance(matrix, BCSR):
        matrix = matrix.to_bcoo()
    matrix = matrix.update_layout(n_batch=0)
    values, indices = np.asarray(matrix.data), np.asarray(matrix.indices)
    inside = (indices < np.array(matrix.shape)).all(axis=1)
    values, indices = values[inside], indices[inside]
    return sparse.coo_array((values, (indices[:, 0], indices[:, 1])), shape=matrix.shape)
