"""Reference moments from long NUTS runs in double precision, which are stored with the package.

``sgworld-mcmc benchmark accuracy --regenerate`` makes them again; nothing runs at import.
"""

import json
import time
from importlib import metadata
from pathlib import Path

import jax
import numpy as np
from numpyro.infer import MCMC, NUTS

from sgworld_benchmarks import laplace
from sgworld_benchmarks.accuracy.problem import Moments, Problem, describe
from sgworld_benchmarks.accuracy.score import moments_of, split_rhat_of

__all__ = [
    "REFERENCES",
    "check_fingerprint",
    "entry_of",
    "moments_from",
    "reference",
    "regenerate",
    "regenerate_by_importance",
    "smallest_ess",
    "store",
    "stored",
]

REFERENCES = Path(__file__).with_name("references.json")
CHAINS = 4
# A reference with a smaller effective sample size is refused: its own error would show in a
# comparison to 0.1 sd and 7 %.
MINIMUM_ESS = 4000
MAXIMUM_RHAT = 1.01
# Settings of importance sampling: its proposal has heavy tails, and its k-hat must be far below the
# limit of 0.7.
PROPOSALS = 50_000
PROPOSAL_DF = 8.0
MAXIMUM_K_HAT = 0.5


def reference(name: str, problem: Problem, path: Path = REFERENCES) -> Moments:
    """Return the exact moments of a problem, or else its stored ones.

    Raises
    ------
    ValueError
        If a stored reference is missing, or was made with another model or other data.
    """
    if problem.exact is not None:
        return problem.exact
    entry = stored(path).get(name)
    if entry is None:
        raise ValueError(f"There is no stored reference of {name!r}; run with --regenerate.")
    check_fingerprint(name, entry, describe(problem).fingerprint)
    return moments_from(entry)


def stored(path: Path = REFERENCES) -> dict:
    """Return all stored references, as written by `regenerate`."""
    return json.loads(path.read_text()) if path.exists() else {}


def moments_from(entry: dict) -> Moments:
    """Return the moments of one stored entry."""
    names, *arrays = (entry[field] for field in Moments._fields)
    return Moments(tuple(names), *(np.asarray(values, float) for values in arrays))


def check_fingerprint(name: str, entry: dict, fingerprint: float) -> None:
    """Raise unless a stored entry belongs to the posterior with this fingerprint."""
    if not np.isclose(entry["fingerprint"], fingerprint, rtol=1e-9):
        raise ValueError(
            f"The stored reference of {name!r} was made with another model or other data "
            f"(potential {entry['fingerprint']:.10g}, now {fingerprint:.10g}): make it again with "
            f"--regenerate --models {name}."
        )


def regenerate(
    name: str,
    problem: Problem,
    seed: int,
    path: Path = REFERENCES,
    minimum_ess: float = MINIMUM_ESS,
) -> dict:
    """Run NUTS in double precision, check the run, and store its moments.

    Parameters
    ----------
    name, problem
        The name of the entry, and the problem to sample.
    seed
        Seed of the run.
    path
        JSON file whose entry is replaced.
    minimum_ess
        The smallest effective sample size of a scalar with which a run is a reference.

    Returns
    -------
    dict
        The entry.

    Raises
    ------
    ValueError
        If the run has divergences, or an R-hat above 1.01 or too small an effective sample size
        in any scalar. Such a run is no reference, and nothing is written.
    """
    start = time.perf_counter()
    samples, divergences = _nuts(problem, seed)
    moments = moments_of(samples)
    rhat = split_rhat_of(samples)
    made = {
        "method": "NUTS",
        "seed": seed,
        "chains": CHAINS,
        "warmup": problem.warmup,
        "draws": problem.draws,
        "acceptance": problem.acceptance,
        "divergences": divergences,
        "rhat": _rounded(rhat),
        "seconds": round(time.perf_counter() - start, 1),
    }
    entry = entry_of(problem, describe(problem).fingerprint, moments, made)
    ess = np.where(moments.sd > 0, moments.ess, np.inf)
    low, high = int(np.argmin(ess)), int(np.argmax(rhat))
    if divergences or ess[low] < minimum_ess or not rhat[high] <= MAXIMUM_RHAT:
        raise ValueError(
            f"The NUTS run of {name!r} is no reference: {divergences} divergences, effective "
            f"sample size {ess[low]:.0f} of {moments.names[low]}, R-hat "
            f"{rhat[high]:.4f} of {moments.names[high]}. Raise the problem's `draws` or "
            "`acceptance`, or give it a `reference_model`."
        )
    store(name, entry, path)
    return entry


def regenerate_by_importance(name: str, problem: Problem, seed: int, path: Path = REFERENCES):
    """Store moments by importance sampling from the Laplace approximation instead.

    This is a second opinion on the runs of NUTS, and a cheaper one if the posterior has few
    dimensions and one mode. Arguments and result are those of `regenerate`.

    Raises
    ------
    ValueError
        If the Pareto k-hat is above 0.5, the effective sample size is below 4000, or there is no
        Laplace approximation. Nothing is written then.
    """
    start = time.perf_counter()
    model = problem.reference_model or problem.model
    proposal = laplace.fit(problem._replace(model=model))
    key = jax.random.key(seed)
    moments, k_hat = laplace.importance_moments(proposal, problem, key, PROPOSALS, PROPOSAL_DF)
    ess = np.where(moments.sd > 0, moments.ess, np.inf)
    low = int(np.argmin(ess))
    if not (ess[low] >= MINIMUM_ESS and k_hat <= MAXIMUM_K_HAT):
        raise ValueError(
            f"Importance sampling of {name!r} gives no reference: k-hat {k_hat:.2f}, effective "
            f"sample size {ess[low]:.0f} of {moments.names[low]}. Use NUTS."
        )
    made = {
        "method": "importance sampling",
        "seed": seed,
        "draws": PROPOSALS,
        "df": PROPOSAL_DF,
        "k_hat": round(k_hat, 3),
        "seconds": round(time.perf_counter() - start, 1),
    }
    entry = entry_of(problem, describe(problem).fingerprint, moments, made)
    store(name, entry, path)
    return entry


def entry_of(problem: Problem, fingerprint: float, moments: Moments, made: dict) -> dict:
    """Return what is stored for a reference; ``made`` says how it was made."""
    return {
        "title": problem.title,
        "fingerprint": fingerprint,
        **made,
        "versions": {package: metadata.version(package) for package in ("jax", "numpyro")},
        "names": list(moments.names),
        **{field: _rounded(getattr(moments, field)) for field in Moments._fields[1:]},
    }


def smallest_ess(entry: dict) -> float:
    """Return the smallest effective sample size of a stored entry; constants have none."""
    return min(e for e, sd in zip(entry["ess"], entry["sd"], strict=True) if sd > 0)


def store(name: str, entry: dict, path: Path = REFERENCES) -> None:
    """Put one entry into a file of references, which is read again first."""
    path.write_text(_dump(stored(path) | {name: entry}))


def _nuts(problem, seed):
    """Return draws (chains, draws, ...) of the problem's sites, and the number of divergences."""
    model = problem.reference_model or problem.model
    with jax.enable_x64(True):
        mcmc = MCMC(
            NUTS(model, dense_mass=True, target_accept_prob=problem.acceptance),
            num_warmup=problem.warmup,
            num_samples=problem.draws,
            num_chains=CHAINS,
            chain_method="vectorized",
            progress_bar=False,
        )
        mcmc.run(jax.random.key(seed), *problem.data, **problem.keywords)
        draws = mcmc.get_samples(group_by_chain=True)
        samples = {site: np.asarray(draws[site]) for site in problem.sites}
        divergences = int(np.sum(mcmc.get_extra_fields()["diverging"]))
    assert all(value.dtype == np.float64 for value in samples.values())
    return samples, divergences


def _rounded(values):
    return [float(f"{value:.9g}") for value in values]


def _dump(entries):
    """Return JSON text with one line for each field, so that versions are easy to compare."""
    blocks = []
    for name, entry in sorted(entries.items()):
        lines = [f"  {json.dumps(key)}: {json.dumps(value)}" for key, value in entry.items()]
        blocks.append(f"{json.dumps(name)}: {{\n" + ",\n".join(lines) + "\n}")
    return "{\n" + ",\n".join(blocks) + "\n}\n"
