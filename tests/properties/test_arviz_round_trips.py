"""Draws of any names and shapes go to ArviZ, to a file and back, and are the same."""

import arviz as az
import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst

from sgworld_mcmc.diagnostics.scalars import as_chains, flatten_scalars

names = st.from_regex(r"[a-z][a-z0-9_]{0,7}", fullmatch=True)
finite = st.floats(-1e6, 1e6, width=32)


@st.composite
def draws(draw):
    chains, number = draw(st.integers(1, 3)), draw(st.integers(3, 6))
    sites = draw(st.lists(names, min_size=1, max_size=3, unique=True))
    shapes = [draw(npst.array_shapes(min_dims=0, max_dims=2, max_side=3)) for _ in sites]
    return {
        site: draw(npst.arrays(np.float32, (chains, number, *shape), elements=finite))
        for site, shape in zip(sites, shapes, strict=True)
    }


@settings(max_examples=30, deadline=None, derandomize=True)
@given(sites=draws())
def test_draws_survive_arviz(sites):
    read = as_chains(az.from_dict(posterior=sites))
    assert list(read) == list(sites)
    for site, values in sites.items():
        np.testing.assert_array_equal(read[site], values)


@settings(max_examples=8, deadline=None, derandomize=True)
@given(sites=draws())
def test_draws_survive_a_file(sites, tmp_path_factory):
    path = tmp_path_factory.mktemp("draws") / "draws.nc"
    az.from_dict(posterior=sites).to_netcdf(path)
    read = as_chains(az.from_netcdf(path))
    for site, values in sites.items():
        np.testing.assert_array_equal(read[site], values)


@settings(max_examples=30, deadline=None, derandomize=True)
@given(sites=draws())
def test_scalars_are_named_once_and_keep_their_values(sites):
    scalars = flatten_scalars(sites)
    flat = [x.reshape(*x.shape[:2], -1) for x in sites.values()]
    np.testing.assert_array_equal(np.stack(list(scalars.values()), -1), np.concatenate(flat, -1))
