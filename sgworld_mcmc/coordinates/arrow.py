"""Coordinates for latents by group: a block for each group, and a dense matrix for what is shared.

The Hessian of a hierarchy is an arrow. With A_g the (q, q) block of group g, B_g its coupling to
the s shared parameters and S their own block, a Schur complement gives K with K K^T = H^-1 in
O(D (q + s)) numbers, never D x D (docs/theory.md, section 2.7, B21).
"""

from dataclasses import dataclass, replace
from functools import partial
from math import prod
from typing import Any, ClassVar

import jax
import numpy as np

from sgworld_mcmc.protocols import Coordinates

__all__ = ["Arrow", "Segments", "join", "size_of", "split"]

# The stretches of the flat position, in order. A stretch of n shared parameters is (n,). One of
# parameters by group is (before, groups, after), the shape of the site around the groups' axis.
Segments = tuple[tuple[int, ...], ...]


def size_of(segments: Segments) -> tuple[int, int, int]:
    """Return the numbers of groups G, of parameters of each group q, and of shared parameters s.

    Examples
    --------
    >>> size_of(((2,), (1, 50, 3), (1, 50, 1)))
    (50, 4, 2)
    """
    grouped = [s for s in segments if len(s) == 3]
    groups = grouped[0][1] if grouped else 0
    return groups, sum(s[0] * s[2] for s in grouped), sum(s[0] for s in segments if len(s) == 1)


def split(x: Any, segments: Segments) -> tuple[Any, Any]:
    """Return the parts (..., G, q) and (..., s) of vectors x (..., D)."""
    library, start = _library(x), 0
    grouped, shared = [x[..., :0].reshape(*x.shape[:-1], size_of(segments)[0], 0)], [x[..., :0]]
    for shape in segments:
        piece = x[..., start : start + prod(shape)]
        start += prod(shape)
        if len(shape) == 1:
            shared.append(piece)
            continue
        before, groups, after = shape
        piece = library.moveaxis(piece.reshape(*x.shape[:-1], *shape), -2, -3)
        grouped.append(piece.reshape(*x.shape[:-1], groups, before * after))
    return library.concatenate(grouped, -1), library.concatenate(shared, -1)


def join(grouped: Any, shared: Any, segments: Segments) -> Any:
    """Return the vectors (..., D) of the parts (..., G, q) and (..., s)."""
    library, pieces, column, start = _library(shared), [], 0, 0
    leading = shared.shape[:-1]
    for shape in segments:
        if len(shape) == 1:
            pieces.append(shared[..., start : start + shape[0]])
            start += shape[0]
            continue
        before, groups, after = shape
        piece = grouped[..., column : column + before * after]
        column += before * after
        piece = library.moveaxis(piece.reshape(*leading, groups, before, after), -3, -2)
        pieces.append(piece.reshape(*leading, prod(shape)))
    return library.concatenate(pieces, -1)


@partial(
    jax.tree_util.register_dataclass,
    data_fields=["center", "blocks", "coupling", "root", "spread", "transposed"],
    meta_fields=["segments"],
)
@dataclass(frozen=True)
class Arrow(Coordinates):
    """theta_s = center_s + L z_s, and theta_g = center_g + C_g z_g + M_g (theta_s - center_s).

    Attributes
    ----------
    center
        (D,) origin of the coordinates.
    blocks
        (G, q, q) matrices C_g.
    coupling
        (G, q, s) matrices M_g.
    root
        (s, s) matrix L.
    spread
        (D,) standard deviations of theta, if those of z are one.
    segments
        Where groups and shared parameters lie in theta and z, static.
    transposed
        Both M^T, for the (G q, s) matrix M of all M_g, and L^T, or None: a run has both, as it has
        of :class:`~sgworld_mcmc.coordinates.dense.Dense` coordinates.
    """

    name: ClassVar[str] = "arrow"

    center: Any
    blocks: Any
    coupling: Any
    root: Any
    spread: Any
    segments: Segments
    transposed: Any = None

    @classmethod
    def blank(cls, segments: Segments) -> "Arrow":
        """Return zeros in the place of all numbers."""
        groups, inner, shared = size_of(segments)
        nothing = np.zeros(groups * inner + shared)
        shapes = (groups, inner, inner), (groups, inner, shared), (shared, shared)
        return cls(nothing, *map(np.zeros, shapes), nothing, segments)

    @classmethod
    def make(cls, center, blocks, coupling, root, segments) -> "Arrow":
        """Return the coordinates of these matrices, with their spread."""
        return cls(center, blocks, coupling, root, center, segments).spread_out()

    def spread_out(self) -> "Arrow":
        """Return the same coordinates with the spread that belongs to their matrices."""
        rest = self._matrix() @ self.root
        grouped = (self.blocks**2).sum(-1) + (rest**2).sum(-1).reshape(self.blocks.shape[:2])
        spread = np.sqrt(join(grouped, (self.root**2).sum(-1), self.segments))
        return replace(self, spread=spread)

    @classmethod
    def from_covariance(cls, center, covariance):
        """Return coordinates without groups: a covariance does not say what they are."""
        full = covariance if np.ndim(covariance) == 2 else np.diag(covariance)
        size = len(center)
        none, root = np.zeros((0, 0, 0)), np.linalg.cholesky(full)
        return cls.make(center, none, np.zeros((0, 0, size)), root, ((size,),))

    def apply(self, z):
        grouped, shared = split(z, self.segments)
        shared = shared @ (self.root.T if self.transposed is None else self.transposed[1])
        own = (self.blocks * grouped[..., None, :]).sum(-1)
        return join(own + self._coupled(shared), shared, self.segments)

    def solve(self, change):
        library = _library(change)
        grouped, shared = split(change, self.segments)
        own = (self._inverse(library) * (grouped - self._coupled(shared))[..., None, :]).sum(-1)
        flat = shared.reshape(-1, shared.shape[-1]).T
        rest = library.linalg.solve(self.root, flat).T.reshape(shared.shape)
        return join(own, rest, self.segments)

    def pull_back(self, gradient):
        grouped, shared = split(gradient, self.segments)
        matrix = self._matrix()
        shared = shared + grouped.reshape(*shared.shape[:-1], len(matrix)) @ matrix
        own = (self.blocks * grouped[..., :, None]).sum(-2)
        return join(own, shared @ self.root, self.segments)

    def scaled(self, factor):
        # M_g stays: it multiplies a change of theta.
        turned = self.transposed
        return replace(
            self,
            blocks=self.blocks * factor,
            root=self.root * factor,
            spread=self.spread * factor,
            transposed=None if turned is None else (turned[0], turned[1] * factor),
        )

    def covariance(self):
        matrix = np.asarray(self.apply(np.eye(len(self.center))))
        return matrix.T @ matrix

    def deviations(self):
        return np.asarray(self.spread)

    def whiten(self, hessian):
        return self.pull_back(self.pull_back(hessian).T)

    def error_of(self, errors):
        grouped, shared = split(errors, self.segments)
        inverse = np.asarray(self._inverse(np))
        rest = ((inverse @ np.asarray(self.coupling)) ** 2 * shared**2).sum(-1)
        own = (inverse**2 * grouped[:, None, :] ** 2).sum(-1)
        root = np.linalg.inv(self.root) ** 2 @ shared**2
        return np.sqrt(join(own + rest, root, self.segments))

    def log_volume(self) -> float:
        """Return log |det K|."""
        own = np.linalg.slogdet(self.blocks)[1].sum() if self.blocks.size else 0.0
        return float(own + np.linalg.slogdet(self.root)[1])

    def along(self, z):
        return self.apply(z) / self.spread

    def projector(self):
        return lambda gradient: self.along(self.pull_back(gradient))

    def cast(self, dtype):
        turned = (np.asarray(x).T for x in (self._matrix(), self.root))
        transposed = tuple(np.ascontiguousarray(x) for x in turned)
        return super(Arrow, replace(self, transposed=transposed)).cast(dtype)

    def _coupled(self, shared):
        """Return M_g times a change of the shared parameters (..., s)."""
        turned = self._matrix().T if self.transposed is None else self.transposed[0]
        return (shared @ turned).reshape(*shared.shape[:-1], *self.coupling.shape[:2])

    def _matrix(self):
        """Return the M_g as one (G q, s) matrix: products with it are fast."""
        groups, inner, shared = self.coupling.shape
        return self.coupling.reshape(groups * inner, shared)

    def _inverse(self, library):
        return library.linalg.inv(self.blocks)


def _library(x):
    """Return JAX's library for JAX arrays, else NumPy, whose functions need no compilation."""
    return jax.numpy if isinstance(x, jax.Array) else np
