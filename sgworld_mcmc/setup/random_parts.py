"""Models with random parts: which settings sample them, and what a user should know of draws."""

from dataclasses import dataclass, replace
from typing import ClassVar

import jax

from sgworld_mcmc.model.numpyro_model import MinibatchModel
from sgworld_mcmc.protocols import Order, PRNGKey
from sgworld_mcmc.settings import Settings
from sgworld_mcmc.setup.run_plan import RunData, RunPlan

__all__ = ["RANDOM_PARTS", "Uncancelled", "check_random", "uncancelled", "with_random_parts"]

RANDOM_PARTS = (
    "The model draws random numbers (dropout, augmentation), which are new ones in every step: the "
    "draws are those of the log density averaged over them, and their noise does not cancel within "
    "an epoch."
)


def check_random(settings: Settings, model: MinibatchModel) -> None:
    """Raise if a model has random parts that the settings cannot sample.

    Raises
    ------
    ValueError
        If the settings ask for more than kinetic dynamics without a mode, or the model has no
        minibatches.
    """
    if not model.random or (model.reason is None and settings.may_go_without_mode):
        return
    if model.reason is not None:
        problem = f"it has no minibatches: {model.reason}"
    else:
        problem = (
            "the settings ask for other dynamics. Leave out `dynamics`, `gradient`, `step_size`, "
            "`preconditioner` and `noise`, or give `dynamics='kinetic'`"
        )
    raise ValueError(
        "The model draws random numbers (numpyro.prng_key, or a module's `rngs`), on which its log "
        "density depends: dropout or augmentation. Kinetic dynamics without a mode samples the "
        f"average over them, but {problem.rstrip('.')}. For random numbers that stay the same give "
        "a key of your own, jax.random.key(0), in place of numpyro.prng_key(); without dropout, "
        "call the module with `deterministic=True`."
    )


@dataclass(frozen=True)
class Uncancelled(Order):
    """Another order, of batches whose noise does not cancel: predictions are those of white noise.

    Without replacement the noise of the rows cancels within an epoch, and that of random parts,
    drawn anew in every step, does not. What they contribute each is not measured, so that all of it
    is taken for the second kind.

    Attributes
    ----------
    order
        The order in which the batches are visited.
    """

    law: ClassVar[str] = "replacement"

    order: Order

    @property
    def name(self) -> str:
        return self.order.name

    @property
    def period(self) -> int:
        return self.order.period

    @property
    def redeals(self) -> bool:
        return self.order.redeals

    def init(self, rng_key: PRNGKey, count: int) -> jax.Array:
        return self.order.init(rng_key, count)

    def next(self, rng_key: PRNGKey, order: jax.Array, epoch: jax.Array | int) -> jax.Array:
        return self.order.next(rng_key, order, epoch)


def uncancelled(settings: Settings) -> Settings:
    """Return the settings of kinetic dynamics with the order as :class:`Uncancelled`."""
    settings = settings.kinetic()
    return replace(settings, any_order=False, order=Uncancelled(settings.order))


def with_random_parts(plan: RunPlan, data: RunData) -> tuple[RunPlan, RunData]:
    """Return a plan and its data for a model whose random parts are drawn anew in every step."""
    dynamics = replace(plan.dynamics, random=True)
    return replace(plan, dynamics=dynamics), replace(data, dynamics=dynamics)
