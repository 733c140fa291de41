"""The networks of the benchmark as plain NumPyro models, with their predictions.

Each model takes the rows ``x`` and their labels or responses ``y``. Each has a function
``(sites, x)`` beside it that returns what is compared: probabilities of the classes (rows, classes)
or values of the regression function (rows,).
"""

import itertools

import jax
import jax.numpy as jnp
import numpyro
import numpyro.distributions as dist

__all__ = [
    "classifier",
    "convolutional",
    "convolutional_probabilities",
    "probabilities",
    "regression",
    "regression_function",
]

KERNEL, CHANNELS = 3, 8


def classifier(x, y=None, *, hidden=(32,), classes=10, fan_in=False):
    """Classify rows by a tanh network; weights have the prior Normal(0, 1).

    Parameters
    ----------
    x, y
        (rows, features) inputs and (rows,) integer labels.
    hidden
        Widths of the hidden layers.
    classes
        Number of classes.
    fan_in
        Whether the weights of a layer with n inputs have the prior sd 1 / sqrt(n) instead.
    """
    sites = _weights((x.shape[1], *hidden, classes), fan_in)
    with numpyro.plate("rows", x.shape[0]):
        numpyro.sample("y", dist.Categorical(logits=_forward(sites, x)), obs=y)


def probabilities(sites, x):
    """Return the probabilities (rows, classes) of :func:`classifier`."""
    return jax.nn.softmax(_forward(sites, x))


def regression(x, y=None, *, hidden=(20,), noise=None):
    """Regress on rows by a tanh network, with known noise or the prior HalfNormal(1) for it."""
    sites = _weights((x.shape[1], *hidden, 1), False)
    sigma = numpyro.sample("sigma", dist.HalfNormal(1.0)) if noise is None else noise
    with numpyro.plate("rows", x.shape[0]):
        numpyro.sample("y", dist.Normal(_forward(sites, x)[:, 0], sigma), obs=y)


def regression_function(sites, x):
    """Return the values (rows,) of the function of :func:`regression`."""
    return _forward(sites, x)[:, 0]


def convolutional(x, y=None, *, classes=10):
    """Classify images (rows, height, width) by one convolution of stride 2 and a dense layer."""
    height, width = ((side + 1) // 2 for side in x.shape[1:])
    inputs = height * width * CHANNELS
    kernel = dist.Normal(0, 1).expand([CHANNELS, 1, KERNEL, KERNEL]).to_event(4)
    sites = {"kernel": numpyro.sample("kernel", kernel)}
    sites["shift"] = numpyro.sample("shift", dist.Normal(0, 1).expand([CHANNELS]).to_event(1))
    sites |= _weights((inputs, classes), True)
    with numpyro.plate("rows", x.shape[0]):
        numpyro.sample("y", dist.Categorical(logits=_convolve(sites, x)), obs=y)


def convolutional_probabilities(sites, x):
    """Return the probabilities (rows, classes) of :func:`convolutional`."""
    return jax.nn.softmax(_convolve(sites, x))


def _weights(sizes, fan_in):
    """Sample the weights w1, w2, ... and biases b1, b2, ... of dense layers."""
    sites = {}
    for number, (inputs, outputs) in enumerate(itertools.pairwise(sizes), 1):
        scale = inputs**-0.5 if fan_in else 1.0
        weight = dist.Normal(0, scale).expand([inputs, outputs]).to_event(2)
        bias = dist.Normal(0, 1).expand([outputs]).to_event(1)
        sites[f"w{number}"] = numpyro.sample(f"w{number}", weight)
        sites[f"b{number}"] = numpyro.sample(f"b{number}", bias)
    return sites


def _forward(sites, x):
    """Return the outputs of dense layers with tanh between them."""
    depth = sum(name.startswith("w") for name in sites)
    for number in range(1, depth + 1):
        x = x @ sites[f"w{number}"] + sites[f"b{number}"]
        x = jnp.tanh(x) if number < depth else x
    return x


def _convolve(sites, x):
    # Unlike other functions of JAX a convolution does not promote types.
    images = x[:, None].astype(sites["kernel"].dtype)
    seen = jax.lax.conv(images, sites["kernel"], window_strides=(2, 2), padding="SAME")
    seen = jnp.tanh(seen + sites["shift"][:, None, None])
    return _forward(sites, seen.reshape(len(x), -1))
