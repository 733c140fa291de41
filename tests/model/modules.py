"""Modules of Flax and Equinox as parts of NumPyro models, for the tests beside this file."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
from flax import linen, nnx
from numpyro.contrib.module import (
    flax_module,
    random_eqx_module,
    random_flax_module,
    random_nnx_module,
)

PRIOR = dist.Normal(0, 1)
X = np.random.default_rng(0).normal(size=(60, 3)).astype(np.float32)
Y = np.sin(X[:, 0]).astype(np.float32)


class Linen(linen.Module):
    """Two layers, with a normalisation and dropout if asked for."""

    norm: str = ""
    dropout: float = 0.0
    running: bool = False

    @linen.compact
    def __call__(self, x):
        x = linen.tanh(linen.Dense(4)(x))
        if self.norm == "batch":
            x = linen.BatchNorm(use_running_average=self.running)(x)
        elif self.norm == "layer":
            x = linen.LayerNorm()(x)
        elif self.norm == "group":
            x = linen.GroupNorm(2)(x)
        x = linen.Dropout(self.dropout, deterministic=not self.dropout)(x)
        return linen.Dense(1)(x)[..., 0]


class NNX(nnx.Module):
    """The same with NNX."""

    def __init__(self, norm="", dropout=0.0):
        rngs = nnx.Rngs(0)
        self.first, self.last = nnx.Linear(3, 4, rngs=rngs), nnx.Linear(4, 1, rngs=rngs)
        kinds = {"": lambda n, rngs: None, "batch": nnx.BatchNorm, "layer": nnx.LayerNorm}
        self.norm = kinds[norm](4, rngs=rngs)
        self.dropout = nnx.Dropout(dropout, rngs=rngs) if dropout else None

    def __call__(self, x):
        for layer in (self.first, jnp.tanh, self.norm, self.dropout, self.last):
            x = x if layer is None else layer(x)
        return x[..., 0]


class Equinox(eqx.Module):
    """Two layers with dropout between them."""

    first: eqx.nn.Linear
    last: eqx.nn.Linear
    dropout: eqx.nn.Dropout

    def __init__(self, dropout):
        one, two = jax.random.split(jax.random.key(0))
        self.first, self.last = (
            eqx.nn.Linear(3, 4, key=one),
            eqx.nn.Linear(4, "scalar", key=two),
        )
        self.dropout = eqx.nn.Dropout(dropout)

    def __call__(self, x, key=None):
        return self.last(self.dropout(jnp.tanh(self.first(x)), key=key))


class Normalised(eqx.Module):
    """A layer with BatchNorm."""

    norm: eqx.nn.BatchNorm
    last: eqx.nn.Linear

    def __init__(self):
        self.last = eqx.nn.Linear(3, "scalar", key=jax.random.key(0))
        self.norm = eqx.nn.BatchNorm(3, "batch", mode="batch")

    def __call__(self, x, state):
        x, state = self.norm(x, state)
        return self.last(x), state


def observe(mean, y, scale=0.3):
    with numpyro.plate("data", len(mean)):
        numpyro.sample("y", dist.Normal(mean, scale), obs=y)


def of_linen(apply_rng=None, mutable=None, **settings):
    """Return a model with a Linen module."""

    def model(X, y=None):
        net = random_flax_module(
            "net",
            Linen(**settings),
            PRIOR,
            input_shape=(1, 3),
            apply_rng=apply_rng,
            mutable=mutable,
        )
        rngs = {"rngs": {"dropout": numpyro.prng_key()}} if apply_rng else {}
        observe(net(X, **rngs), y)

    return model


def of_nnx(prior=PRIOR, **settings):
    """Return a model with an NNX module, whose dropout has random numbers of its own."""
    module = NNX(**settings)
    return lambda X, y=None: observe(random_nnx_module("net", module, prior)(X), y)


def of_equinox(dropout=0.0):
    """Return a model with an Equinox module."""
    module = Equinox(dropout)

    def model(X, y=None):
        net = random_eqx_module("net", module, PRIOR)
        keys = (jax.random.split(numpyro.prng_key(), len(X)),) if dropout else ()
        observe(jax.vmap(net)(X, *keys), y)

    return model


def normalised_equinox(X, y=None):
    module, state = eqx.nn.make_with_state(Normalised)()
    net = random_eqx_module("net", module, PRIOR)
    mean, _ = jax.vmap(net, in_axes=(0, None), out_axes=(0, None), axis_name="batch")(X, state)
    numpyro.primitives.mutable("net$state", {"state": state})
    observe(mean, y)


def without_prior(X, y=None):
    net = flax_module("net", Linen(), input_shape=(1, 3))
    observe(net(X) + numpyro.sample("b", PRIOR), y)


def convolution(images, y=None):
    """Return a model of images by a convolution, in plain JAX."""
    kernel = numpyro.sample("kernel", PRIOR.expand([3, 3, 1, 2]).to_event(4))
    weights = numpyro.sample("weights", PRIOR.expand([2, 3]).to_event(2))
    axes = ("NHWC", "HWIO", "NHWC")
    hidden = jax.lax.conv_general_dilated(images, kernel, (1, 1), "SAME", dimension_numbers=axes)
    with numpyro.plate("data", len(images)):
        logits = jnp.tanh(hidden).mean((1, 2)) @ weights
        numpyro.sample("y", dist.Categorical(logits=logits), obs=y)
