"""The order that visits every row once an epoch, in batches dealt anew when an epoch begins."""

from dataclasses import dataclass
from typing import ClassVar

from sgworld_mcmc.data.orders.fresh import FreshOrder

__all__ = ["FreshExamples"]


@dataclass(frozen=True)
class FreshExamples(FreshOrder):
    """A fresh order of batches into which the rows have just been dealt anew."""

    name: ClassVar[str] = "examples"
    law: ClassVar[str] = "examples"
    redeals: ClassVar[bool] = True
