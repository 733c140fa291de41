"""The gradient of the minibatch alone."""

from dataclasses import dataclass
from typing import ClassVar

from sgworld_mcmc.gradients.weighting import batch_estimate, gradient_of
from sgworld_mcmc.protocols import Gradient

__all__ = ["Plain"]


@dataclass(frozen=True)
class Plain(Gradient):
    """g_b(z), which needs no mode and no Hessian; its noise cancels without replacement."""

    name: ClassVar[str] = "plain"
    by_site: ClassVar[bool] = True

    def __call__(self, target, controls, feed, position, batch, index):
        return batch_estimate(gradient_of(target), position, batch, feed)
