"""All sources give the same rows, and errors name the argument and the cure."""

import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest

import sgworld_mcmc.streaming.arguments as arguments
from sgworld_mcmc import ParquetSource
from sgworld_mcmc.streaming.arguments import is_streamed, open_arguments, stream_rest
from sgworld_mcmc.streaming.rows import Rows
from sgworld_mcmc.streaming.source import SourceError

SIZE = 2003


def model(X, y):
    beta = numpyro.sample("beta", dist.Normal(0, 10).expand([2]).to_event(1))
    with numpyro.plate("data", len(y)):
        numpyro.sample("y", dist.Normal(X @ beta, 1.0), obs=y)


@pytest.fixture
def data():
    generator = np.random.default_rng(0)
    return generator.standard_normal((SIZE, 2)).astype(np.float32), generator.standard_normal(SIZE)


def memmap(folder, X, y):
    np.save(folder / "X.npy", X)
    np.save(folder / "y.npy", y)
    return tuple(np.load(folder / name, mmap_mode="r") for name in ("X.npy", "y.npy"))


def hdf5(folder, X, y):
    file = pytest.importorskip("h5py").File(folder / "a.h5", "w")
    file["X"], file["y"] = X, y
    return file["X"], file["y"]


def zarr_arrays(folder, X, y):
    group = pytest.importorskip("zarr").open_group(str(folder / "a.zarr"), mode="w")
    return group.create_array("X", data=X, chunks=(300, 2)), group.create_array("y", data=y)


def parquet(folder, X, y, **arguments):
    pa = pytest.importorskip("pyarrow")
    import pyarrow.parquet as pq

    table = pa.table({"a": X[:, 0], "b": X[:, 1], "y": y})
    pq.write_table(table, folder / "a.parquet", row_group_size=300)
    return (ParquetSource(folder / "a.parquet", X=["a", "b"], y="y"),)


def parquet_of_lists(folder, X, y):
    pa = pytest.importorskip("pyarrow")
    import pyarrow.parquet as pq

    lists = pa.FixedSizeListArray.from_arrays(pa.array(X.ravel()), 2)
    for number, some in enumerate((slice(0, 1000), slice(1000, None))):
        pq.write_table(pa.table({"X": lists[some], "y": y[some]}), folder / f"{number}.parquet")
    return (ParquetSource([folder / "0.parquet", folder / "1.parquet"]),)


def grain(folder, X, y):
    sources = pytest.importorskip("grain").sources

    class Items(sources.RandomAccessDataSource):
        def __len__(self):
            return len(y)

        def __getitem__(self, index):
            return {"X": X[index], "y": y[index], "id": str(index) and index}

    return (Items(),)


KINDS = [memmap, hdf5, zarr_arrays, parquet, parquet_of_lists, grain]


def opened(args, stream):
    return stream_rest(model, *open_arguments(model, args, {}, stream), stream)


def leaves_of(args, kwargs):
    return tuple({**dict(zip(("X", "y"), args, strict=False)), **kwargs}[n] for n in ("X", "y"))


@pytest.mark.parametrize("kind", KINDS)
def test_all_sources_give_the_same_rows(kind, data, tmp_path):
    given = kind(tmp_path, *data)
    args, kwargs = opened(given, True)
    assert is_streamed(args, kwargs)
    rows = Rows(leaves_of(args, kwargs), True)
    for start, stop in ((0, 1), (299, 901), (990, 1010), (SIZE - 3, SIZE)):
        memory = rows.empty(700)
        rows.read(start, stop, memory)
        for made, true in zip(memory, data, strict=True):
            assert (made[: stop - start] == true[start:stop]).all()
    again = opened(given, True)
    assert leaves_of(*again) == leaves_of(args, kwargs)
    # What fits in memory is read.
    args, kwargs = opened(kind(_other(tmp_path), *data), "auto")
    assert not is_streamed(args, kwargs)
    for made, true in zip(leaves_of(args, kwargs), data, strict=True):
        assert isinstance(made, np.ndarray) and (made == true).all()


def _other(folder):
    folder = folder / "other"
    folder.mkdir()
    return folder


def test_what_does_not_fit_is_streamed_with_all_that_belongs_to_it(data, tmp_path, monkeypatch):
    X, y = memmap(tmp_path, *data)
    monkeypatch.setattr(arguments, "fits", lambda nbytes: False)
    args, _ = opened((X, np.array(y)), "auto")
    assert is_streamed(args[:1], {}) and is_streamed(args[1:], {})
    assert not is_streamed(*opened((X, y), False))
    # The same objects are known again.
    again = opened((X, y), "auto")[0]
    assert again[0] == args[0] and hash(again[0]) == hash(args[0])


def test_part_of_a_memory_map_is_read_from_its_place(data, tmp_path):
    X, y = memmap(tmp_path, *data)
    args, _ = opened((X[100:900], y[100:900]), True)
    rows = Rows(args, True)
    memory = rows.empty(10)
    rows.read(5, 15, memory)
    assert (memory[0] == data[0][105:115]).all() and (memory[1] == data[1][105:115]).all()
    args, _ = opened((X[::2], y[::2]), True)
    rows = Rows(args, True)
    rows.read(5, 15, memory)
    assert (memory[0] == data[0][10:30:2]).all()


def test_errors_before_the_run(data, tmp_path):
    X, y = memmap(tmp_path, *data)
    with pytest.raises(ValueError, match=r"different numbers of rows: \{'X': 2003, 'y': 2000\}"):
        opened((X, y[:2000]), True)
    (items,) = grain(tmp_path, *data)
    with pytest.raises(TypeError, match="the only positional argument"):
        opened((items, y), True)
    with pytest.raises(ValueError, match="given twice"):
        open_arguments(model, (items,), {"y": y}, True)
    with pytest.raises(ValueError, match=r"has no columns \['z'\]"):
        parquet(tmp_path, *data)
        ParquetSource(tmp_path / "a.parquet", y="z")


def test_a_missing_value_is_named_by_its_row(tmp_path):
    pa = pytest.importorskip("pyarrow")
    import pyarrow.parquet as pq

    missing = np.isin(np.arange(SIZE), (777, 800))
    column = pa.array(np.arange(SIZE, dtype=float), mask=missing)
    pq.write_table(pa.table({"a": column}), tmp_path / "a.parquet", row_group_size=300)
    with pytest.raises(ValueError, match=r"column 'a' has no value in row 777 \(and in 1 more"):
        ParquetSource(tmp_path / "a.parquet", y="a").read(760, 770)


def test_arrays_of_open_files_are_known_again(data, tmp_path):
    X, _ = hdf5(tmp_path, *data)
    first, second = (opened((X.file["X"], X.file[name]), True)[0] for name in ("y", "X"))
    assert first[0] == second[0] and first[1] != second[1]


def test_a_closed_file_is_named(data, tmp_path):
    X, y = hdf5(tmp_path, *data)
    args, _ = opened((X, y), True)
    rows = Rows(args, False)
    X.file.close()
    with pytest.raises(SourceError, match=r"rows 0 to 4 of `X`.*HDF5 file is closed"):
        rows.read(0, 5, rows.empty(5))
    with pytest.raises(ValueError, match="its file is closed"):
        opened((X, y), True)


def test_a_file_that_was_cut_short_is_named(data, tmp_path):
    X, y = memmap(tmp_path, *data)
    rows = Rows(opened((X, y), True)[0], False)
    with open(tmp_path / "X.npy", "r+b") as file:
        file.truncate(4000)
    with pytest.raises(SourceError, match=r"rows 1990 to 1999 of `X`.*the file ends before row"):
        rows.read(1990, 2000, rows.empty(10))


@pytest.mark.parametrize("kind", KINDS)
def test_a_row_that_is_not_finite_is_named(kind, data, tmp_path):
    """Only the later part of the source is bad."""
    X, y = data
    X = X.copy()
    X[1234:1237, 1] = np.nan
    rows = Rows(leaves_of(*opened(kind(tmp_path, X, y), True)), False)
    memory = rows.empty(1000)
    rows.read(0, 1000, memory)
    rows.check_finite(0, memory)
    rows.read(1000, 2000, memory)
    with pytest.raises(ValueError, match=r"`X` has NaN or infinity in row 1234 \(and in 2 more"):
        rows.check_finite(1000, memory)
    with pytest.raises(SourceError, match=r"row 1234 .* its source has changed since\. Restore it"):
        rows.check_finite(1000, memory, again=True)


def test_a_mapped_file_that_was_cut_short_is_named(tmp_path, data):
    mapped = memmap(tmp_path, *data)
    with open(tmp_path / "X.npy", "r+b") as file:
        file.truncate(4096)
    with pytest.raises(ValueError, match=r"X\.npy' of a memory map has 4096 bytes, .* cut short"):
        open_arguments(model, mapped, {}, True)


def test_a_file_that_is_closed_before_the_run_is_named(tmp_path, data):
    given = hdf5(tmp_path, *data)
    given[0].file.close()
    with pytest.raises((ValueError, TypeError), match=r"its file is closed"):
        open_arguments(model, given, {}, True)
