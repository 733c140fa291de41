"""The NumPyro interface: ``mcmc = SGWORLD(model)`` and ``mcmc = SGLD(model)``."""

import difflib
import inspect
from collections.abc import Callable
from typing import Any

from sgworld_mcmc.checks import check_integer
from sgworld_mcmc.data.orders.replacement import Replacement
from sgworld_mcmc.infer.kernel import SGMCMCKernel
from sgworld_mcmc.infer.mcmc import MinibatchMCMC
from sgworld_mcmc.members import ORDERS, WITHOUT_REPLACEMENT, resolve
from sgworld_mcmc.settings import make_settings
from sgworld_mcmc.setup.plan_file import load_plan
from sgworld_mcmc.setup.run_plan import RunPlan

__all__ = ["SGLD", "SGWORLD"]

_COMMON = """
    Parameters
    ----------
    model
        An ordinary NumPyro model, with or without a plate over the observations, which may have a
        ``subsample_size``. Latent sites must be continuous and global.
    num_samples
        Number of draws of each chain.
    num_warmup
        Number of burn-in calls of each chain before the first draw. A call makes an epoch of steps,
        or the steps of a draw if they are fewer. Chains start where pilot chains ended, near the
        posterior.
    num_chains, chain_method
        Number of chains, by default four, and how they run: ``"vectorized"`` in one program
        (default), ``"sequential"``, ``"parallel"`` (one device each) or a function such as
        ``jax.vmap``.
    thinning
        As in NumPyro.
    progress_bar
        Whether to show what the run is doing and how long it will last. None (default) shows it
        in terminals and notebooks. The display costs nothing that can be measured.
    batch_size
        Largest number of rows in a minibatch, 1 to N. None chooses it; it may then be all rows.
    dynamics
        ``"overdamped"`` or ``"kinetic"``, Langevin dynamics with a velocity, by the integrator UBU.
        ``"auto"`` is kinetic, without a search for a mode, for more than 1000 parameters that do
        not go by group, for networks with convolutions, and for others whose posterior has no
        usable mode; else overdamped. Error and tolerance are then those of the sampler's
        temperature, the mean over all directions, and the report speaks of quantities instead of
        single parameters (docs/theory.md, section 5).
    friction
        Friction gamma > 0 of kinetic dynamics, in the sampler's coordinates; ``"auto"`` chooses it.
    step_size
        Step size h in BlackJAX's convention, in *preconditioned* coordinates (in the model's
        unconstrained ones if ``preconditioner="none"``), or ``"auto"``; or a schedule, a function
        of the number of minibatch steps made so far, as in optax. Then ``get_extra_fields()`` has
        the ``step_size`` of each draw: decreasing steps are the draws' weights (Welling & Teh
        2011). With ``steps_per_draw`` the length of a cycle, draws are taken at its end.
    temperature
        Temperature tau: the draws are those of exp(-U / tau); or a schedule, whose last value is
        that of the set-up and the report. It should have reached it by the end of the warm-up.
    steps_per_draw
        Number of minibatch steps from draw to draw. None (or ``"auto"``) makes the autocorrelation
        time about two draws; with plain gradients it may be whole epochs{steps}, at whose ends the
        batches' noise has cancelled.
    gradient
        ``"plain"`` is the gradient of the minibatch alone. ``"control_variate"`` corrects it by
        its value at the mode, which leaves only the noise of the batches' curvature and costs
        nothing per step. ``"taylor"`` corrects it to second order: it has no noise on a quadratic
        potential and three times the cost per step. ``"auto"`` chooses one by their noise, measured
        at draws of pilot chains.
    preconditioner
        ``"dense"`` takes the Hessian at the mode, ``"diagonal"`` its diagonal, ``"none"`` nothing.
        An array is an estimate of the posterior covariance of the flat unconstrained position,
        (D, D) or (D,), sites in alphabetical order. ``"auto"`` is dense up to 1000 dimensions and
        diagonal above, and made anew from pilot chains if the posterior is far from Gaussian.
    noise
        ``"averaged"`` (default: without the Euler error) or ``"independent"``.
    tolerance
        Relative error of the posterior variance that is allowed. Settings that are not given are
        chosen so that the predicted error of every variance stays below it, and that of every mean
        below twice as many standard deviations, with the fewest rows read for each effective draw.
        :meth:`bias_report` shows what was predicted, and what is measured.
    integrator
        An integrator of your own in place of ``noise`` (docs/add_a_sampler.md); it needs a
        ``step_size``.
    plan
        A set-up to use again: the path that :meth:`save_plan` has written. Nothing is searched,
        measured or chosen; the same key then gives the same draws as the run that made the plan.
        A plan for another model or other data is refused, with the reason.
    init_strategy
        NumPyro's initialisation strategy for the search for the mode.
    start
        ``"given"`` starts each chain at its ``init_params`` (one point for all, or chains first),
        without a search for the mode; the preconditioner is made from the curvature at the most
        probable of them. ``"mode"``, and ``"auto"``, search for the mode, from ``init_params`` if
        there are any.
    quantities
        A function of the constrained sites of one draw, a dict of arrays by name, that returns a
        pytree of numbers (with jax.numpy). :meth:`quantities` has them for every draw, and the
        report their R-hat and effective draws. Convergence and bias of kinetic dynamics are judged
        by them; by default by log likelihoods of up to 256 rows, the potential, and sites of at
        most ten numbers.
    keep
        A function of the sites of one draw that returns what is kept of it in place of all sites, a
        dict of arrays by name: predictions instead of weights, say. ``get_samples()`` then has
        that. Any other pytree is kept under the name ``"kept"``.
    stream
        Whether rows are read from their files again and again instead of being held in memory:
        True, False, or ``"auto"`` (default) for NumPy memory maps, HDF5 and Zarr arrays, Parquet
        files and data sources that take more than a quarter of the free memory (docs/using.md).
    devices, mesh
        Several devices for one run: a number, a sequence of JAX devices, or a
        ``jax.sharding.Mesh`` with axes ``"chains"`` and ``"data"``. ``devices`` are laid over the
        chains as far as their number allows, and over the rows of each batch where that leaves some
        and batches are worth it; :meth:`bias_report` says what was done and why. With the devices
        of several hosts each process is given its own rows only (docs/clusters.md).
    data_shards
        Number of parts S of the rows, each of which is shuffled by itself and gives an equal share
        to every batch, for up to S devices. By default it is what ``devices`` or ``mesh`` make of
        it; a number makes the same draws, to rounding, on any number of devices.
    share_batches
        Whether all chains use the same batch at a time, in an order that is random anew each epoch.
        Its rows are then read once for all chains, and large batches make products of matrices: of
        plain gradients eight chains cost little more than two. Each chain has the same law as by
        itself, but what is left of the batches' noise is common to all: keep False (default) where
        chains are compared with each other to judge errors of a few per cent. It needs
        ``chain_method="vectorized"`` and one device. Rows may be streamed.
    record_moments
        Whether to accumulate lagged moments of the first 32 preconditioned coordinates after the
        warm-up, at every minibatch step with replacement and at every epoch without, also of calls
        that are thinned out. :func:`sgworld_mcmc.nonequilibrium.recorded_moments` reads them, and
        :meth:`bias_report` tests detailed balance with them. They take at most half a MB for each
        chain.
{order}
    Raises
    ------
    ValueError, TypeError
        If settings make no sense; :meth:`run` checks the model and the data.
"""


_ORDER = """    order
        ``"batches"`` (default of overdamped dynamics), ``"examples"``, ``"symmetric"`` (default of
        kinetic dynamics) or ``"once"``: see
        :mod:`sgworld_mcmc.data.orders`.
"""


class SGWORLD(MinibatchMCMC):
    __doc__ = f"""Minibatch MCMC without replacement for a NumPyro model.

    Every epoch visits every row exactly once, in random order: the noise of the minibatches
    cancels within the epoch and leaves an error of the posterior variance of about T^3/24, with
    T the time per epoch in units of the curvature; with replacement it is T/2 (arXiv:2306.03521;
    docs/theory.md, section 2.2). An instance is a ``numpyro.infer.MCMC``.
    {_COMMON.format(steps=" (two for ``symmetric``)", order=_ORDER)}
    Examples
    --------
    >>> import jax, numpyro, numpyro.distributions as dist
    >>> from sgworld_mcmc import SGWORLD
    >>> def model(X, y):
    ...     beta = numpyro.sample("beta", dist.Normal(0, 10).expand([2]).to_event(1))
    ...     with numpyro.plate("data", len(y)):
    ...         numpyro.sample("y", dist.Normal(X @ beta, 1.0), obs=y)
    >>> X = jax.random.normal(jax.random.key(1), (5000, 2))
    >>> y = X @ jax.numpy.array([1.0, -2.0]) + jax.random.normal(jax.random.key(2), (5000,))
    >>> mcmc = SGWORLD(model, num_samples=500)
    >>> mcmc.run(jax.random.key(0), X, y)
    >>> mcmc.get_samples()["beta"].shape
    (2000, 2)
    """

    def __init__(self, model: Callable, **settings: Any) -> None:
        if "order" in settings:
            order = resolve("order", settings["order"], ORDERS, WITHOUT_REPLACEMENT)
            if order.period == 0:
                raise ValueError("`order` draws batches with replacement: use SGLD.")
            settings["order"] = order
        sampler, run = _sampler(type(self), model, settings)
        super().__init__(sampler, **run)


class SGLD(MinibatchMCMC):
    __doc__ = f"""Stochastic gradient Langevin dynamics for a NumPyro model, with replacement.

    It differs from :class:`SGWORLD` in the order only: every step draws one of the M batches
    independently (Welling & Teh 2011), so that the minibatches' noise adds h C0 / 2 to the
    relative error of the variance (docs/theory.md, section 2.2). The automatic settings meet the
    same tolerance, which takes a much smaller step with plain gradients.
    {_COMMON.format(steps="", order="")}
    Examples
    --------
    >>> from sgworld_mcmc import SGLD, exact
    >>> import jax
    >>> target = exact.GaussianMean()
    >>> mcmc = SGLD(target.model, num_samples=100)
    >>> mcmc.run(jax.random.key(0), *target.data)
    """

    def __init__(self, model: Callable, **settings: Any) -> None:
        if "order" in settings:
            raise TypeError("SGLD has no setting 'order': use SGWORLD.")
        sampler, run = _sampler(type(self), model, {**settings, "order": Replacement()})
        super().__init__(sampler, **run)


_RUN = inspect.signature(MinibatchMCMC.__init__).parameters
_SETTINGS = inspect.signature(make_settings).parameters
_INTERNAL = ("self", "sampler", "chains")
# What a run takes is no setting of the object.
_OF_RUN = tuple(
    name
    for name, parameter in inspect.signature(MinibatchMCMC.run).parameters.items()
    if parameter.kind is parameter.KEYWORD_ONLY or name == "rng_key"
)
# Settings of NUTS and HMC that have no counterpart.
_OF_NUTS = (
    "adapt_mass_matrix",
    "adapt_step_size",
    "dense_mass",
    "find_heuristic_step_size",
    "forward_mode_differentiation",
    "inverse_mass_matrix",
    "max_tree_depth",
    "regularize_mass_matrix",
    "target_accept_prob",
    "trajectory_length",
)


def _sampler(cls: type, model: Callable, given: dict[str, Any]) -> tuple[SGMCMCKernel, dict]:
    """Return the kernel, and the settings of the run.

    Raises
    ------
    TypeError
        If there is no setting of a given name; the message suggests the closest one.
    ValueError
        If a plan is given together with settings that are part of it.
    """
    known = [name for name in (*_RUN, *_SETTINGS) if name not in _INTERNAL]
    for name in given:
        if name in _OF_RUN:
            raise TypeError(f"{cls.__name__} has no setting {name!r}: it belongs to run(...).")
        if name in _OF_NUTS:
            raise TypeError(
                f"{cls.__name__} has no setting {name!r}, which is one of NUTS. Here "
                "`tolerance` says how large the errors of the draws may be."
            )
        if name not in known:
            close = difflib.get_close_matches(name, known, n=1, cutoff=0.4)
            hint = f" Did you mean {close[0]!r}?" if close else ""
            raise TypeError(f"{cls.__name__} has no setting {name!r}.{hint}")
    run = {name: value for name, value in given.items() if name in _RUN}
    settings = {name: value for name, value in given.items() if name in _SETTINGS}
    if settings.get("devices") is not None or settings.get("mesh") is not None:
        settings["chains"] = _chains_together(**run)
    if run.get("plan") is not None:
        plan = run["plan"] = _plan(cls, run["plan"], settings)
        settings["order"] = plan.dynamics.order
        settings["data_shards"] = plan.strata
        settings |= {"integrator": plan.dynamics.integrator, "step_size": plan.step_size}
    if settings.get("share_batches") and run.get("chain_method", "vectorized") != "vectorized":
        raise ValueError(
            "`share_batches` needs chains that run together: leave out `chain_method` "
            f"{run['chain_method']!r}."
        )
    kernel = SGMCMCKernel(model, **settings)
    if kernel.on_hosts and run.get("chain_method") == "sequential":
        raise ValueError("`chain_method` 'sequential' is for one host: leave it out.")
    return kernel, run


def _chains_together(
    num_chains: int = _RUN["num_chains"].default, chain_method: Any = "vectorized", **_: Any
) -> int:
    """Return how many chains several devices advance together."""
    if chain_method not in ("vectorized", "sequential"):
        raise ValueError(
            f"`chain_method` {chain_method!r} lays out the chains by itself: leave it out beside "
            "`devices` or `mesh`."
        )
    return check_integer("num_chains", num_chains, 1) if chain_method == "vectorized" else 1


def _plan(cls: type, plan: Any, settings: dict[str, Any]) -> RunPlan:
    """Return the plan, read from its file if it is a path; raise if a setting contradicts it."""
    beside = ("order", "init_strategy", "integrator", "quantities", "keep", "stream")
    beside += ("devices", "mesh", "share_batches", "chains")
    own = {name for name in settings if name not in beside}
    if own:
        raise ValueError(
            f"{sorted(own)} are part of the plan: leave them out, or set up anew without `plan`."
        )
    if not isinstance(plan, RunPlan):
        plan = load_plan(plan, **{name: settings.get(name) for name in ("integrator", "order")})
    elif plan.description.log_densities is None:
        raise ValueError(
            "`plan` does not say which model and data it was made for: give the path that "
            "`mcmc.save_plan(path)` has written."
        )
    with_replacement = plan.dynamics.order.period == 0
    if with_replacement != (cls is SGLD):
        other = "SGLD" if with_replacement else "SGWORLD"
        raise ValueError(f"`plan` is one of {other}, not of {cls.__name__}: use {other}.")
    for name in ("order", "integrator"):
        if name in settings and settings[name] not in (None, getattr(plan.dynamics, name)):
            raise ValueError(f"`{name}` is another one than the plan's: leave it out.")
    return plan


def _signature(*left_out: str) -> inspect.Signature:
    """Return a signature with all settings by name, for ``help`` and for editors."""
    names = [*_RUN.values(), *_SETTINGS.values()]
    shown = [p for p in names if p.name not in (*_INTERNAL, *left_out)]
    model = inspect.Parameter("model", inspect.Parameter.POSITIONAL_OR_KEYWORD)
    return inspect.Signature([model, *shown])


SGWORLD.__signature__ = _signature()
SGLD.__signature__ = _signature("order")
