"""What users get wrong, each with a message that names the cause before the long work starts."""

import warnings

import jax
import jax.numpy as jnp
import models
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from numpyro.infer import MCMC
from numpyro.infer.reparam import CircularReparam
from numpyro.infer.util import potential_energy

from sgworld_mcmc import SGLD, SGWORLD
from sgworld_mcmc.infer import prepared_kernel

pytestmark = pytest.mark.slow

KEY = jax.random.key(0)
DATA = models.regression_data()
QUICK = {"num_samples": 20, "num_warmup": 2, "num_chains": 2, "step_size": 0.1, "batch_size": 20}


@pytest.fixture
def without_set_up(monkeypatch):
    monkeypatch.setattr(prepared_kernel, "prepare", lambda *_: pytest.fail("set up"))


@pytest.mark.parametrize(
    ("fields", "error", "words"),
    [
        (("potential_energie",), ValueError, "Did you mean 'potential_energy'"),
        (("adapt_state.step_size",), ValueError, "no field 'adapt_state.step_size'.*step_size"),
        ("step_size", TypeError, "list or tuple of names"),
    ],
)
def test_fields_that_do_not_exist(without_set_up, fields, error, words):
    with pytest.raises(error, match=words):
        SGWORLD(models.plated).run(KEY, *DATA, extra_fields=fields)


@pytest.mark.parametrize("kind", [SGWORLD, SGLD])
def test_an_mcmc_in_place_of_a_kernel(kind):
    with pytest.raises(TypeError, match=rf"{kind.__name__}\(model\).sampler"):
        MCMC(kind(models.plated), num_warmup=1, num_samples=1)


@pytest.mark.parametrize("chains", [1, 2])
def test_the_potential_energy_is_that_of_numpyro(chains):
    mcmc = SGWORLD(models.plated, gradient="plain", **QUICK | {"num_chains": chains})
    mcmc.run(KEY, *DATA, extra_fields=("potential_energy", "z"))
    fields = mcmc.get_extra_fields()
    assert fields["potential_energy"].shape == (20 * chains,)
    for number in (0, -1):
        params = {name: jnp.asarray(x[number]) for name, x in mcmc.get_samples().items()}
        unconstrained = {"b": params["b"], "s": jnp.log(params["s"])}
        expected = potential_energy(models.plated, DATA, {}, unconstrained)
        np.testing.assert_allclose(fields["potential_energy"][number], expected, rtol=1e-4)


def test_start_given_needs_points(without_set_up):
    with pytest.raises(ValueError, match="pass them as `init_params`"):
        SGWORLD(models.plated, start="given").run(KEY, *DATA)
    with pytest.raises(ValueError, match=r"`start`.*'given'"):
        SGWORLD(models.plated, start="giben")


@pytest.mark.parametrize(
    ("settings", "error", "words"),
    [
        ({"step_size": lambda step: "a"}, TypeError, "`step_size` must be a number or a schedule"),
        ({"step_size": lambda: 0.1}, TypeError, "`step_size` must be a number or a schedule"),
        ({"step_size": lambda step: -0.1}, ValueError, "`step_size` must be positive"),
        ({"temperature": lambda step: np.nan}, ValueError, "`temperature` must be"),
    ],
)
def test_schedules_that_are_none(settings, error, words):
    with pytest.raises(error, match=words):
        SGWORLD(models.plated, **settings)


def test_an_angle_that_is_cut_open_is_warned_of():
    """The posterior lies across the cut: half of it is on the other side."""

    def model(y):
        angle = numpyro.sample("angle", dist.VonMises(0.0, 0.1).expand([2]).to_event(1))
        with numpyro.plate("rows", len(y)):
            numpyro.sample("y", dist.VonMises(angle[0], 5.0), obs=y)

    rng = np.random.default_rng(0)
    y = np.angle(np.exp(1j * (3.1 + rng.vonmises(0, 5, 60)))).astype(np.float32)
    with pytest.warns(UserWarning, match=r"angles \['angle'\] are cut open.*CircularReparam"):
        SGWORLD(model, num_samples=20).run(jax.random.key(0), y)
    whole = numpyro.handlers.reparam(model, config={"angle": CircularReparam()})
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        SGWORLD(whole, num_samples=20).run(jax.random.key(0), y)
    assert not any("cut open" in str(each.message) for each in caught)


def test_a_covariance_whose_sites_are_in_another_order():
    """Sites are laid out in alphabetical order, whatever their order in the model."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=500).astype(np.float32)
    y = (x + 0.1 * rng.normal(size=500)).astype(np.float32)

    def model(x, y):
        wide = numpyro.sample("wide", dist.Normal(0, 30))  # the rows know nothing of it
        slope = numpyro.sample("slope", dist.Normal(0, 1).expand([2]).to_event(1))
        with numpyro.plate("rows", len(x)):
            numpyro.sample("y", dist.Normal(slope[0] + slope[1] * x + 0 * wide, 0.1), obs=y)

    covariance = np.diag([900.0, 2e-5, 2e-5])
    with pytest.warns(UserWarning, match=r"`preconditioner` does not fit .* alphabetical order"):
        SGWORLD(model, preconditioner=covariance).set_up(jax.random.key(0), x, y)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        right = SGWORLD(model, preconditioner=covariance[::-1, ::-1])
        right.set_up(jax.random.key(0), x, y)
