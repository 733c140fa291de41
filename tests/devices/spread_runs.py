"""Runs on four forced devices of a CPU beside runs on one: prints how far the draws are apart."""

import functools
import json
import os
import sys
import tempfile

# Beside the options with which all tests compile quickly.
os.environ["XLA_FLAGS"] = (
    os.environ.get("XLA_FLAGS", "") + " --xla_force_host_platform_device_count=4"
)

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist

from sgworld_mcmc import SGLD, SGWORLD

SIZE, DIMENSION = 40_003, 20
SHORT = {"num_samples": 24, "num_warmup": 3}
# Batches that several devices share: with them, and the sampler's other settings.
LARGE = {**SHORT, "batch_size": 5000}


def model(X, y):
    beta = numpyro.sample("beta", dist.Normal(0, 3).expand([X.shape[1]]).to_event(1))
    with numpyro.plate("rows", len(y)):
        numpyro.sample("y", dist.Bernoulli(logits=X @ beta), obs=y)


@functools.cache
def data(size=SIZE, matter=0):
    """Rows, of which a few ``matter``: nothing else tells of the last coefficient."""
    generator = np.random.default_rng(0)
    X = generator.standard_normal((size, DIMENSION)).astype(np.float32)
    if matter:
        X[:, -1] = np.arange(size) % (size // matter) == 5
    y = generator.random(size) < 1 / (1 + np.exp(-X[:, 0] + X[:, 1]))
    order = np.argsort(y, kind="stable")  # a file that is sorted: its parts differ
    return X[order], y[order].astype(np.int32)


def drawn(kind=SGWORLD, size=SIZE, matter=0, extra_fields=(), **settings):
    mcmc = kind(model, **settings)
    mcmc.run(jax.random.key(0), *data(size, matter), extra_fields=extra_fields)
    return mcmc


def values(mcmc):
    fields = mcmc.get_extra_fields()
    fields = [np.asarray(fields[name], float).ravel() for name in sorted(fields)]
    samples = np.asarray(mcmc.get_samples()["beta"], float)
    return samples, np.concatenate(fields)


ONES = {}


def on_one(**settings):
    """Return draws on one device, with their values: those of cases with the same settings once."""
    key = repr(sorted(settings.items()))
    if key not in ONES:
        mcmc = drawn(**settings)
        ONES[key] = (*values(mcmc), _stein(mcmc))
    return ONES[key]


def compare(several, **settings):
    """Return how far draws on several devices are from those on one, and where they lie."""
    (a, e, stein), other = on_one(**settings), drawn(**{**settings, **several})
    b, f = values(other)
    scale = max(1.0, np.abs(e).max())
    return {
        "apart": float(np.abs(a - b).max() / a.std(0).min()),
        "fields": float(np.abs(e - f).max() / scale),
        "devices": list(other.data.layout.mesh.devices.shape),
        "said": other.bias_report().reading if other.plan.kinetic is None else "",
        "spread": len(jax.tree.leaves(other.data.feed)[0].sharding.device_set),
        "sum": float(np.abs(stein - _stein(other)).max()),
        "taken": len(other.plan.take_all),
    }


def _stein(mcmc):
    if mcmc.plan.kinetic is not None:
        return np.zeros(1)
    return np.asarray(mcmc.bias_report().stein.mean_shift)


def mesh(*shape):
    return jax.make_mesh(shape, ("chains", "data"))


CASES = {
    "chains": lambda: compare({"devices": 4}, num_chains=4, **SHORT),
    "three chains": lambda: compare({"devices": 4}, num_chains=3, data_shards=4, **SHORT),
    "rows": lambda: compare({"devices": 4}, num_chains=1, data_shards=4, **LARGE),
    "both": lambda: compare({"devices": 4}, num_chains=2, data_shards=2, **LARGE),
    "mesh": lambda: compare({"mesh": mesh(2, 2)}, num_chains=2, data_shards=2, **LARGE),
    "four parts on two devices": lambda: compare(
        {"devices": 2}, num_chains=1, data_shards=4, gradient="plain", step_size=0.05, **LARGE
    ),
    "all rows": lambda: compare(
        {"devices": 4}, num_chains=1, data_shards=4, **SHORT, batch_size=SIZE
    ),
    "small batches": lambda: compare({"mesh": mesh(2, 2)}, num_chains=2, data_shards=2, **SHORT),
    "replacement": lambda: compare(
        {"devices": 4},
        kind=SGLD,
        num_chains=1,
        data_shards=4,
        gradient="control_variate",
        extra_fields=("potential_energy",),
        **LARGE,
    ),
    "dealt anew": lambda: compare(
        {"devices": 4}, num_chains=2, data_shards=2, order="examples", **LARGE
    ),
    "kinetic": lambda: compare(
        {"devices": 4},
        num_chains=2,
        data_shards=2,
        dynamics="kinetic",
        friction=1.0,
        step_size=0.05,
        extra_fields=("potential_energy",),
        **LARGE,
    ),
    "one after the other": lambda: compare(
        {"devices": 2}, num_chains=2, chain_method="sequential", data_shards=2, **LARGE
    ),
    "rows that matter": lambda: compare(
        {"devices": 4}, matter=5, num_chains=2, data_shards=2, **LARGE
    ),
    "parts of the set-up": lambda: compare(
        {"devices": 4}, size=2**17 + 4001, num_chains=1, data_shards=4, **LARGE
    ),
}


def resumed():
    """Return how far a run is that goes on, on another number of devices, from a whole one."""
    settings = {**LARGE, "num_chains": 2, "data_shards": 2}
    X, y = data()
    a = on_one(**settings)[0]

    class Stop(Exception):
        pass

    with tempfile.TemporaryDirectory() as folder:
        for devices in (4, 1, 2):
            mcmc = SGWORLD(model, devices=devices, **settings)
            saved = {"checkpoint": f"{folder}/run", "every": 1e-9, "resume": True}
            from sgworld_mcmc.checkpoint import saved_run

            before, calls = saved_run.SavedRun._note, [0]

            def note(self, progress, before=before, calls=calls, devices=devices):
                before(self, progress)
                calls[0] += 1
                if calls[0] == 4 and devices != 2:
                    raise Stop

            saved_run.SavedRun._note = note
            try:
                mcmc.run(jax.random.key(0), X, y, **saved)
            except Stop:
                pass
            finally:
                saved_run.SavedRun._note = before
    b = values(mcmc)[0]
    return {"apart": float(np.abs(a - b).max() / a.std(0).min())}


def network(x, y):
    """A network of which no mode is searched: its draws are judged by quantities of the rows."""
    inner = numpyro.sample("inner", dist.Normal(0, 1).expand([DIMENSION, 60]).to_event(2))
    outer = numpyro.sample("outer", dist.Normal(0, 1).expand([60]).to_event(1))
    with numpyro.plate("rows", len(y)):
        numpyro.sample("y", dist.Bernoulli(logits=jnp.tanh(x @ inner) @ outer), obs=y)


def of_network():
    """Return how far the log likelihoods of rows are apart."""
    settings = {**LARGE, "num_chains": 2, "data_shards": 2, "dynamics": "kinetic"}
    settings |= {"friction": 1.0, "step_size": 0.01}
    one = SGWORLD(network, **settings)
    other = SGWORLD(network, devices=4, **settings)
    for mcmc in (one, other):
        mcmc.run(jax.random.key(0), *data())
        assert mcmc.plan.kinetic is not None
    likely = [np.asarray(mcmc.quantities()["log_likelihood"], float) for mcmc in (one, other)]
    apart = np.abs(likely[0] - likely[1]).max()
    return {
        "apart": float(apart),
        "fields": 0.0,
        "sum": 0.0,
        "devices": list(other.data.layout.mesh.devices.shape),
        "spread": len(jax.tree.leaves(other.data.feed)[0].sharding.device_set),
    }


CASES |= {"resumed": resumed, "network": of_network}


if __name__ == "__main__":
    print(json.dumps({name: CASES[name]() for name in sys.argv[1:]}))
