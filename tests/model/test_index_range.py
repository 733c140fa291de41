"""Indices among the data that are too large: JAX reads another entry, and the user is told."""

import warnings

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest

from sgworld_mcmc import SGWORLD
from sgworld_mcmc.model.index_range import check_indices
from sgworld_mcmc.model.inspection import minibatch_model, whole_data_model

RNG = np.random.default_rng(0)
GROUP, DAY = RNG.integers(0, 5, 60), RNG.integers(0, 7, 60)
GROUP[:2], DAY[:2] = (0, 4), (0, 6)
Y = RNG.normal(size=60)


def model_that_reads(read):
    def model(group, day, y):
        with numpyro.plate("groups", 5):
            a = numpyro.sample("a", dist.Normal(0, 1))
        with numpyro.plate("rows", y.shape[0]):
            numpyro.sample("y", dist.Normal(read(a, group, day), 1), obs=y)

    return model


def told(model, group, day):
    made = minibatch_model(model, (group, day, Y), {})
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        check_indices(made.indices, {"group": group, "day": day, "y": Y})
    return [str(each.message) for each in seen]


PLAIN = model_that_reads(lambda a, group, day: a[group])


@pytest.mark.parametrize(
    "read, group, day",
    [
        (lambda a, group, day: a[group], GROUP, DAY),
        (lambda a, group, day: a[group], GROUP - 5, DAY),  # from the end, as in Python
        (lambda a, group, day: a[group - 1], GROUP + 1, DAY),
        (lambda a, group, day: a[group[:, 1]], np.stack([Y, GROUP], 1).astype(int), DAY),
        (lambda a, group, day: jnp.outer(a, jnp.ones(7))[group, day], GROUP, DAY),
        (lambda a, group, day: a.at[group].get(mode="clip"), GROUP + 9, DAY),  # as it was meant
        (lambda a, group, day: a[jnp.minimum(group, 4)], GROUP + 9, DAY),
        (lambda a, group, day: a[jnp.where(day < 0, 0, 1)], GROUP, DAY - 3),  # no index itself
        (lambda a, group, day: a[(day < 0).astype(int)], GROUP, DAY - 3),
    ],
)
def test_nothing_is_said_of_indices_within_range_or_of_those_that_are_clipped(read, group, day):
    assert told(model_that_reads(read), group, day) == []


def test_missing_categories_of_pandas_are_said():
    codes = np.where(GROUP == 2, -1, GROUP)
    (said,) = told(PLAIN, codes, DAY)
    assert f"negative in {(GROUP == 2).sum()} places" in said and "pandas" in said


def test_a_product_of_codes_is_an_index_as_any_other():
    model = model_that_reads(lambda a, group, day: a[(group * 2 + day) // 4 * 0 + group])
    assert told(model, GROUP, DAY) == []
    cells = model_that_reads(lambda a, group, day: a[group * 2 + day])
    (said,) = told(cells, GROUP, DAY)
    assert f"reaches {(2 * GROUP + DAY).max()}" in said
    run = SGWORLD(cells, num_samples=10).set_up
    with pytest.warns(UserWarning, match="`group` and `day`"):
        run(jax.random.key(0), GROUP, DAY, Y)


@pytest.mark.parametrize(
    "read, group, day, words",
    [
        (lambda a, group, day: a[group], GROUP + 1, DAY, "by `group`, which reaches 5"),
        (lambda a, group, day: a[group], GROUP + 3, DAY, "at[index].get(mode='clip')"),
        (lambda a, group, day: a[group], GROUP - 6, DAY, "which goes down to -6"),
        (lambda a, group, day: a[group + 1], GROUP, DAY, "which reaches 5"),
        (lambda a, group, day: jax.jit(lambda a, i: a[i])(a, group), GROUP + 1, DAY, "reaches 5"),
        (lambda a, group, day: jnp.outer(a, a)[:, :4][group, day], GROUP, DAY % 5, "axis 1 has 4"),
    ],
)
def test_an_index_out_of_range_is_named(read, group, day, words):
    (message,) = told(model_that_reads(read), group, day)
    assert words in message and "0 to " in message


def test_groups_that_count_from_one_are_told_the_cure_before_the_set_up():
    mcmc = SGWORLD(PLAIN, num_samples=10, progress_bar=False)
    with pytest.warns(UserWarning, match=r"It counts from one: pass group - 1\.") as seen:
        mcmc.run(jax.random.key(0), GROUP + 1, DAY, Y)
    (mine,) = [each for each in seen if "counts from one" in str(each.message)]
    assert mine.filename == __file__  # the line that called run(...), not one of the package


def test_arrays_that_the_model_closes_over_are_looked_at_too():
    late = GROUP + 1

    def model(y):
        a = numpyro.sample("a", dist.Normal(0, 1).expand([5]).to_event(1))
        numpyro.sample("y", dist.Normal(a[late], 1), obs=y)

    made = whole_data_model(model, (Y,), {}, "closed over")
    with pytest.warns(UserWarning, match="by an array, which reaches 5"):
        check_indices(made.indices, {"y": Y})


def test_an_index_that_is_computed_is_left_alone():
    read = lambda a, group, day: a[(group * 7 + day) // 7]  # noqa: E731
    assert told(model_that_reads(read), GROUP, DAY) == []
    twice = lambda a, group, day: a[jnp.where(group < 3, jnp.where(day > 9, 9, group), 4)]  # noqa: E731
    assert told(model_that_reads(twice), GROUP, DAY) == []
