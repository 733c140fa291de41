"""The note on chains that have diverged."""

from typing import Any

import numpy as np

__all__ = ["divergence_note"]


def divergence_note(last_state: Any) -> str | None:
    """Return a note on the chains that have diverged, or None if none has.

    Parameters
    ----------
    last_state
        The :class:`~sgworld_mcmc.sampling.chain.SGMCMCState` of the chains at the end of a run.
    """
    diverged_at = np.atleast_1d(np.asarray(last_state.diverged_at))
    if not (diverged_at >= 0).any():
        return None
    steps, calls = np.max(np.asarray(last_state.step)), np.max(np.asarray(last_state.i))
    where = ", ".join(
        f"chain {chain} at minibatch step {step} of {steps}"
        for chain, step in enumerate(diverged_at)
        if step >= 0
    )
    size = float(np.max(np.asarray(last_state.step_size)))
    whole = np.shape(last_state.order)[-1] == 1
    larger = "" if whole else " raise `batch_size`,"
    return (
        f"A chain diverged: {where} (in {calls} calls, warm-up included). Its position became "
        "infinite, or left the mode by more than 10 000 posterior standard deviations. The "
        "chain is stopped: its later draws repeat the last one before and are marked in "
        "get_extra_fields()['diverging']. Do not use them. Reduce `step_size` (it was "
        f"{size:.3g} in preconditioned coordinates),{larger} or start nearer to "
        "the mode with `init_params`. If the posterior is a funnel, its mode is no good "
        "centre: use a non-centred parametrisation, or NUTS."
    )
