"""The loop in blocks: the same draws whatever the blocks, from one program."""

import logging
import re
import time
from contextlib import contextmanager
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sgworld_mcmc.interrupts import Interrupts
from sgworld_mcmc.sampling import loop
from sgworld_mcmc.sampling.collection import Collection
from sgworld_mcmc.sampling.loop import collect
from sgworld_mcmc.sampling.program import program_for


class State(NamedTuple):
    i: jax.Array
    z: dict
    rng_key: jax.Array


class Walk:
    """A random walk that counts how often it is traced."""

    def __init__(self, slow=0):
        self.traced, self.slow = 0, slow

    def start(self, chains=None):
        key = jax.random.key(7) if chains is None else jax.random.split(jax.random.key(7), chains)
        shape = key.shape
        return State(jnp.zeros(shape, jnp.int32), {"x": jnp.zeros((*shape, 2))}, key)

    def sample(self, state, args, kwargs):
        self.traced += 1

        def one(state):
            key, noise = jax.random.split(state.rng_key)
            x = 0.9 * state.z["x"] + args[0] * jax.random.normal(noise, (2,))
            x = jax.lax.fori_loop(0, self.slow, lambda _, x: jnp.sin(x), x)
            return State(state.i + 1, {"x": x}, key)

        return jax.vmap(one)(state) if state.i.ndim else one(state)

    def postprocess_fn(self, args, kwargs):
        return lambda z: {"x": z["x"], "square": z["x"] ** 2}


PLAN = Collection(5, 40, 1, ("z", "i"), (), False)


def run(walk, state=None, plan=PLAN, **options):
    state = walk.start() if state is None else state
    return collect(state, (1.0,), {}, sampler=walk, collection=plan, postprocess=None, **options)


@contextmanager
def programs():
    """Names of the programs that are compiled meanwhile."""
    names, handler = [], logging.Handler()
    handler.emit = lambda record: names.extend(
        re.findall(r"Finished XLA compilation of (\S+)", record.getMessage())
    )
    logger = logging.getLogger("jax._src.dispatch")
    level = logger.level
    logger.addHandler(handler)
    logger.setLevel(logging.DEBUG)
    try:
        yield names
    finally:
        logger.removeHandler(handler)
        logger.setLevel(level)


def expected(walk, plan):
    """The draws call by call, without a loop of ours."""
    state, kept = walk.start(), []
    step = jax.jit(lambda state: walk.sample(state, (1.0,), {}))
    for call in range(1, plan.calls + plan.draws * plan.thinning + 1):
        state = step(state)
        if call > plan.calls and (call - plan.calls) % plan.thinning == 0:
            kept.append(state.z["x"])
    return np.stack(kept)


@pytest.mark.parametrize("thinning", [1, 3])
def test_draws_do_not_depend_on_the_blocks_and_one_program_makes_them(thinning):
    walk, plan = Walk(), PLAN._replace(thinning=thinning)
    with programs() as compiled:
        runs = [run(walk, plan=plan, block=block) for block in (1, 2, 7, 10**6, None)]
    # The kernel's body is there once, and no length of a block or rest of it is compiled anew.
    assert compiled.count("jit_advance") + compiled.count("jit(advance)") == 1, compiled
    assert walk.traced == 1
    np.testing.assert_allclose(runs[0].draws["z"]["x"], expected(Walk(), plan), rtol=1e-5)
    np.testing.assert_array_equal(runs[0].draws["i"], 5 + thinning * np.arange(1, 41))
    for other in runs[1:]:
        jax.tree.map(np.testing.assert_array_equal, other.draws, runs[0].draws)
        np.testing.assert_array_equal(other.state.z["x"], runs[0].state.z["x"])
        assert other.made == 40


def test_a_run_in_two_parts_is_the_whole_run():
    walk = Walk()
    whole = run(walk)
    first = run(walk, plan=PLAN._replace(draws=15, room=40))
    second = run(walk, first.state, PLAN._replace(calls=0, draws=25, room=40))
    assert walk.traced == 1  # they have the room of the whole
    both = np.concatenate([first.draws["z"]["x"], second.draws["z"]["x"]])
    np.testing.assert_array_equal(both, whole.draws["z"]["x"])


def test_no_draws_only_calls():
    walk = Walk()
    found = run(walk, plan=PLAN._replace(draws=0, room=40))
    assert found.draws == {}
    assert int(found.state.i) == 5
    run(walk)
    assert walk.traced == 1


def test_the_callers_state_is_left_alone_and_the_draws_are_not_copied():
    walk, state = Walk(), Walk().start()
    blocks = []

    def watched(recipe, work):
        program = program_for(recipe, work)

        def advance(state, buffers, *numbers, **static):
            out = program(state, buffers, *numbers, **static)
            blocks.append([x.unsafe_buffer_pointer() for x in jax.tree.leaves(out[1])])
            return out

        return advance

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loop, "program_for", watched)
        found = run(walk, state, block=10)
    assert len(blocks) == 1 + 1 + 4  # one to compile, the warm-up and four of ten draws
    assert not any(x.is_deleted() for x in jax.tree.leaves(state))
    # All blocks write to the same memory.
    assert all(block == blocks[0] for block in blocks)
    assert [x.unsafe_buffer_pointer() for x in jax.tree.leaves(found.draws)] == blocks[0]
    np.testing.assert_array_equal(run(walk, state).draws["z"]["x"], found.draws["z"]["x"])


def test_chains_and_removed_sites():
    walk = Walk()
    found = run(walk, walk.start(3), PLAN._replace(vectorized=True, removed=("square",)))
    assert set(found.draws["z"]) == {"x"}
    assert found.draws["z"]["x"].shape == (3, 40, 2)


def test_inside_a_transformation_all_draws_are_made_at_once():
    walk = Walk()
    alone = run(walk)
    walk.traced = 0
    mapped = jax.vmap(lambda state: run(walk, state)[:2])(
        jax.tree.map(lambda x: x[None], walk.start())
    )
    assert walk.traced == 1
    np.testing.assert_allclose(mapped[0]["z"]["x"][0], alone.draws["z"]["x"], rtol=1e-5)


def test_blocks_take_the_time_that_they_should(monkeypatch):
    """Few round trips, none of them long."""
    monkeypatch.setattr(loop, "BLOCK_SECONDS", 0.05)
    seconds = []
    call = loop._Clockwork.__call__

    def timed(self, *args):
        begin = time.perf_counter()
        state = call(self, *args)
        seconds.append(time.perf_counter() - begin)
        return state

    monkeypatch.setattr(loop._Clockwork, "__call__", timed)
    run(Walk(slow=2000), plan=PLAN._replace(draws=10_000))
    assert 8 < len(seconds) < 0.5 * 10_000
    assert np.median(seconds) < 0.2
    seconds.clear()
    run(Walk())
    assert len(seconds) == 4


def test_a_stopped_run_keeps_whole_draws_and_can_be_continued():
    walk, plan = Walk(), PLAN._replace(thinning=3)
    whole = run(walk, plan=plan)

    class Soon(Interrupts):
        def defer(self):
            self.blocks = getattr(self, "blocks", 0) + 1
            self.asked = self.blocks == 7

    # Blocks of two calls end within draws.
    found = run(walk, plan=plan, block=2, interrupts=Soon())
    assert found.made == 7 and int(found.state.i) == 5 + 3 * 7
    np.testing.assert_array_equal(found.draws["z"]["x"], whole.draws["z"]["x"][:7])
    rest = run(walk, found.state, plan._replace(calls=0, draws=33, room=40))
    np.testing.assert_array_equal(rest.draws["z"]["x"], whole.draws["z"]["x"][7:])
    assert walk.traced == 1
