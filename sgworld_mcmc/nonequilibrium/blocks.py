"""Cut trajectories into blocks, between which the errors of contrasts are seen."""

from sgworld_mcmc.checks import check_integer

__all__ = ["MINIMUM_BLOCKS", "block_length", "neighbours", "neighbours_together"]

# With fewer blocks, error bars mean nothing.
MINIMUM_BLOCKS = 6
# If a mode alternates, with a correlation below the first number from one step to the next, the
# boundary terms of neighbouring blocks add instead of cancelling. The error is then that of means
# over so many neighbours.
ALTERNATING, TOGETHER = -0.5, 4


def block_length(trajectory, time, longest_lag, contrasts, num_blocks, together) -> int:
    """Return the number of steps in a block: a whole chain if there are enough chains.

    Otherwise there are about 100 blocks, which are at least five correlation times long; or so many
    times some that are taken ``together``.

    Parameters
    ----------
    trajectory
        The :class:`~sgworld_mcmc.nonequilibrium.trajectory.Trajectory`.
    time
        Correlation time of the contrasts, in steps.
    longest_lag, contrasts
        Largest lag in steps, and number of contrasts.
    num_blocks
        Number of blocks of all chains that a user asks for, or None.
    """
    chains, steps, _ = trajectory.values.shape
    wanted = max(100, 4 * contrasts)
    if num_blocks is not None:
        wanted = check_integer("num_blocks", num_blocks, MINIMUM_BLOCKS)
    per_chain = max(1, -(-wanted * together // chains))
    if num_blocks is None:
        # Neighbouring blocks share boundary terms of opposite sign, which widens the error bar.
        # Blocks have ten correlation times if that leaves 16 blocks, or else five; if that is still
        # too few, there are six blocks and the result has a note.
        fitting = min(per_chain, int(steps / (10 * time)), steps // (4 * longest_lag))
        if chains * fitting < 16:
            fitting = min(-(-16 // chains), int(steps / (5 * time)), steps // (4 * longest_lag))
        per_chain = max(fitting, -(-MINIMUM_BLOCKS // chains))
    length = steps // per_chain
    # What alternates with period two, such as a walk on a ring, would begin all even blocks alike.
    length -= int(per_chain > 1 and length % 2 == 0)
    if length <= longest_lag:
        raise ValueError(
            f"`trajectory` is too short for an error bar at lag {longest_lag}: {steps} steps in "
            f"{chains} chain(s) cannot be cut into {chains * per_chain} blocks longer than the "
            "lag. Run longer, or use more chains or smaller `lags`."
        )
    return length


def neighbours(correlation: float) -> int:
    """Return over how many neighbouring blocks means are taken, for the smallest correlation."""
    return TOGETHER if correlation < ALTERNATING else 1


def neighbours_together(blocks):
    """Return means over neighbouring blocks (chains, blocks, ...) where enough are left."""
    chains, count = blocks.shape[:2]
    each = min(TOGETHER, max(count * chains // (2 * MINIMUM_BLOCKS), 1), count)
    kept = blocks[:, : count // each * each]
    return kept.reshape(chains, count // each, each, *blocks.shape[2:]).mean(2)
