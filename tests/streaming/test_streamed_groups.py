"""Streamed rows in hundreds of groups: the Hessian comes from a few products with it."""

import jax
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest

from sgworld_mcmc import SGWORLD
from sgworld_mcmc.settings import make_settings
from sgworld_mcmc.setup.checked_model import check_model
from sgworld_mcmc.setup.compiled_functions import SetUpFunctions, functions_of
from sgworld_mcmc.setup.few_products import FewProducts
from sgworld_mcmc.setup.streamed.whole import WholeData

SIZE, GROUPS = 12_000, 310


def rows(seed=0):
    rng = np.random.default_rng(seed)
    group, other = rng.integers(0, GROUPS, (2, SIZE)).astype(np.int32)
    x = rng.standard_normal(SIZE).astype(np.float32)
    y = 0.5 + 0.3 * x + rng.normal(0, 0.7, GROUPS)[group] + rng.standard_normal(SIZE)
    return x, group, other, y.astype(np.float32)


def one_group(x, group, other, y, shift=0.0):
    mean = numpyro.sample("mean", dist.Normal(0, 1))
    slope = numpyro.sample("slope", dist.Normal(0, 1))
    with numpyro.plate("groups", GROUPS):
        effect = numpyro.sample("effect", dist.Normal(0, 0.7))
    with numpyro.plate("rows", y.shape[0]):
        numpyro.sample("y", dist.Normal(mean + slope * x + effect[group] + shift, 1), obs=y)


def two_groups(x, group, other, y):
    mean = numpyro.sample("mean", dist.Normal(0, 1))
    slope = numpyro.sample("slope", dist.Normal(0, 1))
    with numpyro.plate("groups", GROUPS):
        effect = numpyro.sample("effect", dist.Normal(0, 0.7))
    both = effect[group] + 0.3 * effect[other]
    with numpyro.plate("rows", y.shape[0]):
        numpyro.sample("y", dist.Normal(mean + slope * x + both, 1), obs=y)


def exact(x, group, y):
    """Mean and standard deviations of the Gaussian posterior: effects, mean, slope."""
    design = np.zeros((len(y), GROUPS + 2))
    design[np.arange(len(y)), group] = 1
    design[:, GROUPS], design[:, GROUPS + 1] = 1, x
    prior = np.append(np.full(GROUPS, 0.7**-2), [1, 1])
    covariance = np.linalg.inv(design.T @ design + np.diag(prior))
    return covariance @ design.T @ y, np.sqrt(np.diagonal(covariance)), covariance


def memory_maps(folder):
    maps = []
    for name, values in zip("xgoy", rows(), strict=True):
        np.save(folder / f"{name}.npy", values)
        maps.append(np.load(folder / f"{name}.npy", mmap_mode="r"))
    return maps


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("groups")


@pytest.fixture(scope="module")
def run(folder):
    def no_derivatives(*_):
        raise AssertionError("The gradient was derived along every parameter.")

    mcmc = SGWORLD(one_group, stream=True, progress_bar=False)
    with pytest.MonkeyPatch.context() as patch:
        for name in ("_expansion", "_hessian"):
            patch.setattr(SetUpFunctions, name, no_derivatives)
        mcmc.run(jax.random.key(0), *memory_maps(folder))
    return mcmc


def test_streamed_groups_need_no_derivative_along_every_parameter(run):
    x, group, _, y = rows()
    mean, sd, _ = exact(x, group, y)
    draws = run.get_samples()
    flat = np.column_stack([draws["effect"], draws["mean"], draws["slope"]])
    effective = 1000  # at least, of 4000
    assert np.abs((flat.mean(0) - mean) / sd).max() < 5 / np.sqrt(effective)
    assert np.abs(flat.std(0) / sd - 1).max() < 5 / np.sqrt(2 * effective) + 0.02


def test_the_hessian_of_few_products_is_the_exact_one(run):
    x, group, _, y = rows()
    mean, _, covariance = exact(x, group, y)
    whole = run.data.whole
    found, blocks = whole.expansion(mean, np.eye(GROUPS + 2)[-2:])
    expected = np.linalg.inv(covariance)
    scale = np.sqrt(np.outer(np.diagonal(expected), np.diagonal(expected)))
    assert whole.few is not None and len(whole.few.probes) == 4
    assert np.abs((found.hessian - expected) / scale).max() < 1e-4
    # The blocks are estimates of all rows.
    assert blocks.products.shape[1:] == (2, GROUPS + 2)
    np.testing.assert_allclose(blocks.products[:, 0, -2].mean(), expected[-2, -2], rtol=0.05)


def test_rows_that_do_not_keep_to_their_groups_are_seen(run):
    """A part of the rows may keep to groups that others do not."""
    known, settings = run.data.whole, make_settings()
    checked = check_model(np.random.default_rng(0), two_groups, settings, rows(), {}, {})
    whole = WholeData(functions_of(checked.model, None), known.rows, ())
    with jax.enable_x64(checked.model.precise):
        right, _ = whole.expansion(np.zeros(GROUPS + 2))
        whole.few = FewProducts.of(known.few.structure, GROUPS + 2)
        found, _ = whole.expansion(np.zeros(GROUPS + 2))
    assert whole.few is None
    np.testing.assert_allclose(found.hessian, right.hessian)


@pytest.mark.slow
def test_a_row_that_matters_is_found_beside_groups(folder):
    """One row has a covariate of its own, whose coefficient it decides alone."""
    row, rare = 4321, np.zeros(SIZE, np.float32)
    rare[row] = 1

    def one_of_a_kind(x, group, other, y, rare):
        alone = numpyro.sample("alone", dist.Normal(0, 10))
        one_group(x, group, other, y, alone * rare)

    np.save(folder / "rare.npy", rare)
    data = *memory_maps(folder), np.load(folder / "rare.npy", mmap_mode="r")
    mcmc = SGWORLD(one_of_a_kind, stream=True, progress_bar=False)
    mcmc.run(jax.random.key(1), *data)
    assert mcmc.plan.take_all.tolist() == [row]
    x, group, _, y = rows()
    keep = rare == 0
    mean, *_ = exact(x[keep], group[keep], y[keep])
    # The others tell what this row has without it, and the row's own noise is one.
    place = group[row], GROUPS, GROUPS + 1
    expected = y[row] - mean[place[0]] - mean[GROUPS] - x[row] * mean[GROUPS + 1]
    draws = np.asarray(mcmc.get_samples()["alone"])
    assert abs(draws.mean() - expected * 100 / 101) < 0.15
    assert draws.std() == pytest.approx(1, rel=0.12)
