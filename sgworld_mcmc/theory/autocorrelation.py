"""Autocorrelation of a sampler's draws on a Gaussian, in whitened coordinates."""

__all__ = ["integrated_autocorrelation"]


def integrated_autocorrelation(decay: float, number: int, noise: str | None) -> float:
    """Return the integrated autocorrelation time, in draws, of draws ``number`` steps apart.

    Parameters
    ----------
    decay
        Factor 1 - h lambda by which a step shrinks the position.
    number
        Number of steps from draw to draw.
    noise
        With ``"averaged"`` neighbouring steps share noise, so that the correlation over n steps is
        (1 + decay) / 2 decay^(n - 1); otherwise it is decay^n.

    Examples
    --------
    >>> integrated_autocorrelation(0.5, 1, "independent")   # (1 + a) / (1 - a)
    3.0
    """
    forgotten = decay**number
    first = forgotten
    if noise == "averaged" and decay < 1:
        first = decay ** (number - 1) * (1 + decay) / 2
    return 1 + 2 * first / max(1 - forgotten, 1e-12)
