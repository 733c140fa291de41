"""Compare draws with an exact posterior: errors of mean, spread and shape, beside their noise."""

import io
import math
from typing import Any, NamedTuple

import numpy as np
from numpyro.diagnostics import effective_sample_size

from sgworld_mcmc.exact.marginal import ks_distance, wasserstein_distance, wasserstein_noise
from sgworld_mcmc.exact.samples import flatten_samples

# Mean of the Kolmogorov distribution: sqrt(n) times the expected distance of n exact draws.
_KOLMOGOROV_MEAN = math.sqrt(math.pi / 2) * math.log(2)


class Comparison(NamedTuple):
    """The errors of draws against an exact posterior, with one entry for each scalar parameter.

    ``print`` shows a table. Errors beyond three Monte Carlo standard errors carry a star: they are
    bias, and the others may be noise of a finite run.

    Attributes
    ----------
    names : tuple of str
        Scalar parameters, such as ``beta[0]``. All arrays below have shape (D,) in this order.
    mean_error : numpy.ndarray
        Sampled minus exact mean, in exact posterior standard deviations.
    mean_error_se : numpy.ndarray
        Monte Carlo standard error of ``mean_error``.
    sd_ratio : numpy.ndarray
        Sampled standard deviation over the exact one.
    sd_ratio_se : numpy.ndarray
        Monte Carlo standard error of ``sd_ratio``.
    ks : numpy.ndarray
        Kolmogorov-Smirnov distance to the exact marginal, between 0 and 1.
    ks_noise : numpy.ndarray
        Average distance that exact draws of the same effective sample size would have.
    wasserstein : numpy.ndarray
        Wasserstein-1 distance to the exact marginal, in exact posterior standard deviations.
    wasserstein_noise : numpy.ndarray
        Average distance that exact draws of the same effective sample size would have.
    ess : numpy.ndarray
        Effective sample size for the mean.
    kl : float or None
        KL(N(sampled mean, sampled covariance) || exact), in nats, if the posterior is Gaussian. It
        is infinite if there are no more draws than parameters.
    kl_noise : float or None
        Average divergence that exact draws of the same effective sample size would have.
    num_chains, num_draws : int
        Number of chains, and of draws in each.
    """

    names: tuple[str, ...]
    mean_error: np.ndarray
    mean_error_se: np.ndarray
    sd_ratio: np.ndarray
    sd_ratio_se: np.ndarray
    ks: np.ndarray
    ks_noise: np.ndarray
    wasserstein: np.ndarray
    wasserstein_noise: np.ndarray
    ess: np.ndarray
    kl: float | None
    kl_noise: float | None
    num_chains: int
    num_draws: int

    def to_dict(self) -> dict[str, Any]:
        """Return the same fields as lists, numbers and strings, ready for JSON."""
        plain = {"names": list(self.names)}
        for field, value in self._asdict().items():
            if field != "names":
                plain[field] = value.tolist() if isinstance(value, np.ndarray) else value
        return plain

    def __str__(self):
        return _render(self)

    __repr__ = __str__


def compare(posterior, samples) -> Comparison:
    """Measure the error of ``samples`` against an exact posterior.

    Parameters
    ----------
    posterior : ExactPosterior
        An exact posterior of this package.
    samples : dict, numpyro.infer.MCMC, arviz.InferenceData or xarray.DataTree
        Draws in constrained values: a dict from site to (draws, ...) or (chains, draws, ...), an
        MCMC object that has been run, or ArviZ data with a posterior group.

    Returns
    -------
    Comparison
        Per-parameter errors with their Monte Carlo standard errors.

    Raises
    ------
    ValueError
        If sites are missing, shapes are wrong, draws are not finite, or there are fewer than two.
    TypeError
        If ``samples`` is of another kind.

    Notes
    -----
    The standard error of the mean is s / sqrt(ESS); that of the standard deviation follows by the
    delta method from the effective sample size of the squared deviations, so that heavy tails and
    slowly mixing spread count. The noise levels of the distances treat the chain as ESS independent
    draws, which is exact for independent draws and a rule of thumb for others. With one chain the
    ESS cannot see that the chain is stuck in a part of the posterior.

    Examples
    --------
    >>> import jax
    >>> from sgworld_mcmc import exact
    >>> posterior = exact.GaussianMean(dim=2)
    >>> result = exact.compare(posterior, posterior.sample(jax.random.key(1), 1000))
    >>> bool((abs(result.mean_error) < 4 * result.mean_error_se).all())
    True
    """
    draws = flatten_samples(samples, posterior.shapes)
    num_chains, num_draws, dim = draws.shape
    total = num_chains * num_draws
    flat = draws.reshape(total, dim)
    centre = posterior.flatten(posterior.mean)
    # Draws are standardised by the exact posterior, so that all errors are in posterior sd.
    z = (draws - centre) / posterior.sd
    mean_error = z.mean(axis=(0, 1))
    squared = (z - mean_error) ** 2
    sd_ratio = np.sqrt(squared.sum(axis=(0, 1)) / (total - 1))
    ess = _ess(z)
    with np.errstate(invalid="ignore"):
        sd_ratio_se = squared.std(axis=(0, 1)) / (2 * sd_ratio * np.sqrt(_ess(squared)))

    marginals = [posterior.marginal(name) for name in posterior.names]
    wasserstein = np.array(
        [wasserstein_distance(m, x) for m, x in zip(marginals, flat.T, strict=True)]
    )
    noise = np.array([wasserstein_noise(m) for m in marginals])
    kl = posterior.gaussian_kl(flat)
    # To second order the KL of exact draws is half a unit over the ESS for each mean and each entry
    # of the covariance's triangle.
    free_numbers = dim + dim * (dim + 1) / 2
    return Comparison(
        names=posterior.names,
        mean_error=mean_error,
        mean_error_se=sd_ratio / np.sqrt(ess),
        sd_ratio=sd_ratio,
        sd_ratio_se=sd_ratio_se,
        ks=np.array([ks_distance(m, x) for m, x in zip(marginals, flat.T, strict=True)]),
        ks_noise=_KOLMOGOROV_MEAN / np.sqrt(ess),
        wasserstein=wasserstein / posterior.sd,
        wasserstein_noise=noise / posterior.sd / np.sqrt(ess),
        ess=ess,
        kl=kl,
        kl_noise=None if kl is None else float(0.5 * free_numbers * np.mean(1 / ess)),
        num_chains=num_chains,
        num_draws=num_draws,
    )


def _ess(values):
    """Return the effective sample size of (chains, draws, D), between 1 and n log10(n)."""
    total = values.shape[0] * values.shape[1]
    with np.errstate(invalid="ignore", divide="ignore"):
        ess = np.atleast_1d(effective_sample_size(values))
    # Very short or perfectly antithetic chains would give infinity; Vehtari et al. (2021) use this
    # limit. NaN means that the draws never moved: they are worth one draw.
    return np.clip(
        np.nan_to_num(ess, nan=1.0, posinf=np.inf), 1.0, total * max(1.0, np.log10(total))
    )


def _render(result):
    from rich.box import SIMPLE_HEAD
    from rich.console import Console
    from rich.table import Table

    table = Table(box=SIMPLE_HEAD, pad_edge=False)
    table.add_column("parameter")
    for heading in ("mean error", "sd ratio", "KS", "Wasserstein-1", "ESS"):
        table.add_column(heading, justify="right")

    def with_error(value, error, target):
        star = "*" if abs(value - target) > 3 * error else " "
        return f"{value:.4f} ± {error:.4f}{star}"

    for i, name in enumerate(result.names):
        table.add_row(
            name,
            with_error(result.mean_error[i], result.mean_error_se[i], 0.0),
            with_error(result.sd_ratio[i], result.sd_ratio_se[i], 1.0),
            f"{result.ks[i]:.4f} ({result.ks_noise[i]:.4f})",
            f"{result.wasserstein[i]:.4f} ({result.wasserstein_noise[i]:.4f})",
            f"{result.ess[i]:.0f}",
        )
    text = io.StringIO()
    Console(file=text, width=120, color_system=None, force_jupyter=False).print(table)
    lines = [
        f"{result.num_chains} chain{'s' * (result.num_chains > 1)} of {result.num_draws} draws "
        "against the exact posterior",
        "\n".join(line.rstrip() for line in text.getvalue().strip("\n").splitlines()),
    ]
    if result.kl is not None:
        lines.append(f"KL to the exact posterior: {result.kl:.3g} nats ({result.kl_noise:.3g})")
    lines.append(
        "Mean error and Wasserstein-1 in posterior sd; ± Monte Carlo standard error, * beyond 3 of "
        "them;\nin brackets what exact draws with this ESS would show on average."
    )
    if result.num_chains == 1:
        lines.append("One chain only: the ESS, and with it every error bar, may be too optimistic.")
    return "\n".join(lines)
