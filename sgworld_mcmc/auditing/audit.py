"""Audit draws from anywhere against the model whose posterior they should be draws of."""

from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from sgworld_mcmc.arrays import float_dtype, from_numpy
from sgworld_mcmc.auditing.audit_report import AuditReport
from sgworld_mcmc.auditing.identities import stein_identities
from sgworld_mcmc.auditing.kernel_stein import kernel_test
from sgworld_mcmc.auditing.read_draws import positions_of, read_draws
from sgworld_mcmc.auditing.series import combined
from sgworld_mcmc.coordinates.dense import Dense
from sgworld_mcmc.coordinates.diagonal import Diagonal
from sgworld_mcmc.data.in_memory import generator_of
from sgworld_mcmc.model.user_data import read_user_data
from sgworld_mcmc.progress import count_rows, stage
from sgworld_mcmc.protocols import Coordinates
from sgworld_mcmc.settings import make_settings
from sgworld_mcmc.setup.checked_model import check_model
from sgworld_mcmc.setup.compiled_functions import functions_of
from sgworld_mcmc.setup.coordinates_from_mode import set_up_feed
from sgworld_mcmc.slabs import largest_r_hat, r_hats, sample_sizes

__all__ = ["Auditor", "audit"]

# Gradients are computed at up to MOST draws, and at no more than BUDGET numbers of the data allow,
# but at FEWEST at least.
MOST, FEWEST, BUDGET = 1000, 200, 4e10
# A covariance matrix is estimated if there are this many draws for each parameter.
DRAWS_FOR_EACH = 5
# Rows of the data that the model is shown when only its latent sites are of interest.
SOME_ROWS = 8
# An audit needs so many draws. Fewer effective ones than the second number make standard errors
# rough, so that right draws are blamed more often than the level says.
FEW, ROUGH = 50, 300
# Weights of the five tests: that of the kernel is the broadest and has the least power.
WEIGHTS = (2, 2, 2, 2, 1)
# Chains with a larger R-hat have not mixed.
UNMIXED = 1.05
UNSEEN = (
    "an audit sees the places where the draws are. It cannot see a mode of the posterior, or a "
    "part of a funnel, that no draw has visited, nor wrong weights of modes that draws have "
    "visited."
)


def audit(model: Callable, draws: Any, *args: Any, **kwargs: Any) -> AuditReport:
    """Measure the errors of draws from any sampler, with gradients of all rows at the draws.

    R-hat and effective sample sizes say how noisy draws are, not whether they come from the right
    distribution. Gradients of the log density do: their mean is zero at draws of the posterior, and
    their covariance with the draws is minus one (Stein's identities). Where they are not, the
    deviations give the errors of means and widths.

    Parameters
    ----------
    model
        The NumPyro model.
    draws
        A dict of *constrained* values by site, (draws, ...) or (chains, draws, ...), as NUTS, this
        package and SVI's guides return them; an ``MCMC`` object after its run; an ArviZ object or
        the path of its file. Values in NumPyro's unconstrained coordinates, as of BlackJAX, are
        marked by :class:`sgworld_mcmc.Unconstrained`. Sites that are not latent are ignored.
    *args, **kwargs
        The model's own arguments.

    Returns
    -------
    AuditReport
        Errors of mean and width by unconstrained parameter, each with its standard error; p-values
        of five tests; a verdict whose level is 1 %. It prints as a table.

    Raises
    ------
    ValueError, TypeError
        If the draws do not belong to the model, are not finite, or are fewer than 50.

    Notes
    -----
    Correlated draws are thinned first, to about as many as they are worth. Gradients are computed
    at up to 1000 of them, at fewer (at least 200) where N x D x draws exceeds 4e10. The model may
    be one that cannot be cut into minibatches; discrete sites are summed out.

    References
    ----------
    Gorham and Mackey, "Measuring Sample Quality with Kernels", ICML 2017. Chwialkowski, Strathmann
    and Gretton, "A Kernel Test of Goodness of Fit", ICML 2016.

    Examples
    --------
    >>> import jax, sgworld_mcmc
    >>> from sgworld_mcmc import exact
    >>> target = exact.LinearRegression()
    >>> draws = target.sample(jax.random.key(0), 1000)
    >>> sgworld_mcmc.audit(target.model, draws, *target.data).passed
    True
    >>> wide = {site: x.mean(0) + 1.2 * (x - x.mean(0)) for site, x in draws.items()}
    >>> sgworld_mcmc.audit(target.model, wide, *target.data).passed
    False
    """
    stage("reading the draws")
    values = read_draws(draws)
    return Auditor(model, *args, **kwargs)(values)


class Auditor:
    """An audit of one model, for any number of sets of draws: its programs are compiled once.

    Parameters
    ----------
    model, args, kwargs
        As for :func:`audit`.
    """

    def __init__(self, model: Callable, *args: Any, **kwargs: Any) -> None:
        read = read_user_data(model, args, kwargs)
        generator = generator_of(np.zeros(2, np.uint32))
        self._checked = check_model(generator, model, make_settings(), read.args, read.kwargs, {})
        view = self._checked.model
        if view.random:
            raise ValueError(
                "The model draws random numbers at every evaluation: its log density, of which an "
                "audit takes gradients, is not a fixed function. Fix them with "
                "numpyro.handlers.seed."
            )
        few = jax.tree.map(lambda x: x[:SOME_ROWS], self._checked.part)
        self._positions = positions_of(view, few, self._checked.constants(view.precise))

    def __call__(self, draws: Any) -> AuditReport:
        """Return the report of draws."""
        view, values = self._checked.model, read_draws(draws)
        positions = self._positions(values)
        chains, count, dimension = positions.shape
        if chains * count < FEW:
            raise ValueError(
                f"`draws` has {chains * count} draws: an audit needs {FEW} of them or more."
            )
        r_hat = float(np.max(r_hats(positions))) if chains > 1 and count > 3 else np.nan
        agree = not r_hat > largest_r_hat(chains, count, dimension)
        positions = _thinned(positions)
        allowed = int(np.clip(BUDGET / (view.num_rows * dimension), FEWEST, MOST))
        each = min(positions.shape[1], max(1, allowed // chains))
        positions = positions[:, np.linspace(0, positions.shape[1] - 1, each).astype(int)]
        coordinates = _coordinates(positions)
        z = coordinates.to_z(positions)
        stage("gradients at the draws")
        g = _scores(self._checked, coordinates, z)
        _check_scores(g)
        made = _report(view.scalar_names(), positions, coordinates, z, g)
        return made._replace(r_hat=r_hat, agree=agree)


def _thinned(positions: np.ndarray) -> np.ndarray:
    """Return draws of which few are correlated: standard errors are more certain with these."""
    chains, count, _ = positions.shape
    with np.errstate(invalid="ignore"):  # a parameter that does not vary is an error later
        ess = np.nan_to_num(sample_sizes(positions), nan=1.0)
    ess = np.clip(ess, 1, None)
    every = max(1, int(chains * count / ess.min()))
    return positions[:, :: min(every, max(1, chains * count // FEWEST))]


def _report(
    names: list[str],
    positions: np.ndarray,
    coordinates: Coordinates,
    z: np.ndarray,
    g: np.ndarray,
) -> AuditReport:
    """Return the report of draws and the scores there."""
    chains, draws = z.shape[:2]
    ess = sample_sizes(positions)
    found = stein_identities(z, g, coordinates.directions)
    autocorrelation = max(1.0, chains * draws / float(np.nanmin(np.clip(ess, 1, None))))
    kernel = kernel_test(z, g, autocorrelation, np.random.default_rng(0))
    p_values = {
        "means": combined(found.shift_test.p_values),
        "widths": combined(found.width_test.p_values),
        "joint mean": found.joint_shift,
        "joint width": found.joint_width,
        "kernel": kernel.p_value,
    }
    return AuditReport(
        names=tuple(names),
        mean_shift=found.shift,
        mean_shift_se=found.shift_test.error,
        width_ratio=np.exp(found.width),
        width_ratio_se=found.width_test.error,
        p_values=p_values,
        p_value=combined(np.array(list(p_values.values())), np.array(WEIGHTS)),
        virial=found.virial,
        kernel_stein_discrepancy=kernel.discrepancy,
        ess=ess,
        num_chains=chains,
        num_draws=draws,
        r_hat=np.nan,
        agree=True,
        notes=tuple(_notes(positions, ess, isinstance(coordinates, Diagonal))),
    )


def _coordinates(positions: np.ndarray) -> Coordinates:
    """Return coordinates in which the draws have mean zero and covariance one, if they are many."""
    flat = positions.reshape(-1, positions.shape[-1])
    center, dimension = flat.mean(0), flat.shape[1]
    variances = flat.var(0)
    if not variances.all():
        raise ValueError("`draws` has a parameter that is the same in all draws.")
    if len(flat) < DRAWS_FOR_EACH * dimension:
        return Diagonal(center, np.sqrt(variances))
    covariance = np.atleast_2d(np.cov(flat.T, bias=True))
    try:
        return Dense(center, np.linalg.cholesky(covariance))
    except np.linalg.LinAlgError:
        return Diagonal(center, np.sqrt(variances))


def _scores(checked, coordinates: Coordinates, z: np.ndarray) -> np.ndarray:
    """Return the gradients of the log density of all rows at z (chains, draws, D)."""
    view = checked.model
    count_rows(z.shape[0] * z.shape[1] * view.num_rows)
    with jax.enable_x64(view.precise):
        dtype = float_dtype()
        gradients = functions_of(view, None).gradients(
            from_numpy(z.reshape(-1, z.shape[-1]), dtype),
            coordinates.cast(dtype),
            set_up_feed(checked.rows(view.precise)),
            checked.constants(view.precise),
        )
    return np.asarray(gradients, float).reshape(z.shape)


def _check_scores(g: np.ndarray) -> None:
    bad = ~np.isfinite(g).all(axis=-1)
    if bad.any():
        raise ValueError(
            f"The gradient of the log density is NaN or infinite at {int(bad.sum())} of {bad.size} "
            "draws: they are not draws of this model and data, or the model needs double precision."
        )


def _notes(positions: np.ndarray, ess: np.ndarray, diagonal: bool):
    chains, draws, dimension = positions.shape
    if np.min(ess) < ROUGH:
        yield (
            f"the smallest effective sample size is {np.min(ess):.0f}: standard errors from so few "
            "independent draws are rough, and right draws are blamed more often than the level "
            "says."
        )
    if chains > 1 and draws > 3 and np.max(r_hats(positions)) > UNMIXED:
        yield (
            f"the chains do not agree (R-hat {np.max(r_hats(positions)):.2f}): they "
            "have not mixed, whatever the gradients say of each."
        )
    if diagonal:
        yield (
            f"{chains * draws} draws are too few for the covariance of {dimension} parameters: "
            "mean errors are those of independent parameters, too small along correlated ones."
        )
    yield UNSEEN
