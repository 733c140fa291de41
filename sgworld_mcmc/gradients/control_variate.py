"""Control variates of first order: g_b(z) - g_b(0) + g(0) (docs/theory.md, section 2.3)."""

from dataclasses import dataclass
from typing import ClassVar

import jax
import jax.numpy as jnp

from sgworld_mcmc.gradients.plain import Plain
from sgworld_mcmc.gradients.weighting import batch_estimate, epoch_mean, gradient_of
from sgworld_mcmc.protocols import Gradient

__all__ = ["ControlVariate"]


@dataclass(frozen=True)
class ControlVariate(Gradient):
    """g_b(z) - g_b(0) + g(0): only the noise of the batches' curvature is left.

    Attributes
    ----------
    cached
        Whether :meth:`prepare` computes g(0) - g_b(0) of every batch, M x D numbers. A step then
        costs one addition more than a plain one. Otherwise every step computes g_b(0), as it must
        if batches are dealt anew in each epoch.
    """

    name: ClassVar[str] = "control_variate"
    needs: ClassVar[int] = 1

    cached: bool = True

    @classmethod
    def make(cls, *, cache):
        return cls(cached=cache)

    @staticmethod
    def residual(value, at_origin, change):
        return value - at_origin

    @property
    def visits_batches(self):
        return self.cached

    def prepare(self, target, feed, origin, gradient=None, jacobian=None):
        """Return the (M, D) offsets g(0) - g_b(0), or g(0) (D,) if they are not cached."""
        if not self.cached:
            return epoch_mean(gradient_of(target), origin, feed) if gradient is None else gradient
        estimate = gradient_of(target)
        each = jax.lax.map(
            lambda m: batch_estimate(estimate, origin, feed.fetch((), m), feed),
            jnp.arange(feed.num_batches),
        )
        return each.mean(0) - each

    def __call__(self, target, controls, feed, position, batch, index):
        if self.cached:
            return Plain()(target, (), feed, position, batch, index) + controls[index]
        gradient = gradient_of(target)

        def estimator(z, rows):
            return gradient(z, rows) - gradient(jnp.zeros_like(z), rows)

        return batch_estimate(estimator, position, batch, feed) + controls
