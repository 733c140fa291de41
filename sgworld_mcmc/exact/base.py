"""The base class of exact posteriors: flat names and moments, marginals, comparison with draws."""

import abc
import itertools
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from sgworld_mcmc.exact.checks import positive_integer, prng_key
from sgworld_mcmc.exact.compare import Comparison, compare


class ExactPosterior(abc.ABC):
    """A Bayesian model whose posterior is known in closed form.

    A family is built from simulated data by calling it, ``Family(key, num_data=...)`` or
    ``Family.simulate(key, ...)`` (no key stands for ``jax.random.key(0)``), and from your own
    arrays by ``Family.from_data(...)``. All exact numbers are computed in float64 on the host,
    whatever JAX's precision is.

    Attributes
    ----------
    data : tuple of numpy.ndarray
        The arguments of ``model``, with the observations along the leading axis.
    shapes : dict
        Site name to the shape of one draw. Flat arrays have the sites in this order.
    names : tuple of str
        The D scalar parameters in flat order, such as ``beta[3]``; a scalar site has its own name.
    mean : dict
        Site name to the posterior mean.
    covariance : numpy.ndarray
        (D, D) posterior covariance of the flat parameters.
    sd : numpy.ndarray
        (D,) posterior standard deviations.
    truth : dict or None
        The parameter values behind simulated data; None for your own data.
    """

    data: tuple[np.ndarray, ...]
    shapes: dict[str, tuple[int, ...]]
    names: tuple[str, ...]
    mean: dict[str, np.ndarray]
    covariance: np.ndarray
    sd: np.ndarray
    truth: dict[str, np.ndarray] | None = None

    @abc.abstractmethod
    def model(self, *data):
        """Define the NumPyro model, which NUTS and the minibatch samplers take unchanged."""

    @abc.abstractmethod
    def marginal(self, name):
        """Return the `Marginal` of the scalar parameter ``name``."""

    @abc.abstractmethod
    def _draw(self, key, n):
        """Return (n, D) independent draws. The caller has enabled 64-bit JAX."""

    @abc.abstractmethod
    def _log_density(self, flat, xp):
        """Return the log density of (..., D) positions; ``xp`` is numpy or jax.numpy."""

    @classmethod
    def simulate(cls, key=None, **settings):
        """Simulate data and condition on them, as calling the class does."""
        return cls(key, **settings)

    def sample(self, key, n=1000):
        """Draw independently from the exact posterior.

        Parameters
        ----------
        key : jax.Array
            A single PRNG key; the same key gives the same draws.
        n : int
            Number of draws.

        Returns
        -------
        dict
            Site name to a float64 array (n, ...).

        Examples
        --------
        >>> import jax
        >>> from sgworld_mcmc import exact
        >>> exact.LinearRegression(dim=3).sample(jax.random.key(1), 100)["beta"].shape
        (100, 3)
        """
        n = positive_integer("n", n)
        if key is None:
            raise TypeError("`key` is None; pass a JAX key such as jax.random.key(0).")
        key = prng_key(key, type(self).__name__)
        # float32 draws would show their grid in the tails and in millions of draws.
        with jax.enable_x64(True):
            flat = np.asarray(self._draw(key, n), dtype=np.float64)
        return self.unflatten(flat)

    def log_prob(self, position):
        """Evaluate the normalised log density of the exact posterior.

        Parameters
        ----------
        position : dict
            Site name to constrained values (..., site shape), with the same leading axes for all
            sites. Further entries are ignored. Traced values work too (``jax.vmap``,
            ``jax.grad``, ``jax.jit``); the result then has JAX's own precision.

        Returns
        -------
        numpy.ndarray or jax.Array
            An array with the shape of the leading axes; minus infinity outside the support.

        Raises
        ------
        ValueError
            If a site is missing or has a wrong shape.
        TypeError
            If ``position`` is not a dict.
        """
        traced = any(isinstance(leaf, jax.core.Tracer) for leaf in jax.tree.leaves(position))
        xp = jnp if traced else np
        with np.errstate(all="ignore"):
            return self._log_density(self.flatten(position, xp), xp)

    def marginal_cdf(self, name, x):
        """Evaluate the marginal distribution function of a scalar parameter at ``x``."""
        return self.marginal(name).distribution.cdf(np.asarray(x, dtype=np.float64))

    def marginal_pdf(self, name, x):
        """Evaluate the marginal density of a scalar parameter at ``x``."""
        return self.marginal(name).distribution.pdf(np.asarray(x, dtype=np.float64))

    def compare(self, samples) -> Comparison:
        """Measure the error of draws; see `sgworld_mcmc.exact.compare`."""
        return compare(self, samples)

    def gaussian_kl(self, flat: np.ndarray) -> float | None:
        """Return KL(N(mean, covariance of ``flat`` (n, D)) || posterior), or None.

        It is None unless the posterior is Gaussian.
        """
        return None

    def flatten(self, position, xp=np):
        """Concatenate the sites of a dict of (..., site shape) to one (..., D) array."""
        if not isinstance(position, Mapping):
            raise TypeError(
                f"`position` is a {type(position).__name__}; pass a dict from site to values."
            )
        missing = [name for name in self.shapes if name not in position]
        if missing:
            raise ValueError(f"`position` has no site {missing}; it needs {list(self.shapes)}.")
        parts = {}
        for name, shape in self.shapes.items():
            value = xp.asarray(position[name], dtype=None if xp is jnp else np.float64)
            batch = value.shape[: max(value.ndim - len(shape), 0)]
            if value.shape != batch + shape:
                raise ValueError(
                    f"`position[{name!r}]` has shape {value.shape}; it must end in {shape}."
                )
            parts[name] = value.reshape((*batch, -1))
        if len({part.shape[:-1] for part in parts.values()}) > 1:
            found = {name: part.shape[:-1] for name, part in parts.items()}
            raise ValueError(f"`position` has different leading axes for its sites: {found}.")
        return xp.concatenate(list(parts.values()), axis=-1)

    def unflatten(self, flat):
        """Split a (..., D) array into a dict of (..., site shape)."""
        position, start = {}, 0
        for name, shape in self.shapes.items():
            size = int(np.prod(shape))
            position[name] = flat[..., start : start + size].reshape(flat.shape[:-1] + shape)
            start += size
        return position

    def _set(self, data, shapes, mean, covariance) -> Any:
        self.data, self.shapes = data, shapes
        self.names = tuple(
            itertools.chain.from_iterable(map(_scalar_names, shapes, shapes.values()))
        )
        self.mean = self.unflatten(mean)
        self.covariance = covariance
        self.sd = np.sqrt(np.diag(covariance))

    def _index(self, name):
        if name not in self.names:
            shown = ", ".join(self.names[:8]) + (", ..." if len(self.names) > 8 else "")
            raise ValueError(f"`name` {name!r} is not a scalar parameter; choose one of {shown}.")
        return self.names.index(name)

    def __repr__(self):
        rows = len(self.data[0])
        return f"{type(self).__name__}(num_data={rows}, sites={self.shapes})"


def standard_normals(key, shape):
    """Draw standard normal numbers as a float64 NumPy array, whatever JAX's precision is."""
    with jax.enable_x64(True):
        return np.asarray(jax.random.normal(key, shape, dtype=jnp.float64))


def representable(array):
    """Round to values that float32 can represent, and return them as float64.

    A sampler in JAX's default precision then sees exactly the data of the exact posterior.
    """
    return np.asarray(array, dtype=np.float32).astype(np.float64)


def _scalar_names(site, shape):
    if shape == ():
        return [site]
    return [f"{site}[{','.join(map(str, index))}]" for index in np.ndindex(*shape)]
