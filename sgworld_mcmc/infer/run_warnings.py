"""The warnings of a run."""

__all__ = ["DivergenceWarning", "TuningWarning"]


class TuningWarning(UserWarning):
    """The automatic settings could not be made as good as the tolerance asks."""


class DivergenceWarning(UserWarning):
    """A chain became infinite and was stopped."""
