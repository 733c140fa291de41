"""``sgworld-mcmc shuffle`` brings aligned files into one random order."""

import numpy as np
import pytest

from sgworld_mcmc.cli import main
from sgworld_mcmc.streaming.shuffle import shuffle_files

SIZE = 5003


@pytest.fixture
def arrays():
    y = np.arange(SIZE)
    return np.stack([y, 2 * y], axis=1).astype(np.float32), y


def test_all_formats_get_the_same_order(tmp_path, arrays):
    h5py, zarr = pytest.importorskip("h5py"), pytest.importorskip("zarr")
    X, y = arrays
    np.save(tmp_path / "X.npy", X)
    np.save(tmp_path / "y.npy", y)
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file.create_dataset("g/X", data=X, chunks=(1000, 2), compression="gzip")
        file["y"], file["small"] = y, np.eye(2)
        file.attrs["unit"] = "m"
    group = zarr.open_group(str(tmp_path / "b.zarr"), mode="w")
    group.create_array("X", data=X, chunks=(500, 2))
    group.attrs["unit"] = "s"
    names, out = ("X.npy", "y.npy", "a.h5", "b.zarr"), tmp_path / "out"
    assert main(["shuffle", *(str(tmp_path / name) for name in names), "--out", str(out)]) == 0
    order = np.load(out / "y.npy")
    assert (np.sort(order) == y).all()
    assert abs(np.corrcoef(order, y)[0, 1]) < 5 / np.sqrt(SIZE)
    assert (np.load(out / "X.npy") == X[order]).all()
    with h5py.File(out / "a.h5") as file:
        assert (file["y"][:] == order).all() and (file["g/X"][:] == X[order]).all()
        assert (file["small"][:] == np.eye(2)).all() and file.attrs["unit"] == "m"
        assert file["g/X"].compression == "gzip"
    group = zarr.open(str(out / "b.zarr"), mode="r")
    assert (group["X"][:] == X[order]).all() and group.attrs["unit"] == "s"
    assert sorted(x.name for x in out.iterdir()) == sorted(names)


def test_parts_smaller_than_the_memory(tmp_path, arrays):
    X, y = arrays
    np.save(tmp_path / "X.npy", X)
    np.save(tmp_path / "y.npy", y)
    told = []
    shuffle_files(
        [tmp_path / "X.npy", tmp_path / "y.npy"],
        tmp_path / "out",
        3,
        lambda name, done: told.append((name, done)),
        part_bytes=3000,
    )
    order = np.load(tmp_path / "out" / "y.npy")
    assert (np.sort(order) == y).all() and (np.load(tmp_path / "out" / "X.npy") == X[order]).all()
    # Where a row comes from says nothing about where it goes: quarters are mixed evenly.
    counts = np.histogram2d(order, y, bins=4)[0]
    expected = SIZE / 16
    assert ((counts - expected) ** 2 / expected).sum() < 30  # chi^2 with 9 degrees: 1e-3 at 28
    assert {name for name, _ in told} == {"dealing rows", "shuffling parts"}
    assert told[-1][1] == 1


def test_errors_name_file_and_cure(tmp_path, arrays):
    X, y = arrays
    np.save(tmp_path / "X.npy", X)
    np.save(tmp_path / "y.npy", y[:-1])
    with pytest.raises(ValueError, match=r"y\.npy has 5002 rows, and another file 5003"):
        shuffle_files([tmp_path / "X.npy", tmp_path / "y.npy"], tmp_path / "out")
    with pytest.raises(FileNotFoundError, match="There is no file"):
        shuffle_files([tmp_path / "Z.npy"], tmp_path / "out")
    (tmp_path / "a.csv").write_text("1")
    with pytest.raises(ValueError, match=r"none of \.npy"):
        shuffle_files([tmp_path / "a.csv"], tmp_path / "out")
    with pytest.raises(ValueError, match="exists: name another folder"):
        shuffle_files([tmp_path / "X.npy"], tmp_path)
