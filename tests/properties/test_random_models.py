"""Random models: what minibatches see of them is what NumPyro sees of all rows."""

from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpyro.infer.util import potential_energy

from sgworld_mcmc.data.in_memory import cut, shuffle
from sgworld_mcmc.gradients.weighting import epoch_mean
from sgworld_mcmc.infer import SGMCMCKernel
from sgworld_mcmc.setup.checked_model import check_model

ROWS = 23
PRIORS = {
    "normal": lambda: dist.Normal(0.3, 0.7),
    "positive": lambda: dist.HalfNormal(0.8),
    "gamma": lambda: dist.Gamma(2.0, 3.0),
    "share": lambda: dist.Beta(2.0, 3.0),
    "bounded": lambda: dist.Uniform(-1.0, 2.0),
    "heavy": lambda: dist.StudentT(4.0, 0.0, 0.5),
    "skewed": lambda: dist.LogNormal(0.0, 0.4),
}
LIKELIHOODS = {
    "normal": lambda x: dist.Normal(x, 0.9),
    "bernoulli": lambda x: dist.Bernoulli(logits=x),
    "poisson": lambda x: dist.Poisson(jnp.exp(jnp.clip(x, -4, 4))),
    "student": lambda x: dist.StudentT(3.0, x, 1.2),
}


@dataclass(frozen=True)
class Recipe:
    """A model in words: latent sites with their priors and lengths, and the rows' likelihood."""

    latents: tuple[tuple[str, int], ...]
    likelihood: str
    plate: bool
    factor: bool

    def model(self, X, y):
        total = 0.0
        for number, (prior, length) in enumerate(self.latents):
            law = PRIORS[prior]()
            if length:
                law = law.expand([length]).to_event(1)
            value = numpyro.sample(f"site{number}", law)
            total = total + X[:, number % X.shape[1]] * jnp.sum(value)
        if self.factor:
            numpyro.factor("beside", -(jnp.sum(value) ** 2) / 8)
        law = LIKELIHOODS[self.likelihood](total)
        if self.plate:
            with numpyro.plate("rows", len(y)):
                numpyro.sample("y", law, obs=y)
        else:
            numpyro.sample("y", law, obs=y)


recipes = st.builds(
    Recipe,
    latents=st.lists(
        st.tuples(st.sampled_from(sorted(PRIORS)), st.integers(0, 3)), min_size=1, max_size=4
    ).map(tuple),
    likelihood=st.sampled_from(sorted(LIKELIHOODS)),
    plate=st.booleans(),
    factor=st.booleans(),
)


@pytest.mark.slow
@settings(max_examples=12, deadline=None, derandomize=True)
@given(recipe=recipes, batch_size=st.integers(1, ROWS), seed=st.integers(0, 10**6))
def test_minibatches_see_the_density_that_numpyro_sees(recipe, batch_size, seed):
    """Value and gradient to rounding error; the likelihood is a sum over rows, the rest is not."""
    generator = np.random.default_rng(seed)
    X = generator.normal(size=(ROWS, 2))
    y = generator.integers(0, 2, ROWS).astype(float)
    with jax.enable_x64(True):
        kernel = SGMCMCKernel(recipe.model)
        args = (np.random.default_rng(0), recipe.model, kernel.settings, (X, y), {}, {})
        view = check_model(*args).model
        assert view.size == ROWS and set(view.additive) == {"y"}
        assert view.dimension == sum(max(length, 1) for _, length in recipe.latents)
        data, constants = view.layout.split((X, y), {})
        batches = cut(shuffle(generator, data), -(-ROWS // batch_size))
        flat = jnp.asarray(generator.normal(size=view.dimension) / 2)

        def near(flat):
            density = lambda flat, rows: view.log_density(flat, rows, constants)  # noqa: E731
            return epoch_mean(jax.value_and_grad(density), flat, batches)

        def whole(flat):
            return -potential_energy(recipe.model, (X, y), {}, view.unravel(flat))

        value, gradient = jax.jit(near)(flat)
        expected, expected_gradient = jax.jit(jax.value_and_grad(whole))(flat)
        np.testing.assert_allclose(value, expected, rtol=1e-10)
        np.testing.assert_allclose(gradient, expected_gradient, rtol=1e-9, atol=1e-9)
        # A position and its sites are one another's inverse.
        np.testing.assert_array_equal(view.ravel(view.unravel(flat)), flat)
