"""What large networks cost, measured on small ones."""

import numpy as np
import pytest

from sgworld_benchmarks.networks import large
from sgworld_benchmarks.networks.large import Size, StepTimes, dimension_of
from sgworld_benchmarks.networks.sizes_plot import plot_sizes


def test_the_network_has_the_dimension_that_is_told():
    assert dimension_of(128) == 784 * 128 + 128 + 128 * 10 + 10 == 101_770
    x, y = large.synthetic_digits(50)
    assert x.shape == (50, 784) and x.dtype == np.float32 and set(y) <= set(range(10))


def test_the_ratio_of_steps_is_that_of_the_rounds():
    times = StepTimes(np.array([2.0, 3.0, 8.0]), np.array([1.0, 2.0, 2.0]))
    assert times.ratio == 2.0 and "ratio 2.00" in str(times)


def test_the_picture_of_sizes_is_made(tmp_path):
    sizes = [Size(10**k, 1.0, 10.0**k * 1e-8, 10**k, 10**k, True) for k in (3, 4)]
    plot_sizes(sizes, tmp_path / "sizes.png")
    assert (tmp_path / "sizes.png").stat().st_size > 10_000
    assert "10.00 ns" in str(sizes[0]) or "10.0 ns" in str(sizes[0])


@pytest.mark.slow
def test_small_networks_are_measured(monkeypatch):
    monkeypatch.setattr(large, "ROUNDS", 2)
    times = large.step_times(width=2, batch_size=50, size=200)
    assert times.kinetic.shape == (2,) and np.all(times.kinetic > 0)
    set_up = large.measure_set_up(size=300, width=2, chains=2)
    assert (
        set_up.compilation > 0
        and set_up.epochs["burn-in"] > 0
        and "before the first" in str(set_up)
    )
