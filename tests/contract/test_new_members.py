"""New members of the protocols, as if their files lay in the folders: a run needs nothing else."""

from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar

import jax
import models
import numpy as np
import pytest

from sgworld_mcmc import SGWORLD
from sgworld_mcmc.gradients.taylor import Taylor
from sgworld_mcmc.members import COORDINATES, GRADIENTS
from sgworld_mcmc.protocols import Coordinates

pytestmark = pytest.mark.slow

KEY = jax.random.key(0)
DATA = models.regression_data()


@dataclass(frozen=True)
class Free(Taylor):
    """Control variates of second order that say they cost next to nothing."""

    name: ClassVar[str] = "free"
    cost: ClassVar[float] = 1e-3


@partial(jax.tree_util.register_dataclass, data_fields=["center", "scale"], meta_fields=[])
@dataclass(frozen=True)
class Isotropic(Coordinates):
    """theta = center + scale z with a number as scale."""

    name: ClassVar[str] = "isotropic"

    center: Any
    scale: Any

    @classmethod
    def from_covariance(cls, center, covariance):
        variances = np.diagonal(covariance) if np.ndim(covariance) == 2 else covariance
        return cls(center, np.sqrt(np.min(variances)))

    def apply(self, z):
        return self.scale * z

    def solve(self, change):
        return change / self.scale

    def pull_back(self, gradient):
        return self.scale * gradient

    def scaled(self, factor):
        return Isotropic(self.center, self.scale * factor)

    def covariance(self):
        return np.full(len(self.center), np.square(np.asarray(self.scale)))

    def error_of(self, errors):
        return errors / self.scale

    def whiten(self, hessian):
        return hessian * self.scale**2


@pytest.fixture
def members(monkeypatch):
    monkeypatch.setitem(GRADIENTS, "free", Free)
    monkeypatch.setitem(COORDINATES, "isotropic", Isotropic)


@pytest.mark.parametrize("gradient", ["free", "auto"])
def test_a_gradient_is_measured_chosen_and_used(members, gradient, tmp_path):
    mcmc = SGWORLD(models.plated, gradient=gradient, batch_size=20, num_samples=20)
    mcmc.run(KEY, *DATA)
    plan = mcmc.plan
    assert isinstance(plan.dynamics.gradient, Free)
    for noise in (plan.measurements.noise.mean, plan.measurements.noise.tail):
        np.testing.assert_array_equal(noise["free"], noise["taylor"])
    mcmc.save_plan(tmp_path / "plan")
    again = SGWORLD(models.plated, plan=tmp_path / "plan", num_samples=20)
    again.run(KEY, *DATA)
    np.testing.assert_array_equal(again.get_samples()["b"], mcmc.get_samples()["b"])


def test_coordinates_are_made_from_the_curvature_and_used(members, tmp_path):
    mcmc = SGWORLD(models.plated, preconditioner="isotropic", num_samples=20)
    mcmc.run(KEY, *DATA)
    coordinates, hessian = mcmc.plan.fit.coordinates, mcmc.plan.fit.hessian
    assert isinstance(coordinates, Isotropic)
    np.testing.assert_allclose(coordinates.scale**2, np.diag(np.linalg.inv(hessian)).min())
    mcmc.save_plan(tmp_path / "plan")
    again = SGWORLD(models.plated, plan=tmp_path / "plan", num_samples=20)
    again.run(KEY, *DATA)
    np.testing.assert_array_equal(again.get_samples()["b"], mcmc.get_samples()["b"])
