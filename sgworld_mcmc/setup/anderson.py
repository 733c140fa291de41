"""Anderson acceleration of an iteration c <- c + r(c) that converges slowly."""

from collections.abc import Callable

import numpy as np

__all__ = ["Anderson"]


class Anderson:
    """Mixes the last steps of an iteration so that the next one leaves little of r.

    The last points and their r show how r changes along what has been moved. The next point is
    where r would vanish if it went on changing like this (Walker and Ni, SIAM J. Numer. Anal. 49,
    1715, 2011, "type II").

    Parameters
    ----------
    memory
        Number of earlier points that count.
    """

    def __init__(self, memory: int = 3) -> None:
        self._memory = memory
        self.forget()

    def forget(self) -> None:
        """Forget the points seen so far."""
        self._points: list[np.ndarray] = []
        self._steps: list[np.ndarray] = []

    def step(
        self, point: np.ndarray, step: np.ndarray, measure: Callable = np.asarray
    ) -> np.ndarray:
        """Return the step (D,) to make from a point (D,), given the plain one.

        ``measure``, a linear function of (D,) vectors, returns the numbers that are to be small.

        Examples
        --------
        >>> import numpy as np
        >>> slow = lambda x: np.array([0.5, 0.1]) * (1 - x)  # 20 steps leave 10 % of the second
        >>> x, mixed = np.zeros(2), Anderson()
        >>> for _ in range(3):
        ...     x = x + mixed.step(x, slow(x))
        >>> print(np.abs(1 - x).max() < 1e-12)
        True
        """
        self._points = [*self._points, point][-self._memory - 1 :]
        self._steps = [*self._steps, step][-self._memory - 1 :]
        if len(self._points) < 2:
            return step
        moved = np.diff(self._points, axis=0)
        changed = np.diff(self._steps, axis=0)
        weights = np.linalg.lstsq(
            np.stack([measure(d) for d in changed], 1), measure(step), rcond=1e-6
        )[0]
        return step - weights @ (moved + changed)
