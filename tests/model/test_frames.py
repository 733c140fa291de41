"""Models that take the columns of a frame by name."""

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pandas as pd
import polars as pl
import pytest

from sgworld_mcmc import SGWORLD

KEY = jax.random.key(0)


def frame(size=600):
    rng = np.random.default_rng(0)
    group = rng.integers(0, 3, size)
    columns = {
        "x": rng.normal(size=size),
        "count": rng.integers(0, 5, size),
        "group": pd.Categorical.from_codes(group, ["low", "middle", "high"]),
        "name": ["somebody"] * size,
        "when": pd.date_range("2020", periods=size),
    }
    table = pd.DataFrame(columns)
    table["y"] = 1 + 2 * table.x - 0.3 * table["count"] + 0.5 * group + rng.normal(size=size)
    return table


def regress(x, count, group, y, groups):
    level = numpyro.sample("level", dist.Normal(0, 5).expand([groups]).to_event(1))
    slopes = numpyro.sample("slopes", dist.Normal(0, 5).expand([2]).to_event(1))
    with numpyro.plate("rows", len(y)):
        mean = level[group] + slopes[0] * x + slopes[1] * count
        numpyro.sample("y", dist.Normal(mean, 1.0), obs=y)


def of_arrays(x, count, group, y):
    regress(x, count, group, y, 3)


def of_values(table):
    codes = table["group"].cat.codes.values
    regress(table["x"].values, table["count"].values, codes, table["y"].values, 3)


def of_columns(table):
    groups = table.group.nunique()
    regress(table.x, table["count"], table.group.cat.codes.to_numpy(), table.y, groups)


def of_a_polars_frame(table):
    x, count = table["x"].to_numpy(), table["count"].to_numpy()
    regress(x, count, table["group"].to_numpy(), table["y"].to_numpy(), 3)


def draws(model, *data):
    mcmc = SGWORLD(model, num_samples=50, num_warmup=10)
    mcmc.run(KEY, *data)
    assert mcmc.plan.dynamics.num_batches > 1
    return mcmc.get_samples()


def plain(table):
    codes = np.asarray(table["group"].cat.codes, np.int32)
    return table.x.to_numpy(), table["count"].to_numpy(), codes, table.y.to_numpy()


@pytest.mark.parametrize("model", [of_values, of_columns])
@pytest.mark.slow
def test_the_draws_are_those_of_a_model_that_is_given_arrays(model):
    table = frame()
    expected, found = draws(of_arrays, *plain(table)), draws(model, table)
    for site, values in expected.items():
        np.testing.assert_allclose(found[site], values, atol=2e-4)


@pytest.mark.slow
def test_a_polars_frame_is_taken_by_name_too():
    x, count, codes, y = plain(frame())
    table = pl.DataFrame({"x": x, "count": count, "group": codes, "y": y})
    expected, found = draws(of_arrays, x, count, codes, y), draws(of_a_polars_frame, table)
    np.testing.assert_allclose(found["level"], expected["level"], atol=2e-4)


@pytest.mark.slow
def test_several_columns_are_a_matrix():
    def model(table):
        beta = numpyro.sample("beta", dist.Normal(0, 5).expand([2]).to_event(1))
        mean = 1 + table[["x", "count"]].values @ beta
        numpyro.sample("y", dist.Normal(mean, 1.2), obs=jnp.asarray(table["y"].values))

    table = frame()
    design = table[["x", "count"]].to_numpy()
    exact = np.linalg.lstsq(design, table.y.to_numpy() - 1, rcond=None)[0]
    sd = 1.2 * np.sqrt(np.diag(np.linalg.inv(design.T @ design)))
    assert np.abs(draws(model, table)["beta"].mean(0) - exact).max() < 0.5 * sd.max()


def test_only_the_columns_that_are_taken_are_data():
    mcmc = SGWORLD(of_values, num_samples=20, num_warmup=5)
    mcmc.run(KEY, frame())
    assert len(jax.tree.leaves(mcmc.data.feed)) == 4
    names = mcmc.to_arviz().posterior["level"].coords["table_group_category"]
    assert list(names.values) == ["low", "middle", "high"]


@pytest.mark.slow
def test_a_matrix_of_all_columns_stays_an_array():
    def model(table, y):
        beta = numpyro.sample("beta", dist.Normal(0, 5).expand([table.shape[1]]).to_event(1))
        numpyro.sample("y", dist.Normal(table @ beta, 1.0), obs=y)

    table = frame()
    assert draws(model, table[["x", "count"]], table.y)["beta"].shape == (200, 2)


@pytest.mark.parametrize(
    ("column", "error", "message"),
    [
        ("nothing", ValueError, "asks for the column 'nothing' of `table`, whose columns are 'x'"),
        ("name", TypeError, r"`table\['name'\]` holds strings"),
        ("when", TypeError, r"`table\['when'\]` holds time stamps"),
        ("gap", ValueError, r"`table\['gap'\]` has .*missing|NaN"),
    ],
)
def test_a_column_that_cannot_be_used_is_named(column, error, message):
    def model(table):
        regress(table["x"], table[column].values, 0, table["y"], 1)

    table = frame().assign(gap=np.nan)
    with pytest.raises(error, match=message):
        SGWORLD(model).run(KEY, table)
