"""Chunks visit every row exactly once an epoch, whatever the sizes, and depend on the seed only."""

import subprocess
import sys

import numpy as np
import pytest

from sgworld_mcmc.streaming.arrays import ALL, ArraySource
from sgworld_mcmc.streaming.chunks import Chunks, first_chunk
from sgworld_mcmc.streaming.grid import make_grid
from sgworld_mcmc.streaming.read_ahead import ReadAhead
from sgworld_mcmc.streaming.rows import Rows
from sgworld_mcmc.streaming.source import SourceError, StreamedArray

# Rows, batch size, steps of a draw, rows of a chunk.
SIZES = [
    (1000, 7, 5, 200),
    (1000, 10, 100, 200),
    (997, 10, 7, 150),
    (997, 10, 300, 150),
    (50, 10, 3, 20),
    (10, 1, 1, 3),
    (8192, 16, 8, 1024),
]


def rows_of(size):
    numbers = np.arange(size, dtype=np.float32)
    pairs = np.stack([numbers, 2 * numbers], axis=1)
    leaves = [StreamedArray(n, ArraySource(x), ALL, x) for n, x in (("x", numbers), ("X", pairs))]
    return Rows(tuple(leaves), False)


def batches_of(chunk, count):
    """Return the row numbers of each batch, after a look that the two arguments agree."""
    found = []
    for index in range(count):
        batch = chunk.fetch((), index)
        one, two = (np.array(x) for x in batch.main)
        if bool(batch.has_extra):
            one = np.concatenate([one, np.asarray(batch.extra[0])])
            two = np.concatenate([two, np.asarray(batch.extra[1])])
        assert (two == np.stack([one, 2 * one], axis=1)).all()
        found.append(one.astype(int))
    return found


def epochs_of(rows, grid, shuffled, number, first=0):
    chunks = Chunks(rows, grid, shuffled, np.array([1, 2], np.uint32), first)
    try:
        return [batches_of(chunks.next(), grid.batches) for _ in range(number)]
    finally:
        chunks.close()


@pytest.mark.parametrize("fixed", [False, True])
@pytest.mark.parametrize(("size", "batch", "steps", "chunk"), SIZES)
def test_every_row_once_an_epoch(size, batch, steps, chunk, fixed):
    rows = rows_of(size)
    grid, made = make_grid(size, batch, steps, chunk, fixed=fixed)
    assert grid.batch_size + grid.ragged <= batch
    assert grid.batches % grid.call == 0 and made % grid.call == 0
    assert not fixed or steps % -(-size // batch) == 0 or made == steps
    for shuffled in (False, True):
        found = epochs_of(rows, grid, shuffled, 2 * grid.chunks)
        for epoch in (found[: grid.chunks], found[grid.chunks :]):
            batches = [b for chunk in epoch for b in chunk]
            assert sorted(np.concatenate(batches).tolist()) == list(range(size))
            assert max(map(len, batches)) - min(map(len, batches)) <= 1


def test_batches_of_neighbours_stay_and_shuffled_ones_change():
    rows = rows_of(8192)
    grid, _ = make_grid(8192, 16, 8, 1024)
    for shuffled in (False, True):
        found = epochs_of(rows, grid, shuffled, 2 * grid.chunks)
        both = found[: grid.chunks], found[grid.chunks :]
        first, second = ({tuple(sorted(b)) for c in e for b in c} for e in both)
        assert (first == second) != shuffled
        orders = [[tuple(c[0]) for c in epoch] for epoch in both]
        assert orders[0] != orders[1]


def test_a_later_chunk_does_not_need_the_earlier_ones():
    rows = rows_of(997)
    grid, _ = make_grid(997, 10, 7, 150)
    whole = epochs_of(rows, grid, True, 12)
    later = epochs_of(rows, grid, True, 5, first=7)
    for a, b in zip(whole[7:], later, strict=True):
        assert all((x == y).all() for x, y in zip(a, b, strict=True))


def test_the_first_chunk_is_that_of_the_first_rows():
    rows = rows_of(997)
    grid, _ = make_grid(997, 10, 7, 150)
    found = np.concatenate(batches_of(first_chunk(rows, grid), grid.batches))
    assert (np.sort(found) == np.arange(len(found))).all()


class Diary(ArraySource):
    """Rows that write down what is expected and read."""

    def __init__(self, array):
        super().__init__(array)
        self.seen = []

    def expect(self, start, stop):
        self.seen.append(("expect", start, stop))
        super().expect(start, stop)

    def read_into(self, start, stop, out):
        self.seen.append(("read", start, stop))
        return super().read_into(start, stop, out)


def test_the_disk_is_told_of_a_chunk_before_the_one_before_it_is_read(tmp_path):
    np.save(tmp_path / "x.npy", np.arange(1000, dtype=np.float32))
    array = np.load(tmp_path / "x.npy", mmap_mode="r")
    source = Diary(array)
    rows = Rows((StreamedArray("x", source, ALL, array),), False)
    grid, _ = make_grid(1000, 10, 5, 200)
    chunks = Chunks(rows, grid, False, np.array([1, 2], np.uint32))
    found = np.concatenate([np.array(chunks.next().main[0]).ravel() for _ in range(3)])
    chunks.close()
    expected, read = (
        [each[1:] for each in source.seen if each[0] == what] for what in ("expect", "read")
    )
    assert expected[: len(read)] == read and len(read) >= 3 * grid.blocks
    ranges = np.concatenate([np.arange(*each) for each in read])
    assert (ranges[: len(found)] == found).all()
    for place in range(2):
        begins = source.seen.index(("read", *read[place * grid.blocks]))
        following = read[(place + 1) * grid.blocks : (place + 2) * grid.blocks]
        assert all(("expect", *block) in source.seen[:begins] for block in following)


def test_an_error_is_raised_where_its_value_would_be():
    def values():
        yield 1
        raise OSError("gone")

    ahead = ReadAhead(values, depth=1)
    assert next(ahead) == 1
    for _ in range(2):
        with pytest.raises(OSError, match="gone"):
            next(ahead)


def test_a_row_that_is_not_finite_any_more_is_named():
    rows = rows_of(997)
    grid, _ = make_grid(997, 10, 7, 150)
    epochs_of(rows, grid, True, grid.chunks)
    rows.leaves[1].origin[[600, 610], 1] = np.nan, np.inf
    with pytest.raises(SourceError, match=r"`X` has NaN or infinity in row 6[01]0 .*has changed"):
        epochs_of(rows, grid, True, grid.chunks)


def test_python_waits_at_its_end_for_threads_that_still_read():
    """A thread in a library's code would abort the process: the end of its work is seen."""
    program = (
        "import time\n"
        "from sgworld_mcmc.streaming.read_ahead import ReadAhead\n"
        "def values():\n"
        "    yield 1\n"
        "    time.sleep(0.5)\n"
        "    print('read to the end', flush=True)\n"
        "    yield 2\n"
        "ahead = ReadAhead(values, depth=1)\n"
        "next(ahead)\n"
    )
    made = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert made.returncode == 0 and made.stdout == "read to the end\n"
