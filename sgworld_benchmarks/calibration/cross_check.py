"""SGWORLD's kernel calibrated by simuk, a package that knows nothing of this one."""

import inspect

import jax
import numpy as np
from numpyro.infer import NUTS
from scipy import stats

from sgworld_benchmarks.calibration.models import make_model
from sgworld_mcmc import SGWORLD

__all__ = ["cross_check"]

# Draws of each of its chains; simuk takes the ranks among all of them.
DRAWS = 199
BINS = 10


def cross_check(name: str, number: int, seed: int = 0) -> str:
    """Let simuk calibrate the kernels of SGWORLD and NUTS on a model, and return the outcome.

    Raises
    ------
    ImportError
        If simuk is not installed.
    """
    try:
        from simuk import SBC
    except ImportError as error:
        raise ImportError(
            "The cross-check needs simuk: pip install 'sgworld-mcmc[calibration]'."
        ) from error
    problem = make_model(name)

    def model(y=None, **inputs):
        return problem.model(**inputs, y=y)

    *names, _ = inspect.signature(problem.model).parameters
    # The shape of y is what a kernel sets up for; simuk fills in the numbers.
    data = dict(zip(names, problem.inputs, strict=True))
    data["y"] = np.zeros(len(problem.inputs[0]), np.float32)

    lines = []
    for label, kernel, warmup in (
        ("SGWORLD", SGWORLD(model).sampler, 50),
        ("NUTS", NUTS(model), 300),
    ):
        settings = {"num_warmup": warmup, "num_samples": DRAWS, "progress_bar": False}
        check = SBC(kernel, number, settings, seed, data)
        check.run_simulations()
        for site, ranks in check.simulations["prior_sbc"].data_vars.items():
            ranks = np.asarray(ranks).astype(int).ravel()
            counts = np.bincount(ranks * BINS // (DRAWS + 1), minlength=BINS)
            p = stats.chisquare(counts).pvalue
            lines.append(f"simuk, {label}, {name}: {site} {counts.tolist()} p {p:.2g}")
        jax.clear_caches()
    return "\n".join(lines)
