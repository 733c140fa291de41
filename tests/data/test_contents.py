"""Finite or not, and changed or not: one pass over an array's memory."""

import jax.numpy as jnp
import numpy as np
import pytest

from sgworld_mcmc.data.contents import WORDS, examine, fingerprint

# Two and a half blocks of single precision, and a few odd bytes.
ROWS = 5 * WORDS + 3


def arrays():
    X = np.random.default_rng(0).normal(size=(ROWS, 2)).astype(np.float32)
    return {
        "C order": X.copy(),
        "Fortran order": np.asfortranarray(X),
        "gaps": np.repeat(X, 2, axis=1)[:, ::2],
        "bytes": (X[:, 0] > 0).astype(np.int8),
        "double": X[:, 0].astype(float),
        "half": X[:, 0].astype(np.float16),
        "empty": X[:0],
        "scalar": np.array(1.5),
    }


@pytest.mark.parametrize("name", ["C order", "Fortran order", "gaps", "double", "half", "scalar"])
@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_single_bad_element_is_found_wherever_it_is(name, value):
    for place in (0, -1):
        data = arrays()
        data[name][(place,) * data[name].ndim] = value
        with pytest.raises(ValueError, match=f"`{name}` has NaN or infinity in 1 of"):
            examine(data)
        with pytest.raises(ValueError, match="in 1 of"):
            examine({name: jnp.asarray(data[name])})


def test_large_elements_are_finite_though_their_sum_is_not():
    examine({"X": np.full(1000, 3e38, np.float32), "half": np.full(1000, 6e4, np.float16)})


@pytest.mark.parametrize("name", arrays())
def test_equal_arrays_have_equal_fingerprints(name):
    assert fingerprint({name: arrays()[name]}) == examine({name: arrays()[name].copy("K")})


@pytest.mark.parametrize("name", ["C order", "Fortran order", "gaps", "double", "bytes", "scalar"])
def test_any_change_in_place_changes_the_fingerprint(name):
    x = arrays()[name]
    before = examine({name: x})
    places = np.random.default_rng(1).integers(len(x), size=20) if x.ndim else [()]
    for place in places:
        old = x[place].copy()
        x[place] = old + 1
        assert fingerprint({name: x}) != before
        x[place] = old
    assert fingerprint({name: x}) == before
    if x.ndim == 0:
        return
    x[[0, WORDS // 3, -1]] = x[[WORDS // 3, -1, 0]]  # the same rows in another order
    assert fingerprint({name: x}) != before or name == "bytes"


def test_exchanged_columns_and_halves_change_the_fingerprint():
    for name in ("C order", "Fortran order"):
        x = arrays()[name]
        before = fingerprint({name: x})
        x[:] = x[:, ::-1].copy()
        assert fingerprint({name: x}) != before
    x = arrays()["double"]
    before = fingerprint({"x": x})
    x[: 2 * WORDS] = np.roll(x[: 2 * WORDS], WORDS)  # two whole blocks
    assert fingerprint({"x": x}) != before


def test_jax_arrays_need_no_fingerprint():
    assert examine({"X": jnp.ones(3)}) == fingerprint({"X": jnp.ones(3)}) == (None,)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_changes_of_signs_and_places_are_seen(dtype):
    """High bits meet all bits of the weights: flipped signs do not cancel."""
    labels = np.where(np.arange(200) % 2, 1, -1).astype(dtype)
    pairs = np.random.default_rng(0).normal(size=(100, 2)).astype(dtype)
    before = fingerprint({"x": labels}), fingerprint({"x": pairs})
    generator = np.random.default_rng(1)
    for _ in range(500):
        assert fingerprint({"x": generator.permutation(labels)}) != before[0]
    for changed in (-labels, np.abs(labels)):
        assert fingerprint({"x": changed}) != before[0]
    for changed in (-pairs, pairs * [1, -1], pairs[:, ::-1].copy(), pairs[::-1].copy()):
        assert fingerprint({"x": changed.astype(dtype)}) != before[1]
