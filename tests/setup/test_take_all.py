"""Rows that matter more than others: found, and in every batch."""

import pickle

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from numpyro.infer.util import potential_energy
from single_counts import exact_moments

from sgworld_mcmc import SGWORLD, TuningWarning
from sgworld_mcmc.progress import watch
from sgworld_mcmc.setup import influential_rows
from sgworld_mcmc.setup.influential_rows import FEW, chosen_rows

KEY, SIZE, PLACE = jax.random.key(0), 20_000, 77


def model(x, flag, y):
    a = numpyro.sample("a", dist.Normal(0, 5))
    b = numpyro.sample("b", dist.Normal(0, 5))
    c = numpyro.sample("c", dist.Normal(0, 10))
    with numpyro.plate("rows", len(y)):
        numpyro.sample("y", dist.Poisson(jnp.exp(a + b * x + c * flag)), obs=y)


def data_of(size=SIZE, count=3):
    """Counts, of which a single one has the flag: the mode fits it with hardly any slope."""
    rng = np.random.default_rng(1)
    x, flag = rng.standard_normal(size), np.zeros(size)
    y = rng.poisson(np.exp(0.2 + 0.3 * x)).astype(float)
    flag[PLACE], y[PLACE] = 1, count
    return x.astype(np.float32), flag.astype(np.float32), y.astype(np.float32)


def test_every_batch_knows_the_row():
    x, flag, y = data_of()
    mcmc = SGWORLD(model, progress_bar=False)
    plan = mcmc.set_up(KEY, x, flag, y)
    assert len(plan.take_all) == 1 and plan.size == SIZE - 1
    data, c = mcmc.data, -1.0
    slope = jax.jit(jax.grad(data.model.log_density))
    theta = jnp.array([0.2, 0.3, c])
    # Nothing but this row and the prior depends on c.
    expected = 3 - np.exp(0.2 + 0.3 * x[PLACE] + c) - c / 100
    for index in (0, 1, plan.num_batches - 1):
        rows = data.feed.fetch((), index).main
        np.testing.assert_allclose(slope(theta, rows, data.constants)[2], expected, rtol=1e-5)


def test_runs_again_from_a_file_and_go_on(tmp_path):
    """Wherever data are laid out anew, the same row is in every batch."""
    data = data_of()
    mcmc = SGWORLD(model, num_samples=50, progress_bar=False)
    mcmc.run(KEY, *data, extra_fields=("potential_energy",))
    draws = mcmc.get_samples()
    energy = mcmc.get_extra_fields()["potential_energy"]
    for place in (0, 99):
        point = {name: values[place] for name, values in draws.items()}
        np.testing.assert_allclose(
            energy[place], potential_energy(model, data, {}, point), rtol=1e-5
        )
    assert "In every batch: a row that matters more than others." in str(mcmc.bias_report())
    mcmc.save_plan(tmp_path / "plan")
    again = SGWORLD(model, num_samples=50, progress_bar=False, plan=tmp_path / "plan")
    again.run(KEY, *data)
    np.testing.assert_array_equal(again.get_samples()["c"], draws["c"])
    back = pickle.loads(pickle.dumps(mcmc))
    back.run(KEY, *data)
    np.testing.assert_array_equal(back.get_samples()["c"], draws["c"])
    assert len(back.plan.take_all) == 1


def test_parts_of_the_rows_for_several_devices_know_the_row_too(tmp_path):
    data = data_of(60_000)
    settings = {"num_samples": 50, "data_shards": 3, "batch_size": 25_000}
    mcmc = SGWORLD(model, progress_bar=False, **settings)
    mcmc.run(KEY, *data)
    assert len(mcmc.plan.take_all) == 1 and mcmc.data.feed.shards == 3
    mcmc.save_plan(tmp_path / "plan")
    again = SGWORLD(model, num_samples=50, progress_bar=False, plan=tmp_path / "plan")
    again.run(KEY, *data)
    np.testing.assert_array_equal(again.get_samples()["c"], mcmc.get_samples()["c"])


def test_rows_are_not_looked_for_where_nothing_is_chosen_or_all_are_one_batch():
    data = data_of()
    for settings in (
        {"batch_size": SIZE},
        {"batch_size": 100, "step_size": 0.1, "steps_per_draw": 2, "gradient": "plain"},
    ):
        plan = SGWORLD(model, progress_bar=False, **settings).set_up(KEY, *data)
        assert plan.take_all.size == 0 and plan.size == SIZE


def test_rows_of_directions_along_which_few_matter_are_chosen():
    slopes, direction = np.full(10_000, 1e-3), np.zeros(10_000, int)
    assert len(chosen_rows(slopes, direction)) == 0
    slopes[[5, 7000]] = 0.3, 3.0
    assert chosen_rows(slopes, direction).tolist() == [5, 7000]
    slopes[3] = np.nan
    assert 3 in chosen_rows(slopes, direction)
    # More than there is room for are alike: one that is alone is not crowded out.
    slopes[1000 : 1001 + FEW], direction[1000 : 1001 + FEW] = 0.9, 1
    assert chosen_rows(slopes, direction).tolist() == [3, 5, 7000]


def test_rows_that_only_one_side_of_the_mode_shows_are_found_whatever_the_key():
    """Levels without an event: their rows have a slope where the coefficient is large."""
    size, levels = 30_000, 6
    rng = np.random.default_rng(4)
    level = np.full(size, levels, np.int32)
    places = rng.permutation(size)[: 10 * levels]
    level[places] = np.repeat(np.arange(levels), 10)
    y = (rng.random(size) < 0.003).astype(np.float32)
    y[places] = 0

    def events(level, y):
        a = numpyro.sample("a", dist.Normal(0, 10))
        b = numpyro.sample("b", dist.Normal(0, 3).expand([levels]).to_event(1))
        with numpyro.plate("rows", len(y)):
            numpyro.sample("y", dist.Bernoulli(logits=a + jnp.append(b, 0.0)[level]), obs=y)

    for seed in range(2):
        plan = SGWORLD(events, progress_bar=False).set_up(jax.random.key(seed), level, y)
        assert len(plan.take_all) == 10 * levels


@pytest.mark.slow
@pytest.mark.parametrize("count", [1, 3])
def test_draws_of_what_one_row_decides_are_right_and_minibatches_stay_small(count):
    data = data_of(200_000, count)
    mean, deviation = exact_moments(data[0][PLACE], count)
    mcmc = SGWORLD(model, num_samples=4000, progress_bar=False)
    mcmc.run(KEY, *data)
    assert mcmc.plan.batch_size <= 1000
    c = np.asarray(mcmc.get_samples(group_by_chain=True)["c"], float)
    # Four chains tell the errors of mean and deviation; the latter has a long tail to the left.
    assert abs(c.mean() - mean) < 0.1 * deviation
    assert 0.92 < c.std() / deviation < 1.08


@pytest.mark.slow
def test_a_row_among_groups_that_decides_about_what_they_share(tmp_path):
    size, groups = 60_000, 320
    rng = np.random.default_rng(2)
    g = rng.integers(0, groups, size).astype(np.int32)
    effect, flag = 0.5 * rng.standard_normal(groups), np.zeros(size, np.float32)
    y = rng.poisson(np.exp(0.2 + effect[g])).astype(np.float32)
    flag[PLACE], y[PLACE] = 1, 3

    def by_group(g, flag, y):
        mu, tau = numpyro.sample("mu", dist.Normal(0, 1)), numpyro.sample("tau", dist.HalfNormal(1))
        c = numpyro.sample("c", dist.Normal(0, 10))
        with numpyro.plate("groups", groups):
            u = numpyro.sample("u", dist.Normal(mu, tau))
        with numpyro.plate("rows", len(y)):
            numpyro.sample("y", dist.Poisson(jnp.exp(u[g] + c * flag)), obs=y)

    mcmc = SGWORLD(by_group, progress_bar=False)
    mcmc.run(KEY, g, flag, y)
    assert mcmc.plan.fit.unit and len(mcmc.plan.take_all) == 1
    c = np.asarray(mcmc.get_samples()["c"], float)
    # The other rows of its group leave little doubt: a gamma distribution of 3 counts.
    rate = np.exp(c + np.asarray(mcmc.get_samples()["u"], float)[:, g[PLACE]])
    assert abs(rate.mean() - 3) < 0.1 * 3**0.5
    assert 0.92 < rate.std() / 3**0.5 < 1.08
    mcmc.save_plan(tmp_path / "plan")
    again = SGWORLD(by_group, progress_bar=False, plan=tmp_path / "plan")
    again.run(KEY, g, flag, y)
    np.testing.assert_array_equal(again.get_samples()["c"], mcmc.get_samples()["c"])


@pytest.mark.slow
def test_among_very_many_rows_the_search_for_the_mode_sees_them(monkeypatch):
    """No pass of its own is made there unless the search has seen such rows."""
    size = 2**17 + 4000
    monkeypatch.setattr(influential_rows, "MOST_ROWS", 2**17)
    x, flag, y = data_of(size)
    plan = SGWORLD(model, progress_bar=False).set_up(KEY, x, flag, y)
    assert len(plan.take_all) == 1
    with watch() as seen:
        plan = SGWORLD(model, progress_bar=False).set_up(KEY, x, x**2, y)
    assert len(plan.take_all) == 0 and "rows that matter" not in seen.rows
    # Given settings are kept, and the run says what they do not allow for.
    given = {"batch_size": 1000, "step_size": 0.1, "gradient": "plain", "num_samples": 20}
    with pytest.warns(TuningWarning, match="Single rows seem to decide about c:"):
        SGWORLD(model, progress_bar=False, **given).run(KEY, x, flag, y)


@pytest.mark.slow
def test_hundreds_of_levels_of_one_row_each():
    """Without these rows in every batch the pilot chains are lost, and the run takes minutes."""
    size, levels = 20_000, 270
    rng = np.random.default_rng(0)
    level = np.zeros(size, np.int32)
    places = rng.permutation(size)[:levels]
    level[places] = np.arange(1, levels + 1)
    y = rng.poisson(np.exp(0.3), size).astype(np.float32)

    def counts(level, y):
        a = numpyro.sample("a", dist.Normal(0, 5))
        c = numpyro.sample("c", dist.Normal(0, 2).expand([levels]).to_event(1))
        with numpyro.plate("rows", len(y)):
            numpyro.sample("y", dist.Poisson(jnp.exp(a + jnp.append(0.0, c)[level])), obs=y)

    mcmc = SGWORLD(counts, progress_bar=False)
    mcmc.run(KEY, level, y)
    assert len(mcmc.plan.take_all) == levels and mcmc.plan.measurements is not None
    c = np.asarray(mcmc.get_samples()["c"], float)
    # All levels with the same count have the same posterior, known by quadrature.
    grid = np.linspace(-20, 8, 20_001)
    for count in (0, 1, 2):
        log = count * grid - np.exp(grid + float(mcmc.get_samples()["a"].mean())) - grid**2 / 8
        weight = np.exp(log - log.max())
        weight /= weight.sum()
        mean = weight @ grid
        deviation = np.sqrt(weight @ (grid - mean) ** 2)
        own = c[:, y[places] == count]
        assert abs(own.mean() - mean) < 0.02 * deviation
        assert abs(own.std(0).mean() / deviation - 1) < 0.02
