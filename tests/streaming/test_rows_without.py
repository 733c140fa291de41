"""Streamed rows that matter more than others: found, left out of the file, and in every batch."""

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from single_counts import exact_moments

from sgworld_mcmc import SGWORLD
from sgworld_mcmc.streaming.arrays import ArraySource
from sgworld_mcmc.streaming.rows_without import RowsWithout
from sgworld_mcmc.streaming.source import StreamedArray

KEY, SIZE, PLACES = jax.random.key(0), 60_000, (77, 31_234)


def model(x, level, y):
    a, b = numpyro.sample("a", dist.Normal(0, 5)), numpyro.sample("b", dist.Normal(0, 5))
    c = numpyro.sample("c", dist.Normal(0, 10).expand([2]).to_event(1))
    with numpyro.plate("rows", len(y)):
        rate = jnp.exp(a + b * x + jnp.append(c, 0.0)[level])
        numpyro.sample("y", dist.Poisson(rate), obs=y)


@pytest.fixture(scope="module")
def arrays(tmp_path_factory):
    """Counts in a file, two of whose levels have a single row each."""
    folder, rng = tmp_path_factory.mktemp("rows"), np.random.default_rng(1)
    x, level = rng.standard_normal(SIZE), np.full(SIZE, 2, np.int32)
    y = rng.poisson(np.exp(0.2 + 0.3 * x)).astype(np.float32)
    level[list(PLACES)], y[list(PLACES)] = (0, 1), (1, 3)
    for name, values in {"x": x.astype(np.float32), "level": level, "y": y}.items():
        np.save(folder / name, values)
    return tuple(np.load(folder / f"{name}.npy", mmap_mode="r") for name in ("x", "level", "y"))


def test_rows_are_numbered_as_if_a_few_were_not_there():
    y = np.arange(40.0)
    y[33] = np.nan
    few = np.array([0, 5, 6, 17, 39])
    leaf = StreamedArray("y", ArraySource(y), "", y)
    rows = RowsWithout((leaf,), True, few)
    assert rows.size == 35
    out = rows.empty(35)
    for start in range(0, 35, 4):
        stop = min(start + 4, 35)
        some = tuple(x[start:stop] for x in out)
        rows.expect(start, stop)
        rows.read(start, stop, some)
    np.testing.assert_array_equal(out[0], np.delete(y, few))
    with pytest.raises(ValueError, match="row 33 "):
        rows.check_finite(0, out)


@pytest.mark.slow
def test_what_single_rows_decide_is_right_and_survives_plans_and_checkpoints(arrays, tmp_path):
    mcmc = SGWORLD(model, stream=True, progress_bar=False)
    mcmc.run(KEY, *arrays)
    assert mcmc.plan.take_all.tolist() == list(PLACES)
    assert mcmc.plan.size == SIZE - 2 and mcmc.plan.batch_size <= 1000
    assert "In every batch: 2 rows" in str(mcmc.bias_report())
    c = np.asarray(mcmc.get_samples()["c"], float)
    for number, count in enumerate((1, 3)):
        mean, deviation = exact_moments(float(arrays[0][PLACES[number]]), count)
        assert abs(c[:, number].mean() - mean) < 0.1 * deviation
        assert 0.92 < c[:, number].std() / deviation < 1.08
    mcmc.save_plan(tmp_path / "plan")
    again = SGWORLD(model, stream=True, progress_bar=False, plan=tmp_path / "plan")
    again.run(KEY, *arrays)
    np.testing.assert_array_equal(again.get_samples()["c"], mcmc.get_samples()["c"])
    for _ in range(2):
        saved = SGWORLD(model, stream=True, progress_bar=False)
        saved.run(KEY, *arrays, checkpoint=tmp_path / "run", resume=True)
        np.testing.assert_array_equal(saved.get_samples()["c"], mcmc.get_samples()["c"])


def logistic(x, y):
    b = numpyro.sample("b", dist.Normal(0, 3).expand([2]).to_event(1))
    with numpyro.plate("rows", len(y)):
        numpyro.sample("y", dist.Bernoulli(logits=b[0] + b[1] * x), obs=y)


def rare_level():
    """A level of twelve rows, of which a part of the rows knows some without an event."""
    rng, size = np.random.default_rng(2), 160_000
    x = np.zeros(size, np.float32)
    x[rng.choice(size, 12, replace=False)] = 1
    return x, (rng.random(size) < np.where(x > 0, 0.3, 0.05)).astype(np.float32)


def ordered(x, y):
    b = numpyro.sample("b", dist.Normal(0, 5))
    free = dist.Normal(0, 10).expand([4]).to_event(1)
    cuts = dist.TransformedDistribution(free, dist.transforms.OrderedTransform())
    c = numpyro.sample("c", cuts)
    with numpyro.plate("rows", len(y)):
        numpyro.sample("y", dist.OrderedLogistic(b * x, c), obs=y)


def rare_ends():
    """Ordered answers, of which the last has two rows: impossible where a part has none of it."""
    rng, size = np.random.default_rng(5), 60_001
    x = rng.standard_normal(size).astype(np.float32)
    latent = 0.7 * x + rng.logistic(size=size)
    return x, np.searchsorted([-9.6, 0, 2, np.sort(latent)[-2]], latent).astype(np.int32)


@pytest.mark.slow
@pytest.mark.parametrize(("model", "data"), [(logistic, rare_level()), (ordered, rare_ends())])
def test_kinds_of_rows_that_a_part_of_them_lacks_keep_no_run_from_starting(model, data, tmp_path):
    for number, x in enumerate(data):
        np.save(tmp_path / f"{number}.npy", x)
    mapped = [np.load(tmp_path / f"{number}.npy", mmap_mode="r") for number in range(2)]
    fits = [
        SGWORLD(model, stream=stream, progress_bar=False)
        .set_up(jax.random.key(2), *given)
        .fit.coordinates
        for stream, given in ((True, mapped), (False, data))
    ]
    apart = (fits[0].center - fits[1].center) / fits[1].deviations()
    # The closest Gaussian's center need not be the mode, and rows in pilot chains are a sample.
    assert np.abs(apart).max() < 0.5
    np.testing.assert_allclose(fits[0].deviations(), fits[1].deviations(), rtol=0.25)


def slope_alone(x, y):
    b = numpyro.sample("b", dist.Normal(0, 3))
    with numpyro.plate("rows", len(y)):
        numpyro.sample("y", dist.Bernoulli(logits=b * x), obs=y)


def test_a_code_for_missing_values_far_from_all_others(tmp_path):
    """Newton steps overshoot for ever: its row says nothing on one side, and b < 0 on the other."""
    rng = np.random.default_rng(3)
    x = rng.standard_normal(SIZE).astype(np.float32)
    y = (rng.random(SIZE) < 0.5).astype(np.float32)
    x[-7], y[-7] = 9999, 0
    np.save(tmp_path / "x", x), np.save(tmp_path / "y", y)
    mcmc = SGWORLD(slope_alone, stream=True, progress_bar=False)
    mcmc.run(KEY, *(np.load(tmp_path / f"{name}.npy", mmap_mode="r") for name in "xy"))
    assert mcmc.plan.take_all.tolist() == [SIZE - 7]
    grid = np.linspace(-0.06, 0.005, 20_001)
    wide, answers = x.astype(float), y.astype(float)
    # Sums of the others are smooth: nine points of the grid are enough for a parabola.
    few = np.linspace(grid[0], grid[-1], 9)
    others = np.arange(SIZE) != SIZE - 7
    values = [(answers * b * wide - np.logaddexp(0, b * wide))[others].sum() for b in few]
    log_density = np.polyval(np.polyfit(few, values, 4), grid) - grid**2 / 18
    log_density -= np.logaddexp(0, grid * wide[-7])
    weights = np.exp(log_density - log_density.max())
    mean, square = (np.average(grid**k, weights=weights) for k in (1, 2))
    draws, deviation = np.asarray(mcmc.get_samples()["b"], float), np.sqrt(square - mean**2)
    assert abs(draws.mean() - mean) < 0.1 * deviation
    assert 0.92 < draws.std() / deviation < 1.08
