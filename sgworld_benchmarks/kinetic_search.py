"""Search the step size and the friction with the least epochs per effective draw.

The posterior is a Gaussian with the curvatures 1 and 1 / kappa; see
:mod:`sgworld_benchmarks.kinetic`, which makes a table of what is found.
"""

from typing import NamedTuple

import numpy as np
from scipy.optimize import minimize_scalar

from sgworld_mcmc.integrators.averaged import Averaged
from sgworld_mcmc.integrators.euler import Euler
from sgworld_mcmc.integrators.ubu import UBU
from sgworld_mcmc.protocols import Integrator
from sgworld_mcmc.theory.affine_recursion import (
    autocorrelation_time,
    is_stable,
    relative_variance_error,
)

__all__ = ["NOISES", "SCHEMES", "Scheme", "Search", "Setting"]

NOISES = {"independent": Euler(), "averaged": Averaged()}
GROWTH = 1.4  # factor between the step sizes at which the errors are looked at first
PRECISION = 1.0005  # factor within which the largest step size is found
FRICTIONS = 9  # number of frictions that are tried before the best one is refined


class Scheme(NamedTuple):
    """A sampler: its dynamics and the law of its batches.

    Attributes
    ----------
    name
        Name in the table.
    law
        As for :func:`sgworld_mcmc.theory.affine_recursion.stationary_variance`.
    kinetic
        Whether the integrator is UBU, which has a friction, or that of overdamped dynamics.
    """

    name: str
    law: str
    kinetic: bool

    @property
    def epochs_between_draws(self) -> int:
        """Number of epochs from draw to draw: symmetric orders draw after both sweeps.

        To take every n-th of these draws only can never help. Let s >= 0 be the spectral density of
        x (or of x^2). Their autocorrelation time, in units of the draws before thinning, is the
        sum of s over the n frequencies that thinning cannot tell from zero; without thinning it is
        the one term s(0) of that sum.
        """
        return 2 if self.law == "symmetric" else 1


SCHEMES = (
    Scheme("SGLD", "replacement", False),
    Scheme("SGWORLD", "batches", False),
    Scheme("SGWORLD, symmetric", "symmetric", False),
    Scheme("UBU with replacement", "replacement", True),
    Scheme("UBU, fresh orders", "batches", True),
    Scheme("UBU, symmetric", "symmetric", True),
)


class Setting(NamedTuple):
    """The best setting of a scheme at a condition number.

    Attributes
    ----------
    step_size, friction
        The step size h, and the friction, NaN for overdamped dynamics.
    error
        Largest absolute relative error of the variance, over both modes.
    epochs
        Epochs per effective draw: the worse of x and x^2, in the worse mode.
    """

    step_size: float
    friction: float
    error: float
    epochs: float


class Search(NamedTuple):
    """A search for the best setting of a scheme on a posterior.

    Attributes
    ----------
    scheme, condition
        The sampler, and the condition number kappa.
    num_batches, tolerance
        Number of batches M, and largest relative error of a variance.
    noise
        Noise of the overdamped integrator, a key of ``NOISES``.
    """

    scheme: Scheme
    condition: float
    num_batches: int = 100
    tolerance: float = 0.02
    noise: str = "independent"

    def best(self) -> Setting:
        """Return the setting with the least epochs per effective draw.

        The frictions that are tried go from half of the soft mode's angular frequency, below which
        both modes forget their past more slowly, to twice the critical friction of the stiff mode.
        """
        if not self.scheme.kinetic:
            return self.at_friction(np.nan)
        tried = {}

        def epochs(log_friction):
            setting = tried[log_friction] = self.at_friction(float(np.exp(log_friction)))
            return setting.epochs

        grid = np.linspace(np.log(0.5 / np.sqrt(self.condition)), np.log(4.0), FRICTIONS)
        best = int(np.argmin([epochs(point) for point in grid]))
        bounds = grid[max(best - 1, 0)], grid[min(best + 1, len(grid) - 1)]
        minimize_scalar(epochs, bounds=bounds, method="bounded", options={"xatol": 0.01})
        return min(tried.values(), key=lambda setting: setting.epochs)

    def at_friction(self, friction: float) -> Setting:
        """Return the setting with the largest step size up to which all keep the tolerance.

        Draws at larger steps are less correlated, so that no smaller one does better.
        """
        integrator = self.integrator(friction)
        step = self._largest_step(integrator, friction)
        return Setting(step, friction, self.error(integrator, step), self.epochs(integrator, step))

    def error(self, integrator: Integrator, step_size: float) -> float:
        """Return the largest absolute error of both variances; it is infinite if one of them is."""
        found = 0.0
        for curvature in self._curvatures():
            if not is_stable(integrator, step_size, curvature=curvature):
                return np.inf
            error = relative_variance_error(
                integrator,
                step_size,
                self.num_batches,
                self.num_batches * curvature,
                law=self.scheme.law,
                curvature=curvature,
            )
            found = max(found, abs(float(error)))
        return found

    def epochs(self, integrator: Integrator, step_size: float) -> float:
        """Return the epochs per effective draw in the worse mode."""
        gap = self.scheme.epochs_between_draws
        return gap * max(
            autocorrelation_time(integrator, step_size, gap * self.num_batches, curvature=curvature)
            for curvature in self._curvatures()
        )

    def _curvatures(self) -> tuple[float, ...]:
        return (1.0,) if self.condition == 1 else (1.0, 1 / self.condition)

    def integrator(self, friction: float) -> Integrator:
        return UBU(friction) if self.scheme.kinetic else NOISES[self.noise]

    def _largest_step(self, integrator: Integrator, friction: float) -> float:
        """Return the step size below which all errors are within the tolerance."""
        # With replacement the batches' noise alone makes half of the tolerance here (B5 and K4 of
        # docs/theory.md); without replacement it makes less.
        width = friction if self.scheme.kinetic else 1.0
        low = width * self.tolerance / (self.num_batches + 1)
        while self.error(integrator, low) > self.tolerance:
            low /= GROWTH
        high = low
        while self.error(integrator, high) <= self.tolerance:
            low, high = high, high * GROWTH
        while high > PRECISION * low:
            middle = np.sqrt(low * high)
            within = self.error(integrator, middle) <= self.tolerance
            low, high = (middle, high) if within else (low, middle)
        return float(low)
