"""The nonequilibrium examples run at tiny sizes, and their parts do what they say."""

import gzip
import runpy
import struct
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

pytestmark = pytest.mark.slow

EXAMPLES = Path(__file__).parents[2] / "examples"


def load(name):
    return runpy.run_path(str(EXAMPLES / f"{name}.py"))


def test_regression_network(tmp_path, capsys):
    example = load("nonequilibrium_regression")
    sizes = ("--chains=64", "--chains-without=4", "--relaxation-times=0.01", "--orders=32")
    replaced, shuffled = example["main"]([*sizes, f"--out={tmp_path}"])
    (theory, found, detailed), (cold, cold_found, _) = replaced, shuffled
    # The figures of the issue that do not need a long run.
    plain = theory.center
    assert np.linalg.norm(cold.center - plain) / np.linalg.norm(plain) == pytest.approx(
        4e-5, rel=0.1
    )
    assert np.trace(cold.covariance) < 1e-3 * np.trace(theory.covariance)
    # 115 000 steps from the predicted Gaussian: stiff directions are measured well by then.
    produced = found.sigma.mean(axis=1)
    error = produced.std(ddof=1) / np.sqrt(len(produced))
    assert abs(produced.mean() - theory.rate) < 4.5 * error
    assert abs(detailed.slope - 1) < 4.5 * detailed.slope_error
    assert cold_found.covariance.shape == (7, 7)
    assert "standard errors" in capsys.readouterr().out
    assert (tmp_path / "nonequilibrium_regression.png").stat().st_size > 10_000


def test_batches_of_the_regression_network():
    example = load("nonequilibrium_regression")
    rng = np.random.default_rng(0)
    rows = np.sort(example["shuffled_batches"](rng, 40, 3).reshape(2, 200, 3), axis=1)
    np.testing.assert_array_equal(rows, np.broadcast_to(np.arange(200)[:, None], rows.shape))
    rows = example["fresh_batches"](rng, 2000, 5)
    assert rows.shape == (2000, 10, 5)
    ordered = np.sort(rows, axis=1).astype(int)
    assert (np.diff(ordered, axis=1) > 0).all()  # distinct within a batch
    counts = np.bincount(rows.ravel(), minlength=200)
    expected, sd = 2000 * 5 * 10 / 200, np.sqrt(2000 * 5 * 0.05 * 0.95)
    assert np.abs(counts - expected).max() < 5 * sd
    # Pairs as well: Floyd's algorithm draws each subset with the same probability.
    pairs = sum(((rows == i).any(1) & (rows == i + 1).any(1)).sum() for i in range(0, 200, 2))
    expected = 100 * 10_000 * 90 / (200 * 199)
    assert abs(pairs - expected) < 5 * np.sqrt(expected)


def test_chains_of_the_regression_network_descend_the_loss():
    """The steps of all chains at once are those of each chain on the loss of its batch."""
    example = load("nonequilibrium_regression")
    data = example["make_data"](0)
    rng = np.random.default_rng(1)
    start = example["START"][:, None] + 0.1 * rng.standard_normal((7, 2))
    rows = example["fresh_batches"](rng, 4, 2)
    with jax.enable_x64(True):
        end, path = example["_run"](start, rows, data, 2)
        losses = jax.vmap(example["example_loss"], (None, 0))
        for chain in range(2):
            weights = jnp.asarray(start[:, chain])
            for batch in rows[:, :, chain]:
                examples = {k: v[batch] for k, v in data.items()}
                gradient = jax.grad(lambda w, e: jnp.mean(losses(w, e)))(weights, examples)
                weights = weights - 1e-7 * gradient
            np.testing.assert_allclose(end[:, chain], weights, rtol=1e-12)
    assert path.shape == (2, 7, 2)
    np.testing.assert_array_equal(path[-1], end)


def test_limiting_dynamics(tmp_path):
    example = load("limiting_dynamics")
    worst, p_values, curves = example["main"](
        ["--chains=1000", "--steps=120", "--modes=60", f"--out={tmp_path}"]
    )
    # Norm of a 6 x 6 covariance from 1000 chains: sqrt(7 / 1000) = 8 %, and the largest of 24.
    assert worst[0] < 0.25 and worst[1] < 0.15
    commuting, other = p_values
    assert commuting[0] > 1e-4 > other[0]  # of positions: only the second is irreversible
    assert curves[2.0][2] == pytest.approx(0.5, abs=0.1)
    assert (tmp_path / "limiting_dynamics.png").stat().st_size > 10_000


def test_limiting_dynamics_network(tmp_path):
    example = load("limiting_dynamics_network")
    sizes = ("--settle=8", "--epochs=16", "--seeds=1", "--values=2", "--sweeps", "momentum")
    results = example["main"]([*sizes, f"--out={tmp_path}"])
    slow, fast = results["momentum"].values()
    assert slow.accuracy[1] > 0.9  # ten classes
    assert fast.displacement[0] > slow.displacement[0]
    assert np.all(np.diff(slow.displacement) > 0)
    # A straight line has the exponent 2.
    line = np.arange(20.0)[:, None] * np.ones(3)
    found = example["mean_squared_displacement"](line, np.array([1, 2, 4]))
    np.testing.assert_allclose(found, [3, 12, 48])


def write_idx(path, array, code):
    header = struct.pack(">BBBB", 0, 0, code, array.ndim) + struct.pack(
        f">{array.ndim}I", *array.shape
    )
    raw = header + array.tobytes()
    path.write_bytes(gzip.compress(raw) if path.suffix == ".gz" else raw)


def write_mnist(folder, count=300, ending=".gz"):
    """Images of one bright row each, whose place is the label."""
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 10, count).astype(np.uint8)
    images = rng.integers(0, 60, (count, 10, 4)).astype(np.uint8)
    images[np.arange(count), labels] = 255
    write_idx(folder / f"train-images-idx3-ubyte{ending}", images, 8)
    write_idx(folder / "train-labels-idx1-ubyte", labels, 8)
    return images, labels


def test_digits_from_idx_files(tmp_path, capsys):
    write_mnist(tmp_path)
    example = load("nonequilibrium_digits")
    sizes = "--examples=200 --hidden=3 --chains=6 --steps=400 --epochs=100 --components=2"
    folders = (f"--data={tmp_path}", f"--out={tmp_path / 'out'}")
    results = example["main"]([*sizes.split(), "--decay=0.1", *folders])
    assert "200 images of 40 pixels" in capsys.readouterr().out
    for result in results.values():
        # Circulation measured on one half: what the theorem says of the other half holds roughly.
        assert abs(result.integral[0].estimate - 1) < 0.1
        np.testing.assert_allclose(result.circulation, -result.circulation.T, atol=1e-12)
    sd = [np.sqrt(np.trace(r.covariance)) for r in results.values()]
    assert sd[1] < 0.5 * sd[0]  # without replacement the weights stay much nearer
    assert (tmp_path / "out" / "nonequilibrium_digits.png").stat().st_size > 10_000


@pytest.mark.parametrize("ending", ["", ".gz"])
def test_idx_reader(tmp_path, ending):
    example = load("nonequilibrium_digits")
    images, labels = write_mnist(tmp_path, 5, ending)
    found, found_labels = example["load_mnist"](tmp_path)
    np.testing.assert_allclose(found, images.reshape(5, 40) / 255, rtol=1e-6)
    np.testing.assert_array_equal(found_labels, labels)
    # Other types are big-endian in the file.
    for code, dtype in ((11, ">i2"), (12, ">i4"), (13, ">f4"), (14, ">f8")):
        values = np.array([[1, -2, 300]], dtype)
        write_idx(tmp_path / f"values{ending}", values, code)
        read = example["read_idx"](tmp_path / f"values{ending}")
        np.testing.assert_array_equal(read, [[1, -2, 300]])
        assert read.dtype == np.dtype(dtype).newbyteorder("=")


def test_idx_errors_name_the_file(tmp_path):
    example = load("nonequilibrium_digits")
    read, mnist = example["read_idx"], example["load_mnist"]
    with pytest.raises(FileNotFoundError, match="is not a folder"):
        mnist(tmp_path / "nowhere")
    with pytest.raises(FileNotFoundError, match="looked for train-images-idx3-ubyte"):
        mnist(tmp_path)
    write_mnist(tmp_path, 5, "")
    images, labels = (tmp_path / f"train-{n}-ubyte" for n in ("images-idx3", "labels-idx1"))
    whole = images.read_bytes()
    for raw, match in (
        (whole[:-1], r"images-idx3-ubyte: has 215 bytes, but its header \(5, 10, 4\) asks for 216"),
        (b"GIF8" + whole, "images-idx3-ubyte: not an idx file: it begins with the bytes 47 49 46"),
        (whole[:9], "images-idx3-ubyte: ends within the header of 16 bytes"),
        (b"", "images-idx3-ubyte: not an idx file"),
        (gzip.compress(whole)[:-9], "images-idx3-ubyte: damaged gzip file"),
    ):
        images.write_bytes(raw)
        with pytest.raises(ValueError, match=match):
            read(images)
    images.write_bytes(whole)
    write_idx(labels, np.zeros(4, np.uint8), 8)
    with pytest.raises(ValueError, match=r"for the same n"):
        mnist(tmp_path)
    with pytest.raises(SystemExit) as stop:
        example["main"]([f"--data={tmp_path}"])
    assert stop.value.code == 2


def test_fluctuation_theorem(tmp_path, capsys):
    """The batches' noise, which depends on the position, is told from Gaussian noise."""
    arguments = ["--runs=80", "--steps=8000", f"--out={tmp_path}"]
    found, path = load("fluctuation_theorem")["main"](arguments)
    for length in (1, 3, 10):
        assert abs(found["gaussian", length].z_score) < 4.5
    assert found["batches", 1].z_score > 4
    assert path.stat().st_size > 10_000 and "stretches of 10" in capsys.readouterr().out
