"""The error and the warning about a model that cannot be cut into minibatches."""

__all__ = ["NotMinibatchable", "WholeDataWarning"]


class NotMinibatchable(ValueError):
    """A model cannot be cut into minibatches, though it can be run on all rows.

    The message says why, and what would allow minibatches.
    """


class WholeDataWarning(UserWarning):
    """A model cannot be cut into minibatches: every step takes the gradient of all rows."""
