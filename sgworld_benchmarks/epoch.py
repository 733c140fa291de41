"""Measure the time of one epoch of the kernels, in units of one full-data gradient by autodiff.

The problem is a logistic regression, with one chain unless a label says otherwise: the time is then
that of an epoch of all chains. The kernels are
compiled as the package compiles them (:func:`sgworld_mcmc.compilation.quick_jit`), the full
gradient and BlackJAX's kernel by ``jax.jit``. Machines are shared and their speed varies, so only
ratios mean something: every case is timed directly after the full-data gradient, all cases in turn,
and the median of the ratios over rounds is reported. An epoch reads every row once, as the full
gradient does; a ratio of 1 means that minibatching costs nothing.
"""

import time
from collections.abc import Callable
from typing import NamedTuple

import blackjax
import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
from blackjax.sgmcmc.gradients import grad_estimator

from sgworld_mcmc.checks import check_integer
from sgworld_mcmc.compilation import quick_jit
from sgworld_mcmc.data.dealt_rows import DealtRows
from sgworld_mcmc.data.fixed_partition import partition
from sgworld_mcmc.infer.kernel import SGMCMCKernel
from sgworld_mcmc.kernels.sgworld import build_kernel, init

__all__ = ["EpochResult", "add_arguments", "run", "run_cli"]

# Number of chains that share batches, or do not.
MANY = 8
# A step size far below the stability limit of the default problem: the time of a step does not
# depend on it.
STEP_SIZE = 1e-7


class EpochResult(NamedTuple):
    """The times of all cases, as medians over rounds.

    Attributes
    ----------
    labels
        Names of the cases.
    ratios
        (cases,) time of an epoch over the time of one full-data gradient.
    quartiles
        (cases, 2) quartiles of the ratios over rounds.
    gradient_seconds
        Median time of one full-data gradient.
    """

    labels: tuple[str, ...]
    ratios: np.ndarray
    quartiles: np.ndarray
    gradient_seconds: float

    def ratio(self, label: str) -> float:
        """Return the ratio of one case."""
        return float(self.ratios[self.labels.index(label)])

    def table(self) -> str:
        """Return the numbers as text."""
        width = max(map(len, self.labels))
        lines = [
            f"one full-data gradient by autodiff: {1e3 * self.gradient_seconds:.2f} ms",
            f"{'one epoch of':{width}}   ratio   quartiles",
        ]
        for label, ratio, (low, high) in zip(self.labels, self.ratios, self.quartiles, strict=True):
            lines.append(f"{label:{width}}  {ratio:6.2f}   {low:.2f}-{high:.2f}")
        return "\n".join(lines)


def run(
    num_data: int = 100_000,
    dim: int = 50,
    batch_size: int = 1000,
    rounds: int = 15,
    chains: int = 4,
    seed: int = 0,
) -> EpochResult:
    """Time one epoch of every kernel against one full-data gradient.

    Parameters
    ----------
    num_data, dim
        Rows N and features D of the simulated logistic regression.
    batch_size
        Batch size B of the main cases. Others have B // 10, and B - 1, for which batches are not
        all of one size.
    rounds
        How often each case is timed.
    chains
        Number of chains in the case with several chains by ``jax.vmap``.
    seed
        Seed of data and keys.

    Examples
    --------
    >>> result = run(num_data=2000, dim=3, batch_size=100, rounds=2, chains=2)
    >>> result.ratio("SGWORLD batches, averaged noise, B=100") > 0
    True
    """
    check_integer("num_data", num_data, 20)
    check_integer("dim", dim, 1)
    check_integer("batch_size", batch_size, 10, num_data)
    check_integer("rounds", rounds, 1)
    check_integer("chains", chains, 1)
    keys = jax.random.split(jax.random.key(seed), 4)
    data, position = simulate(keys[0], num_data, dim)
    estimator = grad_estimator(log_prior, log_likelihood, num_data)
    cases = _cases(keys[1], keys[2], data, position, estimator, batch_size, chains)

    gradient = jax.jit(jax.grad(full_log_density))
    reference = lambda: gradient(position, *data)  # noqa: E731
    for function in (reference, *cases.values()):
        jax.block_until_ready(function())  # compiled and warm
    times = np.empty((rounds, len(cases), 2))
    for r in range(rounds):
        for c, function in enumerate(cases.values()):
            times[r, c] = _seconds(reference), _seconds(function)
    ratios = times[..., 1] / times[..., 0]
    return EpochResult(
        tuple(cases),
        np.median(ratios, 0),
        np.quantile(ratios, (0.25, 0.75), axis=0).T,
        float(np.median(times[..., 0])),
    )


def simulate(rng_key: jax.Array, num_data: int, dim: int) -> tuple[tuple, jax.Array]:
    """Simulate data (X, y) of a logistic regression; return them and the true coefficients."""
    keys = jax.random.split(rng_key, 3)
    X = jax.random.normal(keys[0], (num_data, dim))
    position = jax.random.normal(keys[1], (dim,)) / jnp.sqrt(dim)
    y = (jax.random.uniform(keys[2], (num_data,)) < jax.nn.sigmoid(X @ position)).astype(X.dtype)
    return (X, y), position


def log_prior(position):
    """Return the log density of a standard normal prior."""
    return -0.5 * jnp.sum(position**2)


def log_likelihood(position, row):
    """Return the log likelihood of one row (x, y), as BlackJAX's estimators need it."""
    x, y = row
    logit = x @ position
    return y * logit - jax.nn.softplus(logit)


def full_log_density(position, X, y):
    """Return the log density of all rows at once."""
    logits = X @ position
    return log_prior(position) + jnp.sum(y * logits - jax.nn.softplus(logits))


def add_arguments(parser) -> None:
    """Add the options of ``sgworld-mcmc benchmark epoch`` to an `argparse` parser."""
    for name, default, text in (
        ("num-data", 100_000, "rows"),
        ("dim", 50, "features"),
        ("batch-size", 1000, "rows in a batch"),
        ("rounds", 15, "times that each case is timed"),
        ("chains", 4, "of the case with several chains"),
        ("seed", 0, "of data and keys"),
    ):
        parser.add_argument(f"--{name}", type=int, default=default, help=f"{text} ({default})")


def run_cli(namespace) -> int:
    """Run with the parsed options, print the table, and return 0."""
    result = run(
        **{name: getattr(namespace, name) for name in run.__annotations__ if name != "return"}
    )
    print(f"Logistic regression, N={namespace.num_data}, D={namespace.dim}, {jax.devices()[0]}")
    print(result.table())
    return 0


def _cases(init_key, key, data, position, estimator, batch_size, chains):
    """Return, by label, functions without arguments that run one epoch."""
    size = len(data[0])
    cases: dict[str, Callable] = {}

    def kernel_case(order, noise, batch_size, chains=1):
        dealt = DealtRows(data, -(-size // batch_size))
        batches = dealt if order == "examples" else partition(init_key, data, batch_size)
        kernel = build_kernel(order, noise)

        def start(key):
            return init(position, key, batches.num_batches, order=order, noise=noise)

        def epoch(key, state, batches):
            return kernel(key, state, estimator, batches, STEP_SIZE)

        if chains == 1:
            state, function, keys = start(init_key), quick_jit(epoch, "much"), key
        else:
            state = jax.vmap(start)(jax.random.split(init_key, chains))
            function = quick_jit(jax.vmap(epoch, in_axes=(0, 0, None)), "much")
            keys = jax.random.split(key, chains)
        return lambda: function(keys, state, batches)

    small, ragged = max(1, batch_size // 10), batch_size - 1
    for order, noise in (
        ("batches", "averaged"),
        ("batches", "independent"),
        ("symmetric", "averaged"),
        ("examples", "averaged"),
    ):
        label = f"SGWORLD {order}, {noise} noise, B={batch_size}"
        cases[label] = kernel_case(order, noise, batch_size)
    for other in (small, ragged):
        label = f"SGWORLD batches, averaged noise, B={other}"
        cases[label] = kernel_case("batches", "averaged", other)
    label = f"SGWORLD batches, averaged noise, B={batch_size}, {chains} chains by vmap"
    cases[label] = kernel_case("batches", "averaged", batch_size, chains)
    for rows, together, share in (
        (batch_size, 1, False),
        (small, 1, False),
        (batch_size, MANY, False),
        (batch_size, MANY, True),
    ):
        how = "" if together == 1 else (", sharing batches" if share else ", an order each")
        label = f"SGWORLD(model), B={rows}, chains: {together}{how}"
        cases[label] = _model_epoch(key, data, rows, together, share)
    label = f"SGLD on the same batches, averaged noise, B={batch_size}"
    cases[label] = kernel_case("replacement", "averaged", batch_size)
    gathered = _blackjax_epoch(data, estimator, batch_size)
    label = f"BlackJAX sgld, rows gathered in a scan, B={batch_size}"
    cases[label] = lambda: gathered(key, position, data)
    return cases


def _model(X, y):
    """The same posterior as a NumPyro model."""
    beta = numpyro.sample("beta", dist.Normal(0, 1).expand([X.shape[1]]).to_event(1))
    with numpyro.plate("rows", len(y)):
        numpyro.sample("y", dist.Bernoulli(logits=X @ beta), obs=y)


def _model_epoch(key, data, batch_size, chains, share):
    """Return an epoch of all chains of ``SGWORLD(model)``, as a long run is compiled."""
    kernel = SGMCMCKernel(
        _model,
        gradient="plain",
        batch_size=batch_size,
        step_size=STEP_SIZE,
        steps_per_draw=-(-len(data[0]) // batch_size),
        preconditioner="none",
        share_batches=share,
    )
    _, laid_out = kernel.prepare(key, data, {})
    state = kernel.init(jax.random.split(key, chains), 0, None, (laid_out,), {})
    draw = quick_jit(lambda state, data: kernel.sample(state, (data,), {}), "much")
    return lambda: draw(state, laid_out)


def _blackjax_epoch(data, estimator, batch_size):
    """Return an epoch of BlackJAX's own kernel, with rows drawn as in BlackJAX's examples."""
    size = len(data[0])
    algorithm = blackjax.sgld(estimator)

    @jax.jit
    def epoch(key, position, data):
        def step(position, key):
            rows_key, step_key = jax.random.split(key)
            rows = jax.random.randint(rows_key, (batch_size,), 0, size)
            minibatch = jax.tree.map(lambda x: x[rows], data)
            return algorithm.step(step_key, position, minibatch, STEP_SIZE), None

        keys = jax.random.split(key, -(-size // batch_size))
        return jax.lax.scan(step, position, keys)[0]

    return epoch


def _seconds(function):
    start = time.perf_counter()
    jax.block_until_ready(function())
    return time.perf_counter() - start
