"""Models that call functions which refuse forward-mode differentiation."""

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from jax.experimental.ode import odeint

from sgworld_mcmc import SGWORLD
from sgworld_mcmc.model.reverse_only import with_forward_mode


def decay(times, y):
    """Observe the logarithm of a decay: the posterior of its rate is exactly normal."""
    rate = numpyro.sample("rate", dist.Normal(0, 1))
    amount = odeint(lambda amount, t, rate: -rate * amount, 1.0, jnp.asarray(times), rate)
    numpyro.sample("y", dist.Normal(jnp.log(amount), 0.5), obs=y)


@pytest.mark.slow
def test_a_differential_equation_has_its_exact_posterior():
    times = np.linspace(0, 2, 30)
    y = -0.8 * times + 0.5 * np.random.default_rng(0).normal(size=30)
    precision = 1 + (times**2).sum() / 0.25
    mean = -(times * y).sum() / 0.25 / precision
    mcmc = SGWORLD(decay, num_samples=500)
    mcmc.run(jax.random.key(0), times, y)
    draws = mcmc.get_samples()["rate"]
    # 2000 draws: 0.04 standard deviations of the mean, and 3 % of the width.
    assert abs(draws.mean() - mean) * precision**0.5 < 0.15
    assert abs(draws.std() * precision**0.5 - 1) < 0.08


@pytest.mark.slow
def test_second_derivatives_are_those_of_the_function():
    matrix = jnp.array([[2.0, 0.5], [0.5, 3.0]])

    @jax.custom_vjp
    def quartic(x):
        return (x @ matrix @ x) ** 2

    quartic.defvjp(
        lambda x: (quartic(x), x), lambda x, bar: (bar * 4 * (x @ matrix @ x) * (matrix @ x),)
    )
    plain = lambda x, factor: factor * (x @ matrix @ x) ** 2  # noqa: E731
    made = with_forward_mode(lambda x, factor: factor * quartic(x))
    x = jnp.array([0.3, -0.7])
    with pytest.raises(TypeError, match="forward-mode"):
        jax.hessian(quartic)(x)
    np.testing.assert_allclose(jax.hessian(made)(x, 2.0), jax.hessian(plain)(x, 2.0), rtol=1e-5)
    batch = jnp.stack([x, 2 * x])
    np.testing.assert_allclose(
        jax.vmap(jax.hessian(made), (0, None))(batch, 2.0),
        jax.vmap(jax.hessian(plain), (0, None))(batch, 2.0),
        rtol=1e-5,
    )
