"""The whole Hessian of a model with groups, from a few products with it.

D derivatives of the gradient are a thousand passes' worth of work in a thousand dimensions. Where
parameters go by group, a product with each of a few vectors holds all numbers that are not zero
(:mod:`sgworld_mcmc.setup.arrow_hessian`), and one with a random vector shows whether that is true.
"""

from typing import NamedTuple

import numpy as np

from sgworld_mcmc.setup.arrow_hessian import ArrowHessian, Products, assemble, probes_of
from sgworld_mcmc.setup.arrow_rows import ArrowExpansion, is_assembled
from sgworld_mcmc.setup.groups import Structure
from sgworld_mcmc.setup.one_pass import Expansion

__all__ = ["FewProducts"]


class FewProducts(NamedTuple):
    """The vectors to multiply a Hessian with, and what the products say of it.

    Attributes
    ----------
    structure
        The groups; there is one grouping.
    probes
        (P, D) the vectors, the last of which is random.
    """

    structure: Structure
    probes: np.ndarray

    @classmethod
    def of(cls, structure: Structure | None, dimension: int) -> "FewProducts | None":
        """Return the vectors for a structure; None without one, or with several groupings.

        Two groupings are coupled by single rows, of which a stream keeps no index.
        """
        if structure is None or len(structure.groupings) > 1:
            return None
        return cls(structure, probes_of(np.random.default_rng(0), structure, dimension))

    @property
    def shared(self) -> np.ndarray:
        """Places (s,) of the parameters that go by no grouping."""
        return self.structure.rest

    def hessian(self, products: np.ndarray) -> ArrowHessian:
        """Return the Hessian of products (P, D)."""
        return assemble(self.structure, products[:-1], [], self.probes.shape[1])

    def by_group(
        self, value: float, gradient: np.ndarray, products: np.ndarray
    ) -> ArrowExpansion | None:
        """Return what a pass has found; None if the Hessian is no arrow, or not finite."""
        if not all(np.isfinite(x).all() for x in (value, gradient, products)):
            return None
        hessian = self.hessian(products)
        if not is_assembled(hessian, self.probes[-1], products[-1]):
            return None
        return ArrowExpansion(float(value), gradient, hessian)

    def expansion(self, made: Products) -> Expansion | None:
        """Return what a pass has found, with the whole Hessian; None if that is no arrow."""
        value, gradient, products, powers = made
        if not all(np.isfinite(x).all() for x in (value, gradient, products)):
            return Expansion(value, gradient, np.full((len(gradient),) * 2, np.nan), powers)
        hessian = self.hessian(products)
        if not is_assembled(hessian, self.probes[-1], products[-1]):
            return None
        if powers is not None:
            sums = np.zeros(len(gradient))
            sums[self.shared] = powers
            powers = sums
        return Expansion(value, gradient, hessian.dense(), powers)
