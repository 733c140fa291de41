"""Programs that the package compiles give right numbers."""

import jax
import numpy as np

from sgworld_mcmc.compilation import Ahead, quick_jit
from sgworld_mcmc.coordinates.arrow import Arrow


def test_coordinates_of_many_chains_are_those_of_each():
    """XLA's own choice for such sums returns wrong numbers for all chains but the first 16."""
    rng, groups = np.random.default_rng(0), 1000
    blocks, coupling = rng.normal(size=(groups, 2, 2)), rng.normal(size=(groups, 2, 5))
    root, center = rng.normal(size=(5, 5)), np.zeros(2 * groups + 5)
    made = Arrow.make(center, blocks, coupling, root, ((5,), (1, groups, 2)))
    z = rng.normal(size=(64, len(center)))
    for work in ("little", "some", "much"):
        apply = quick_jit(lambda made, z: jax.vmap(made.apply)(z), work)
        short = np.asarray(apply(made.cast(np.float32), z.astype(np.float32)))
        np.testing.assert_allclose(short, made.apply(z), atol=1e-4)


def test_programs_that_are_compiled_ahead_are_those_of_the_call():
    traced = []

    def function(x, parts):
        traced.append(x.shape)
        return x + parts["y"]

    ahead = Ahead(quick_jit(function))
    ahead.compile(np.zeros(3, np.float32), {"y": np.float32(0)})
    ahead.compile(np.ones(3, np.float32), {"y": np.float32(1)})  # the same program
    np.testing.assert_array_equal(ahead(np.ones(3, np.float32), {"y": np.float32(2)}), 3)
    assert traced == [(3,)]
    # Others are compiled when they are called.
    np.testing.assert_array_equal(ahead(np.ones(2, np.float32), {"y": np.float32(2)}), 3)
    assert traced == [(3,), (2,)]
