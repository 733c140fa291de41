"""Permutations of many rows: every row once, every place and every pair of places alike."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from tolerances import SIGMAS

from sgworld_mcmc.data.permutation import SORTED, random_permutation


@settings(max_examples=12, deadline=None, derandomize=True)
@given(size=st.integers(1, 30_000), seed=st.integers(0, 2**32 - 1))
def test_every_number_once(size, seed):
    found = random_permutation(jax.random.key(seed), size)
    assert found.dtype == jnp.int32
    np.testing.assert_array_equal(np.sort(found), np.arange(size))


@pytest.mark.parametrize("size", [1, 2, SORTED, SORTED + 1, 5041, 5042, 5040, 65_536, 1_000_003])
def test_sizes_beside_squares(size):
    found = np.asarray(random_permutation(jax.random.key(size), size))
    np.testing.assert_array_equal(np.sort(found), np.arange(size))


@pytest.fixture(scope="module", params=[5000, 5041])
def permutations(request):
    """Many permutations, (keys, size)."""
    keys = jax.random.split(jax.random.key(0), 4000)
    return np.asarray(jax.jit(jax.vmap(lambda key: random_permutation(key, request.param)))(keys))


def test_every_place_has_all_numbers_alike(permutations):
    size = permutations.shape[1]
    for place in (0, 1, 17, 70, 71, size // 2, size - 1):
        counts = np.histogram(permutations[:, place], 50, (0, size))[0]
        assert stats.chisquare(counts).pvalue > 1e-4


def test_pairs_of_rows_share_a_batch_as_often_as_any(permutations):
    """Also rows that are neighbours on the grid on which the numbers are written."""
    size, batch = permutations.shape[1], 100
    batches = permutations.argsort(1) // batch
    chance = (batch - 1) / (size - 1)
    root = int(np.ceil(np.sqrt(size)))
    starts = np.arange(0, size - 2 * root, 7)
    for lag in (1, 2, root - 1, root, root + 1, 2 * root):
        together = (batches[:, starts] == batches[:, starts + lag]).mean()
        error = np.sqrt(chance / (len(permutations) * len(starts)))
        assert abs(together - chance) < SIGMAS * error


@pytest.mark.parametrize("kind", ["trend", "row of the grid", "column of the grid", "parity"])
def test_means_of_batches_have_the_variance_of_drawing_without_replacement(permutations, kind):
    size, batch = permutations.shape[1], 200
    root, number = int(np.ceil(np.sqrt(size))), np.arange(size)
    values = {
        "trend": number / size,
        "row of the grid": number // root,
        "column of the grid": number % root,
        "parity": number % 2,
    }[kind]
    means = values[permutations[:, :batch]].mean(1)
    exact = values.var(ddof=1) / batch * (1 - batch / size)
    count = len(means)
    assert abs(means.mean() - values.mean()) < SIGMAS * np.sqrt(exact / count)
    assert abs(means.var() / exact - 1) < SIGMAS * np.sqrt(2 / count)


def test_permutations_of_different_keys_do_not_know_each_other(permutations):
    first, second = permutations[0::2].astype(float), permutations[1::2].astype(float)
    size = permutations.shape[1]
    ranks = [(x - (size - 1) / 2) / np.sqrt((size**2 - 1) / 12) for x in (first, second)]
    correlations = (ranks[0] * ranks[1]).mean(1) * np.sqrt(size - 1)
    assert stats.kstest(correlations, "norm").pvalue > 1e-3
    assert (first == second).mean() < 2 / size  # one number in the mean stays in its place


@pytest.mark.parametrize("size", [1000, 10_000])
def test_data_that_were_drawn_with_the_same_key_are_not_sorted(size):
    """Keys such as jax.random.key(0) are used for everything."""
    key = jax.random.key(0)
    for data_key in (key, *jax.random.split(key), *jax.random.split(key, 3)):
        for draw in (jax.random.normal, jax.random.uniform):
            values = np.asarray(draw(data_key, (size,)))
            dealt = values[random_permutation(key, size)]
            assert abs(stats.spearmanr(dealt, np.arange(size)).statistic) < SIGMAS / np.sqrt(size)
