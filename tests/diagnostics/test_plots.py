"""Pictures: the curves are the right densities, the panels are tidy, and nothing leaks."""

import arviz as az
import jax
import jax.numpy as jnp
import matplotlib
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from numpyro.infer import HMC, MCMC
from scipy import stats

from sgworld_mcmc.diagnostics import (
    as_chains,
    flatten_scalars,
    plot_density,
    plot_trace,
    select_scalars,
)
from sgworld_mcmc.diagnostics.density import density_on_grid, plot_range

pytestmark = pytest.mark.slow


class StandardNormal:
    """An exact posterior with independent standard normal coordinates."""

    def __init__(self, names):
        self.names = names

    def marginal_pdf(self, name, x):
        assert name in self.names
        return stats.norm.pdf(x)


@pytest.fixture(scope="module")
def mcmc():
    def model(y):
        mu = numpyro.sample("mu", dist.Normal(0, 5).expand([2]).to_event(1))
        sigma = numpyro.sample("sigma", dist.HalfNormal(2.0))
        numpyro.sample("y", dist.Normal(mu, sigma), obs=y)

    y = 0.8 * jax.random.normal(jax.random.key(3), (60, 2)) + jnp.array([1.0, -1.0])
    run = MCMC(
        HMC(model),
        num_warmup=200,
        num_samples=200,
        num_chains=2,
        chain_method="sequential",
        progress_bar=False,
    )
    run.run(jax.random.key(0), y)
    return run


def normal_draws(sites, chains=4, draws=500, seed=0):
    rng = np.random.default_rng(seed)
    return {name: rng.normal(size=(chains, draws, *shape)) for name, shape in sites.items()}


def lines(axis):
    """Sampler curves of a panel (the outline of the truth is grey)."""
    return [line for line in axis.lines if line.get_color() != "#7F7F7F"]


def test_scalars_have_the_values_of_their_sites():
    samples = normal_draws({"beta": (3,), "Sigma": (2, 2), "mu": ()})
    scalars = flatten_scalars(samples)
    assert list(scalars) == [
        *("beta[0]", "beta[1]", "beta[2]"),
        *("Sigma[0,0]", "Sigma[0,1]", "Sigma[1,0]", "Sigma[1,1]", "mu"),
    ]
    np.testing.assert_array_equal(scalars["Sigma[0,1]"], samples["Sigma"][:, :, 0, 1])
    np.testing.assert_array_equal(scalars["mu"], samples["mu"])
    assert list(flatten_scalars({"beta": np.arange(2.0)}, chain_axes=0)) == ["beta[0]", "beta[1]"]
    assert list(select_scalars(scalars, ["mu", "beta"])) == ["mu", "beta[0]", "beta[1]", "beta[2]"]
    with pytest.raises(ValueError, match=r"'gamma'.*beta\[0\]"):
        select_scalars(scalars, ["gamma"])
    with pytest.raises(ValueError, match="chain_axes"):
        flatten_scalars({"mu": np.zeros(5)})


def test_draws_of_every_kind_are_the_same(mcmc):
    expected = {k: np.asarray(v) for k, v in mcmc.get_samples(group_by_chain=True).items()}
    for form in (mcmc, expected, az.from_numpyro(mcmc, log_likelihood=False)):
        actual = as_chains(form)
        assert set(actual) == set(expected)
        for name, value in expected.items():
            np.testing.assert_array_equal(actual[name], value)
    flat = as_chains(mcmc.get_samples())  # ungrouped: sigma has one axis only
    assert flat["mu"].shape == (1, 400, 2)
    np.testing.assert_array_equal(flat["mu"].reshape(2, 200, 2), expected["mu"])


def test_ambiguous_draws_are_not_guessed():
    vector = {"beta": np.zeros((400, 3))}
    with pytest.raises(ValueError, match="400 chains of 3 draws"):
        as_chains(vector)
    assert as_chains(vector, chain_axes=1)["beta"].shape == (1, 400, 3)
    assert as_chains(vector, chain_axes=2)["beta"].shape == (400, 3)
    with pytest.raises(TypeError, match="list"):
        as_chains([1.0])


@pytest.mark.parametrize("law", [stats.norm(3, 2), stats.expon(), stats.uniform(), stats.gamma(2)])
def test_density_matches_the_law_up_to_its_bounds(law):
    n = 200_000
    draws = law.rvs(n, random_state=1)
    low, high = law.support()
    grid = np.linspace(*law.ppf([0, 1] if np.isfinite(high) else [0.001, 0.99]), 200)
    density = density_on_grid(draws, grid, low, high)
    width = 1.06 * draws.std() * n**-0.2
    # Monte Carlo error of a Gaussian kernel estimate (doubled by the reflection at a bound), and
    # smoothing over one width, where the law bends or stops most.
    noise = 5 * np.sqrt(2 * law.pdf(grid) / (2 * np.sqrt(np.pi) * n * width))
    slope = np.abs(np.gradient(law.pdf(grid), grid)).max()
    assert np.all(np.abs(density - law.pdf(grid)) < noise + slope * width + 1e-4)
    assert density[0] > 0.9 * law.pdf(grid[0])  # half of it without the reflection


def test_density_counts_draws_outside_of_the_grid():
    draws = np.random.default_rng(0).normal(size=100_000)
    grid = np.linspace(0, 1, 400)
    area = np.trapezoid(density_on_grid(draws, grid), grid)
    assert abs(area - (stats.norm.cdf(1) - 0.5)) < 4 * np.sqrt(0.25 / draws.size) + 2e-3


@pytest.mark.parametrize(("count", "shape"), [(1, (1, 1)), (3, (1, 3)), (11, (3, 4)), (40, (8, 5))])
def test_any_number_of_panels(count, shape):
    samples = {"beta": normal_draws({"beta": (count,)}, draws=100)["beta"]}
    figure = plot_density(samples, StandardNormal([f"beta[{i}]" for i in range(count)]))
    assert [axis.get_title(loc="left") for axis in figure.axes] == [
        f"beta[{i}]" for i in range(count)
    ]
    assert figure.axes[0].get_gridspec().get_geometry() == shape


def test_curves_are_the_densities_of_each_sampler_over_the_exact_one():
    good, wide = normal_draws({"mu": ()}, seed=1), normal_draws({"mu": ()}, seed=2)
    wide["mu"] *= 1.5
    figure = plot_density({"good": good, "wide": wide}, StandardNormal(["mu"]))
    (axis,) = figure.axes
    for line, samples in zip(lines(axis), (good, wide), strict=True):
        grid, density = line.get_data()
        np.testing.assert_allclose(density, density_on_grid(samples["mu"], grid))
    outline = next(line for line in axis.lines if line.get_color() == "#7F7F7F")
    np.testing.assert_allclose(outline.get_ydata(), stats.norm.pdf(outline.get_xdata()))
    top = [line.get_ydata().max() for line in lines(axis)]
    # the peak of a kernel estimate from 2000 draws: standard error 4 %, smoothing 2.5 %
    np.testing.assert_allclose(top, stats.norm.pdf(0) / np.array([1, 1.5]), rtol=0.15)
    labels = [text.get_text() for text in figure.legends[0].get_texts()]
    assert labels == ["exact", "good", "wide"]


def test_reference_draws_take_the_place_of_the_exact_density(mcmc):
    figure = plot_density({"again": mcmc.get_samples()}, mcmc, exact_label="NUTS")
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["NUTS", "again"]
    for axis in figure.axes:
        outline, curve = axis.lines
        np.testing.assert_allclose(outline.get_ydata(), curve.get_ydata(), rtol=1e-6)
    with pytest.raises(ValueError, match="`exact` has the parameters"):
        plot_density(mcmc, StandardNormal(["theta"]))


def test_positive_parameters_start_at_zero_and_bounds_can_be_given():
    draws = np.random.default_rng(5).exponential(size=(2, 4000))
    (axis,) = plot_density({"tau": draws}).axes
    grid, density = lines(axis)[0].get_data()
    assert grid[0] == 0 and density[0] > 0.8
    (axis,) = plot_density({"tau": draws}, bounds={"tau": (None, None)}).axes
    grid, density = lines(axis)[0].get_data()
    assert grid[0] < 0 and np.interp(0, grid, density) < 0.65


def test_a_diverged_sampler_does_not_spoil_the_picture():
    good, bad = normal_draws({"mu": ()}), normal_draws({"mu": ()}, seed=1)
    bad["mu"] = 1e6 * bad["mu"]
    bad["mu"][0, :7] = np.nan
    with pytest.warns(UserWarning, match=r"7 of 2000 draws of 'mu' in 'bad' are not finite"):
        figure = plot_density({"good": good, "bad": bad}, StandardNormal(["mu"]))
    left, right = figure.axes[0].get_xlim()
    assert -15 < left < -2.5 and 2.5 < right < 15
    with pytest.raises(ValueError, match="no draw of 'mu' in 'bad' is finite"):
        plot_density({"bad": {"mu": np.full((2, 10), np.inf)}})
    constant = plot_density({"mu": np.ones((2, 10))})
    assert np.all(np.asarray(lines(constant.axes[0])[0].get_xdata()) == 1)


def test_range_covers_an_exact_density_much_wider_than_the_draws():
    draws = 0.02 * np.random.default_rng(0).normal(size=1000) + 1.0
    left, right = plot_range([draws], pdf=stats.norm.pdf)
    assert left < -2.5 and right > 2.5


def test_tick_labels_do_not_collide():
    scales = 10.0 ** (np.arange(11) - 5)
    samples = {"p": normal_draws({"p": (11,)}, draws=100)["p"] * scales + 50 * scales}
    figure = plot_density(samples)
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    boxes = [
        label.get_window_extent()
        for axis in figure.axes
        for label in [*axis.get_xticklabels(), axis.title, axis._left_title]
        if label.get_text()
    ]
    assert len(boxes) >= 3 * 11
    for i, box in enumerate(boxes):
        assert not any(box.overlaps(other) for other in boxes[i + 1 :])
        assert box.x0 >= 0 and box.x1 <= figure.bbox.x1


@pytest.mark.parametrize("suffix", [".png", ".pdf"])
def test_files_are_written_without_pyplot(mcmc, tmp_path, suffix):
    plot_density(mcmc, path=tmp_path / "new" / f"density{suffix}")
    plot_trace(mcmc, path=str(tmp_path / f"trace{suffix}"))
    magic = {".png": b"\x89PNG", ".pdf": b"%PDF"}[suffix]
    for path in (tmp_path / "new" / f"density{suffix}", tmp_path / f"trace{suffix}"):
        assert path.read_bytes().startswith(magic)
    assert matplotlib.pyplot.get_fignums() == []


def test_trace_shows_every_draw_and_flat_ranks(mcmc):
    figure = plot_trace(mcmc)
    assert len(figure.axes) == 6
    scalars = flatten_scalars(as_chains(mcmc))
    for name, trace, beside in zip(scalars, figure.axes[::2], figure.axes[1::2], strict=True):
        assert trace.get_title(loc="left") == name
        for line, values in zip(trace.lines, scalars[name], strict=True):
            np.testing.assert_array_equal(line.get_ydata(), values)
        heights = np.array([patch.get_data().values for patch in beside.patches[-2:]])
        np.testing.assert_allclose(heights.mean(axis=1), 1)  # relative to flat
        np.testing.assert_allclose(heights.mean(axis=0), 1, atol=0.05)  # and so are all ranks


def test_ranks_show_a_chain_that_is_elsewhere():
    samples = normal_draws({"mu": ()})
    samples["mu"][2] += 2
    _, beside = plot_trace(samples).axes
    heights = np.array([patch.get_data().values for patch in beside.patches[-4:]])
    assert heights[2, -1] > 2.5 and heights[2, 0] < 0.2
    assert heights[[0, 1, 3], -1].max() < 0.6


def test_long_traces_keep_their_excursions():
    samples = normal_draws({"mu": ()}, chains=1, draws=50_001)
    samples["mu"][0, 12_345], samples["mu"][0, -1] = 30, -30
    trace, beside = plot_trace(samples).axes
    line = trace.lines[0].get_ydata()
    assert len(line) == 2000 and line.max() == 30 and line.min() == -30
    assert beside.get_title(loc="left") == "density"  # ranks of a single chain say nothing
    with pytest.raises(ValueError, match="side"):
        plot_trace(samples, side="histogram")


def test_a_chain_that_stands_still_can_be_drawn():
    samples = normal_draws({"mu": ()}, chains=2, draws=50)
    samples["mu"][1] = 0.3
    assert len(plot_trace(samples).axes) == 2
    assert len(plot_trace(samples, side="density").axes) == 2
