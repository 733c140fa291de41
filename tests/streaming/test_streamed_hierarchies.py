"""Streamed rows in more than a thousand groups: coordinates by group, from few passes."""

import jax
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest

from sgworld_mcmc import SGWORLD
from sgworld_mcmc.coordinates.arrow import Arrow
from sgworld_mcmc.coordinates.diagonal import Diagonal

SIZE, GROUPS = 60_000, 1050
SCALE = 0.7


def rows(seed=0):
    rng = np.random.default_rng(seed)
    group = rng.integers(0, GROUPS, SIZE).astype(np.int32)
    x = rng.standard_normal(SIZE).astype(np.float32)
    y = 0.5 + 0.3 * x + rng.normal(0, SCALE, GROUPS)[group] + rng.standard_normal(SIZE)
    return x, group, y.astype(np.float32)


def known_scale(x, group, y):
    mean = numpyro.sample("mean", dist.Normal(0, 1))
    slope = numpyro.sample("slope", dist.Normal(0, 1))
    with numpyro.plate("groups", GROUPS):
        effect = numpyro.sample("effect", dist.Normal(0, SCALE))
    with numpyro.plate("rows", y.shape[0]):
        numpyro.sample("y", dist.Normal(mean + slope * x + effect[group], 1), obs=y)


def unknown_scale(x, group, y):
    mean = numpyro.sample("mean", dist.Normal(0, 1))
    slope = numpyro.sample("slope", dist.Normal(0, 1))
    scale = numpyro.sample("scale", dist.HalfNormal(2))
    with numpyro.plate("groups", GROUPS):
        effect = numpyro.sample("effect", dist.Normal(0, scale))
    logits = mean + slope * x + effect[group]
    with numpyro.plate("rows", y.shape[0]):
        numpyro.sample("y", dist.Bernoulli(logits=logits), obs=y)


def crossed(x, group, y):
    with numpyro.plate("groups", GROUPS):
        effect = numpyro.sample("effect", dist.Normal(0, SCALE))
        other = numpyro.sample("other", dist.Normal(0, SCALE))
    both = effect[group] + other[(7 * group + 3) % GROUPS]
    with numpyro.plate("rows", y.shape[0]):
        numpyro.sample("y", dist.Normal(both, 1), obs=y)


def exact():
    """Mean and standard deviations of the Gaussian posterior: mean, slope, effects."""
    x, group, y = (np.asarray(a, float) for a in rows())
    group = group.astype(int)
    design = np.zeros((SIZE, GROUPS + 2))
    design[:, 0], design[:, 1] = 1, x
    design[np.arange(SIZE), group + 2] = 1
    prior = np.append([1, 1], np.full(GROUPS, SCALE**-2))
    covariance = np.linalg.inv(design.T @ design + np.diag(prior))
    return covariance @ design.T @ y, np.sqrt(np.diagonal(covariance))


def in_files(folder, arrays):
    maps = []
    for name, values in zip("xgy", arrays, strict=True):
        np.save(folder / f"{name}.npy", values)
        maps.append(np.load(folder / f"{name}.npy", mmap_mode="r"))
    return maps


def flat(mcmc):
    draws = mcmc.get_samples()
    return np.column_stack([draws["mean"], draws["slope"], draws["effect"]])


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    return in_files(tmp_path_factory.mktemp("rows"), rows())


@pytest.fixture(scope="module")
def run(files):
    mcmc = SGWORLD(known_scale, stream=True, progress_bar=False)
    mcmc.run(jax.random.key(0), *files)
    return mcmc


def test_draws_have_the_exact_posterior(run):
    """The error of each of a thousand means and widths is that of as many effective draws."""
    draws, (mean, sd) = flat(run), exact()
    number = len(draws) / 3
    assert np.abs((draws.mean(0) - mean) / sd).max() < 5.5 / np.sqrt(number)
    assert np.abs(np.log(draws.std(0) / sd)).max() < 5.5 / np.sqrt(2 * number)


def test_coordinates_go_by_group_and_take_few_passes(run):
    plan = run.plan
    assert isinstance(plan.fit.coordinates, Arrow) and plan.dynamics.gradient.name == "taylor"
    assert plan.fit.hessian is None  # no matrix of all parameters
    # A block has a few rows of each group, and none of them more than others.
    assert plan.streaming.passes <= 3 and plan.streaming.alike == 1
    assert "Nothing to do" in str(run.bias_report())


def test_a_plan_is_used_again(run, files, tmp_path):
    run.save_plan(tmp_path / "plan.npz")
    again = SGWORLD(known_scale, stream=True, plan=tmp_path / "plan.npz", progress_bar=False)
    again.run(jax.random.key(0), *files)
    np.testing.assert_array_equal(flat(again), flat(run))


@pytest.mark.slow
def test_a_file_that_is_sorted_by_group_is_right_and_its_noise_known(tmp_path):
    x, group, y = rows()
    order = np.argsort(group, kind="stable")
    mcmc = SGWORLD(known_scale, stream=True, progress_bar=False)
    mcmc.run(jax.random.key(0), *in_files(tmp_path, (x[order], group[order], y[order])))
    assert isinstance(mcmc.plan.fit.coordinates, Arrow) and mcmc.plan.streaming.alike > 10
    draws, (mean, sd) = flat(mcmc), exact()
    number = len(draws) / 3
    assert np.abs((draws.mean(0) - mean) / sd).max() < 5.5 / np.sqrt(number)
    assert np.abs(np.log(draws.std(0) / sd)).max() < 5.5 / np.sqrt(2 * number)


@pytest.mark.slow
def test_streamed_draws_are_those_of_rows_in_memory(tmp_path):
    """The scale of the effects is not known, and the likelihood is no Gaussian."""
    x, group, y = rows()
    files = in_files(tmp_path, (x, group, (y > 0.5).astype(np.float32)))
    found = {}
    for stream in (True, False):
        mcmc = SGWORLD(unknown_scale, stream=stream, num_samples=2000, progress_bar=False)
        mcmc.run(jax.random.key(1), *files)
        assert isinstance(mcmc.plan.fit.coordinates, Arrow)
        found[stream] = mcmc.get_samples()
    for name, here in found[True].items():
        there, number = found[False][name], 2000
        error = np.abs(here.mean(0) - there.mean(0)) / there.std(0)
        assert error.max() < 5 * np.sqrt(2 / number) + 0.02
        assert np.abs(np.log(here.std(0) / there.std(0))).max() < 5 / np.sqrt(number) + 0.02


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_two_groupings_run_without_them_and_settings_that_need_them_are_refused(files):
    mcmc = SGWORLD(crossed, stream=True, num_warmup=5, num_samples=5, progress_bar=False)
    mcmc.run(jax.random.key(0), *files)
    assert isinstance(mcmc.plan.fit.coordinates, Diagonal)
    with pytest.raises(ValueError, match="do not go by one grouping"):
        SGWORLD(crossed, stream=True, gradient="taylor").run(jax.random.key(0), *files)
