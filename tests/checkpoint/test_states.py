"""The states that orbax writes come back with every bit."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sgworld_mcmc.checkpoint.states import Point, States, host_leaves, like

pytest.importorskip("orbax.checkpoint")

STATE = {
    "key": jax.random.split(jax.random.key(3), 4),
    "rbg": jax.random.key(1, impl="rbg"),
    "empty": jnp.zeros((4, 0)),
    "truth": jnp.array(True),
    "half": jnp.arange(5, dtype=jnp.bfloat16) / 3,
    "step": jnp.array(2**31 - 1, jnp.int32),
    "odd": jnp.array([jnp.nan, jnp.inf, -0.0, 1e-42]),
}


def words(x):
    key = jax.dtypes.issubdtype(x.dtype, jax.dtypes.prng_key)
    return np.asarray(jax.random.key_data(x) if key else x).tobytes()


def test_every_kind_of_array_comes_back(tmp_path):
    double = (np.random.default_rng(0).normal(size=3), np.zeros((2, 0)))
    states = States(tmp_path / "states")
    assert states.last() is None
    states.save(Point(2, 2**40, 7, host_leaves(STATE), double))
    states.close()
    point = States(tmp_path / "states").last()
    assert (point.chain, point.calls, point.made) == (2, 2**40, 7)
    made = like(STATE, point.state)
    for name, x in STATE.items():
        assert made[name].dtype == x.dtype and made[name].shape == x.shape
        assert words(made[name]) == words(x), name
    assert point.ended[0].tobytes() == double[0].tobytes() and point.ended[1].shape == (2, 0)
    with pytest.raises(ValueError, match="chains of another kind"):
        like({"x": jnp.zeros(3)}, point.state)


def test_the_state_before_serves_where_the_last_is_damaged(tmp_path):
    states = States(tmp_path / "states")
    for made in (1, 2, 3):
        states.save(Point(0, 0, made, (np.arange(3),)))
    states.close()
    found = sorted(int(path.name) for path in (tmp_path / "states").iterdir())
    assert found == [1, 2]
    for file in (tmp_path / "states" / "2").rglob("*"):
        if file.is_file():
            file.write_bytes(b"")
    states = States(tmp_path / "states")
    assert states.last().made == 2
    states.save(Point(0, 0, 4, (np.arange(3),)))
    states.close()
    assert States(tmp_path / "states").last().made == 4
    for file in (tmp_path / "states").rglob("*"):
        if file.is_file():
            file.write_bytes(b"")
    with pytest.raises(ValueError, match="cannot be read"):
        States(tmp_path / "states").last()
