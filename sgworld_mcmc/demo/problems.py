"""The two problems of the demo, on real data: one has an exact posterior and one has not."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist

from sgworld_mcmc.exact import LinearRegressionUnknownNoise

__all__ = ["MissingExtraError", "Problem", "breast_cancer", "diabetes"]


class MissingExtraError(ImportError):
    """Raised if an optional package that the demo needs is not installed."""


class Problem(NamedTuple):
    """A model with its data.

    Attributes
    ----------
    name
        Beginning of the names of this problem's files.
    title
        Heading of this problem's table.
    model
        NumPyro model.
    data
        The model's arguments, with the observations along the leading axis.
    exact
        The exact posterior, or None if it is not known.
    """

    name: str
    title: str
    model: Callable
    data: tuple[np.ndarray, ...]
    exact: Any

    @property
    def size(self) -> int:
        """N, the number of observations."""
        return len(self.data[0])


def diabetes() -> Problem:
    """Make a linear regression with unknown noise on the diabetes data.

    It has 442 patients, 10 standardised features and the standardised progression of the disease.
    Its exact posterior is that of :class:`sgworld_mcmc.exact.LinearRegressionUnknownNoise`.
    """
    data = _datasets().load_diabetes()
    exact = LinearRegressionUnknownNoise.from_data(_standard(data.data), _standard(data.target))
    title = f"Diabetes: linear regression, unknown noise, {len(data.target)} x 10, exact posterior"
    return Problem("diabetes", title, exact.model, exact.data, exact)


def breast_cancer() -> Problem:
    """Make a logistic regression on the breast-cancer data, whose reference is a long NUTS run.

    It has 569 tumours and 30 standardised features, strongly correlated. The classes are nearly
    separable, so that the posterior is skewed.
    """
    data = _datasets().load_breast_cancer()
    arguments = (_standard(data.data).astype(np.float32), data.target.astype(np.float32))
    title = f"Breast cancer: logistic regression, {len(data.target)} x 31, long NUTS run as truth"
    return Problem("breast_cancer", title, logistic_regression, arguments, None)


def logistic_regression(X, y=None):
    """Define a logistic regression with weakly informative normal priors."""
    intercept = numpyro.sample("intercept", dist.Normal(0.0, 2.5))
    beta = numpyro.sample("beta", dist.Normal(0.0, 1.0).expand([X.shape[1]]).to_event(1))
    with numpyro.plate("data", X.shape[0]):
        logits = intercept + jnp.dot(X, beta)
        numpyro.sample("y", dist.Bernoulli(logits=logits), obs=y)


def _datasets():
    try:
        from sklearn import datasets
    except ImportError as error:
        raise MissingExtraError(
            "the demo takes its data from scikit-learn, which is not installed: "
            "pip install 'sgworld-mcmc[demo]'"
        ) from error
    return datasets


def _standard(values):
    """Scale each column to mean 0 and standard deviation 1."""
    return (values - values.mean(0)) / values.std(0)
