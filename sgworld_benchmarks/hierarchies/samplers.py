"""Run SGWORLD and NUTS on a model, and measure what each of them costs."""

import time
from collections.abc import Callable
from typing import NamedTuple

import jax
import numpy as np
from numpyro.diagnostics import effective_sample_size
from numpyro.infer import NUTS
from numpyro.infer.util import initialize_model

from sgworld_mcmc import SGWORLD
from sgworld_mcmc.progress import watch

__all__ = ["WANTED", "Cost", "run_nuts", "run_sgworld", "seconds_of_gradient", "worst_ess"]

WANTED = 400
# Transitions of NUTS between two looks at the clock.
CHUNK = 25
DRAWING = ("warm-up", "draws")


class Cost(NamedTuple):
    """What a sampler has cost.

    Attributes
    ----------
    before, drawing
        Seconds before the first draw, and of the draws.
    draws, ess
        Number of draws, and their worst effective sample size.
    epochs
        Passes over the data for each effective draw.
    samples
        Constrained draws by site, (draws, ...).
    """

    before: float
    drawing: float
    draws: int
    ess: float
    epochs: float
    samples: dict[str, np.ndarray]

    @property
    def seconds(self) -> float:
        """Seconds from nothing to an effective sample size of 400."""
        return self.before + self.drawing * WANTED / self.ess


def run_sgworld(model: Callable, data: tuple, seed: int = 0, **settings) -> Cost:
    """Run SGWORLD with default settings and length."""
    mcmc = SGWORLD(model, **settings)
    start = time.perf_counter()
    with watch() as seen:
        mcmc.run(jax.random.key(seed), *data)
        samples = jax.block_until_ready(mcmc.get_samples(group_by_chain=True))
    seconds = time.perf_counter() - start
    samples = {site: np.asarray(x, float) for site, x in samples.items()}
    drawing = sum(stage.seconds for stage in seen.stages() if stage.name in DRAWING)
    chains, length = next(iter(samples.values())).shape[:2]
    ess = min(map(worst_ess, samples.values()))
    dynamics = mcmc.plan.dynamics
    epochs = chains * length * dynamics.steps_per_draw / dynamics.num_batches / ess
    flat = {site: x.reshape(chains * length, *x.shape[2:]) for site, x in samples.items()}
    return Cost(seconds - drawing, drawing, chains * length, ess, epochs, flat)


def run_nuts(
    model: Callable,
    data: tuple,
    seed: int,
    *,
    warmup: int,
    draws: int,
    max_seconds: float,
    times: float = 1.0,
) -> Cost:
    """Run one chain of NumPyro's NUTS with its default settings.

    The warm-up is ``warmup`` transitions long; the draws end early when the time is over. All
    seconds but those of the compilation are multiplied by ``times``.
    """
    kernel = NUTS(model)
    arrays = tuple(jax.numpy.asarray(x) for x in data if np.ndim(x))
    numbers = tuple(x for x in data if not np.ndim(x))

    def transitions(state, arrays):
        def one(state, _):
            state = kernel.sample(state, (*arrays, *numbers), {})
            return state, (state.z, state.num_steps)

        return jax.lax.scan(one, state, length=CHUNK)

    start = time.perf_counter()
    state = kernel.init(jax.random.key(seed), warmup, None, (*arrays, *numbers), {})
    compiled = jax.jit(transitions).lower(state, arrays).compile()
    compiling = time.perf_counter() - start
    for _ in range(-(-warmup // CHUNK)):
        state, _ = jax.block_until_ready(compiled(state, arrays))
    before, parts, steps = time.perf_counter() - start, [], 0
    end = start + before + max_seconds
    while len(parts) * CHUNK < draws and time.perf_counter() < end:
        state, (z, number) = jax.block_until_ready(compiled(state, arrays))
        parts.append(jax.tree.map(np.asarray, z))
        steps += int(number.sum())
    drawing = time.perf_counter() - start - before
    z = {site: np.concatenate([part[site] for part in parts]) for site in parts[0]}
    samples = jax.vmap(kernel.postprocess_fn((*arrays, *numbers), {}))(z)
    samples = {site: np.asarray(x, float) for site, x in samples.items() if site in z}
    shared = [x for x in samples.values() if max(x.shape[1:], default=0) < 20]
    ess = min(worst_ess(x[None]) for x in shared)
    before = compiling + times * (before - compiling)
    return Cost(before, times * drawing, len(z[next(iter(z))]), ess, steps / ess, samples)


def seconds_of_gradient(model: Callable, data: tuple) -> float:
    """Return the seconds that NumPyro's gradient of all rows takes, the median of nine."""
    arrays = tuple(jax.numpy.asarray(x) for x in data if np.ndim(x))
    numbers = tuple(x for x in data if not np.ndim(x))
    found = initialize_model(
        jax.random.key(0), model, model_args=(*arrays, *numbers), dynamic_args=True
    )
    potential = found.potential_fn
    gradient = jax.jit(jax.value_and_grad(lambda z, arrays: potential(*arrays, *numbers)(z)))
    seconds = []
    for _ in range(10):
        start = time.perf_counter()
        jax.block_until_ready(gradient(found.param_info.z, arrays))
        seconds.append(time.perf_counter() - start)
    return float(np.median(seconds[1:]))


def worst_ess(samples: np.ndarray) -> float:
    """Return the smallest effective sample size of (chains, draws, ...) numbers that vary."""
    flat = samples.reshape(*samples.shape[:2], -1)
    moving = flat.std((0, 1)) > 0
    return float(np.min(effective_sample_size(flat[:, :, moving])))
