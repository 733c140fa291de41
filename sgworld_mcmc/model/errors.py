"""The error and the warning about a model that cannot be cut into minibatches."""

__all__ = ["NotMinibatchable", "WholeDataWarning", "whole_data_note"]


class NotMinibatchable(ValueError):
    """A model cannot be cut into minibatches, though it can be run on all rows.

    The message says why, and what would allow minibatches.
    """


class WholeDataWarning(UserWarning):
    """A model cannot be cut into minibatches: every step takes the gradient of all rows."""


def whole_data_note(size: int, reason: str) -> str:
    """Return what :class:`WholeDataWarning` says of a model with observations of ``size`` rows."""
    rows = f"all {size} rows" if size > 1 else "the whole log density"
    return f"Every step takes the gradient of {rows}, because there are no minibatches: {reason}"
