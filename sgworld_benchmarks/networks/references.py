"""Reference predictions from many NUTS chains, which are stored with the package.

``sgworld-mcmc benchmark networks --reference NAME`` makes one again. The chains start at random,
and do not mix between all modes of a network: the reference is their average, and their scatter
gives its Monte Carlo error.
"""

import json
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from sgworld_benchmarks.networks.nuts import NutsChain, NutsChains
from sgworld_benchmarks.networks.problems import PROBLEMS, Network

__all__ = ["LENGTHS", "Reference", "load", "make", "pool"]

FOLDER = Path(__file__).with_name("references")


class Length(NamedTuple):
    """Number of chains of a reference, and the transitions of each."""

    chains: int
    warmup: int
    draws: int


# Chains of the small networks mix badly between modes: many chains average over them.
LENGTHS: dict[str, Length] = {
    "digits": Length(4, 400, 400),
    "curve-20": Length(32, 300, 300),
    "curve-50": Length(8, 300, 300),
    "diabetes": Length(16, 300, 300),
    "convolution": Length(4, 200, 200),
    "two-layers": Length(4, 300, 300),
}


class Reference(NamedTuple):
    """What a run is compared with.

    Attributes
    ----------
    mean, sd, se
        Posterior means and standard deviations of the predictions at the test rows, (rows, classes)
        or (rows,), and the standard errors of the means from the scatter of the chains.
    about
        How it was made: seeds, lengths, mean energies, gradients and seconds by chain, versions.
    """

    mean: np.ndarray
    sd: np.ndarray
    se: np.ndarray
    about: dict[str, Any]

    @property
    def energy(self) -> float:
        """Mean of minus the log joint density."""
        return float(np.mean(self.about["energy"]))


def pool(chains: Sequence[NutsChain], about: dict[str, Any]) -> Reference:
    """Return the reference that the average of at least two chains is."""
    means = np.array([chain.mean for chain in chains], float)
    squares = np.array([chain.square for chain in chains], float)
    mean = means.mean(0)
    sd = np.sqrt(np.maximum(squares.mean(0) - mean**2, 0))
    se = means.std(0, ddof=1) / np.sqrt(len(means))
    by_chain = {
        "energy": [round(chain.energy, 2) for chain in chains],
        "leapfrogs": [chain.leapfrogs for chain in chains],
        "divergences": [chain.divergences for chain in chains],
        "seconds": [round(chain.seconds, 1) for chain in chains],
    }
    return Reference(mean, sd, se, about | by_chain)


def make(name: str, length: Length | None = None, seed: int = 1, path: Path | None = None):
    """Run the chains of a reference, say how each went, and store the average.

    Parameters
    ----------
    name
        The problem.
    length
        Number and lengths of the chains, by default those of :data:`LENGTHS`.
    seed
        Seed of the first chain; the others have the numbers that follow.
    path
        The file; by default the one from which :func:`load` reads.

    Returns
    -------
    Reference
        What is stored.
    """
    network, length = PROBLEMS[name](), length or LENGTHS[name]
    if length.chains < 2:
        raise ValueError(f"A reference needs at least 2 chains, not {length.chains}.")
    runs = NutsChains(network, length.warmup, length.draws)
    seeds = list(range(seed, seed + length.chains))
    chains = []
    for own in seeds:
        chain = runs.run(own)
        chains.append(chain)
        print(
            f"{name}, seed {own}: {chain.seconds:.1f} s, {chain.leapfrogs} gradients, energy "
            f"{chain.energy:.1f}, {chain.divergences} divergences",
            flush=True,
        )
    about = {
        "title": network.title,
        "fingerprint": fingerprint(network),
        "method": "NUTS",
        "seeds": seeds,
        "warmup": length.warmup,
        "draws": length.draws,
        "versions": {package: metadata.version(package) for package in ("jax", "numpyro")},
    }
    reference = pool(chains, about)
    path = path or FOLDER / f"{name}.npz"
    path.parent.mkdir(exist_ok=True)
    # The sd and the errors of probabilities need three digits.
    arrays = {"sd": reference.sd.astype(np.float16), "se": reference.se.astype(np.float16)}
    text = np.array(json.dumps(reference.about))
    np.savez_compressed(path, mean=reference.mean.astype(np.float32), about=text, **arrays)
    return reference


def load(name: str, network: Network, path: Path | None = None) -> Reference:
    """Return a stored reference.

    Raises
    ------
    ValueError
        If there is none, or it was made with another model or other data.
    """
    path = path or FOLDER / f"{name}.npz"
    if not path.exists():
        raise ValueError(f"There is no stored reference of {name!r}; run with --reference {name}.")
    with np.load(path) as file:
        about = json.loads(str(file["about"]))
        arrays = [file[field].astype(float) for field in ("mean", "sd", "se")]
    if not np.isclose(about["fingerprint"], fingerprint(network), rtol=1e-5):
        raise ValueError(
            f"The stored reference of {name!r} was made with another model or other data: make it "
            f"again with --reference {name}."
        )
    return Reference(*arrays, about)


def fingerprint(network: Network) -> float:
    """Return a number that other models, other data or other test rows change."""
    import jax
    from numpyro.handlers import seed, trace

    rows = network.x[:2], network.y[:2]
    sites = trace(seed(network.model, jax.random.key(0))).get_trace(*rows)
    latents = {
        name: site["value"]
        for name, site in sites.items()
        if site["type"] == "sample" and not site["is_observed"]
    }
    predicted = np.asarray(network.predict(latents, network.test_x), float)
    weights = np.cos(np.arange(predicted.size)).reshape(predicted.shape)
    return float(network.energy(latents) + (weights * predicted).sum())
