"""The set-up without a mode: its parts on known answers, and whole runs on exact posteriors."""

import warnings
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from tolerances import SIGMAS

from sgworld_mcmc import SGLD, SGWORLD, TuningWarning
from sgworld_mcmc.integrators.ubu import UBU
from sgworld_mcmc.progress import watch
from sgworld_mcmc.settings import make_settings
from sgworld_mcmc.setup.without_mode import problem
from sgworld_mcmc.setup.without_mode.choice import choose_kinetic, predicted_temperature_error
from sgworld_mcmc.setup.without_mode.prior_scales import PriorMoments, pooled_scales
from sgworld_mcmc.setup.without_mode.spectrum import Spectrum, lanczos_runs, make_spectrum
from sgworld_mcmc.theory.affine_recursion import relative_variance_error
from sgworld_mcmc.theory.mean_temperature import temperature_error

WIDTH = 1200
ROWS = 64


def means(scale, y):
    """A Gaussian posterior with independent parameters of different curvatures."""
    mu = numpyro.sample("mu", dist.Normal(0, 1).expand([scale.shape[0]]).to_event(1))
    with numpyro.plate("rows", y.shape[0]):
        numpyro.sample("y", dist.Normal(mu, scale).to_event(1), obs=y)


def means_data():
    rng = np.random.default_rng(3)
    scale = np.geomspace(0.8, 8.0, WIDTH).astype(np.float32)
    truth = rng.normal(size=WIDTH)
    y = truth + scale * rng.normal(size=(ROWS, WIDTH))
    return scale, y.astype(np.float32)


def moments_of_means(scale, y):
    precision = 1 + len(y) / scale**2
    return (y / scale**2).sum(0) / precision, 1 / precision


def test_lanczos_quadrature_finds_curvature_and_noise():
    rng = np.random.default_rng(0)
    size, dimension = 400, 60
    axes, _ = np.linalg.qr(rng.normal(size=(dimension, dimension)))
    curvature = np.concatenate([np.ones(40), np.full(15, 30.0), np.full(5, 700.0)])
    hessian = (axes * curvature) @ axes.T
    noise = axes @ (np.sqrt(curvature)[:, None] * rng.normal(size=(dimension, size)))
    noise = (noise - noise.mean(1, keepdims=True)).T

    def target(z, rows):
        return -z @ jnp.asarray(hessian) @ z / 2 + size * jnp.mean(rows @ z)

    with jax.enable_x64(True):
        made = lanczos_runs(
            jax.random.key(0), target, jnp.zeros((2, dimension)), jnp.asarray(noise), size
        )
        found = make_spectrum(made)
    exact = size * noise.var(0).sum() * size / dimension / size  # N var of a row, summed, over D
    assert found.largest == pytest.approx(700, rel=1e-3)
    assert found.typical == pytest.approx(1, rel=0.05)
    assert found.weight.sum() == pytest.approx(1, abs=1e-6)
    mean = np.sum(found.weight * found.curvature)
    assert mean == pytest.approx(curvature.mean(), rel=0.5)  # from four random vectors
    assert found.noise.sum() == pytest.approx(exact, rel=0.5)
    assert found.noise[-1] > found.noise[0]  # rows are noisier along the stiff directions


def test_lanczos_ends_where_nothing_is_left():
    """A Hessian of two curvatures is known after two steps; the rest would be rounding."""
    size, dimension = 64, 5000
    rows = np.zeros((size, dimension), np.float32)
    rows[:, 0] = np.random.default_rng(0).normal(size=size)

    def target(z, rows):
        return -jnp.sum(z**2) / 2 - 50 * z[0] ** 2 + size * jnp.mean(rows @ z)

    made = lanczos_runs(
        jax.random.key(0), target, jnp.zeros((1, dimension)), jnp.asarray(rows), size
    )
    found = make_spectrum(made)
    assert found.largest == pytest.approx(101, rel=1e-3)
    assert found.typical == pytest.approx(1, rel=0.1)
    with pytest.raises(ValueError, match="not finite"):
        make_spectrum(made._replace(diagonal=made.diagonal * np.nan))


def test_the_temperature_error_is_the_mean_of_the_variance_errors():
    curvature, weight, noise = np.array([1.0, 50.0]), np.array([0.75, 0.25]), np.array([2.0, 9.0])
    made = temperature_error(UBU(1.0), 0.02, 10, curvature, weight, noise, law="symmetric")
    # A class of weight w has D w modes, which share D n of noise.
    each = [
        relative_variance_error(UBU(1.0), 0.02, 10, n / w, law="symmetric", curvature=c)
        for c, w, n in zip(curvature, weight, noise, strict=True)
    ]
    assert made == pytest.approx(np.sum(weight * each), rel=1e-9)
    assert temperature_error(UBU(1.0), 3.0, 10, curvature, weight, noise, law="symmetric") == np.inf


def test_scales_are_pooled_within_sites_unless_their_priors_differ():
    class Model:
        latents, shapes = ("a", "b"), {"a": (3,), "b": (2,)}

    found = PriorMoments(np.array([0.1, -0.1, 0, 5, 0]), np.array([1.0, 1.2, 0.9, 1, 40]))
    mean, scale = pooled_scales(Model, found)
    assert np.ptp(scale[:3]) == 0 and 0.9 < scale[0] < 1.2 and np.ptp(mean[:3]) == 0
    np.testing.assert_allclose(scale[3:], [1, 40])
    np.testing.assert_allclose(mean[3:], [5, 0])
    mean, scale = pooled_scales(Model, PriorMoments(np.full(5, np.nan), np.full(5, np.inf)))
    np.testing.assert_allclose(scale, 1)
    np.testing.assert_allclose(mean, 0)


SPECTRUM = Spectrum(np.array([1.0, 40.0, 600.0]), np.array([0.9, 0.08, 0.002]), np.ones(3))


def test_the_choice_is_within_the_tolerance_and_smaller_tolerances_cost_more():
    settings = make_settings(dynamics="kinetic")
    steps = []
    for tolerance in (0.1, 0.01):
        settings = make_settings(dynamics="kinetic", tolerance=tolerance)
        made = choose_kinetic(SPECTRUM, settings, 1000, 2000, factor=1.0)
        assert made.met and abs(made.error) <= tolerance
        assert made.steps_per_draw % (2 * made.num_batches) == 0  # draws after both sweeps
        predicted = predicted_temperature_error(
            SPECTRUM,
            settings,
            1000,
            batch_size=made.batch_size,
            step_size=made.step_size,
            friction=made.friction,
        )
        assert made.error == pytest.approx(predicted)
        steps.append(made.step_size * made.num_batches)
    assert steps[1] < steps[0]


def test_what_the_user_fixes_stays_fixed():
    settings = make_settings(dynamics="kinetic", friction=0.5, batch_size=125, step_size=0.01)
    made = choose_kinetic(SPECTRUM, settings, 1000, 2000, factor=1.0)
    assert (made.friction, made.batch_size, made.step_size) == (0.5, 125, 0.01)
    assert made.num_batches == 8


@pytest.mark.parametrize(
    ("given", "word"),
    [
        ({"friction": -1.0}, "friction"),
        ({"friction": "much"}, "friction"),
        ({"dynamics": "cinetic"}, "dynamics"),
        ({"dynamics": "overdamped", "friction": 1.0}, "friction"),
        ({"dynamics": "kinetic", "noise": "independent"}, "noise"),
        ({"integrator": UBU(2.0), "friction": 1.0}, "friction"),
        ({"quantities": 3}, "quantities"),
        ({"keep": ["mu"]}, "keep"),
    ],
)
def test_settings_that_make_no_sense_are_named(given, word):
    with pytest.raises((ValueError, TypeError), match=word):
        SGWORLD(means, **given)


def test_friction_alone_means_kinetic_dynamics():
    settings = SGWORLD(means, friction=3.0).sampler.settings
    assert settings.dynamics == "kinetic" and settings.integrator == UBU(3.0)
    assert settings.order.name == "symmetric"
    assert SGWORLD(means, friction=3.0, order="batches").sampler.settings.order.name == "batches"
    assert SGLD(means, dynamics="kinetic").sampler.settings.order.name == "replacement"


@pytest.fixture(scope="module")
def gaussian_run():
    mcmc = SGWORLD(means, num_samples=500)
    with warnings.catch_warnings():
        warnings.simplefilter("error", TuningWarning)
        mcmc.run(jax.random.key(0), *means_data())
    return mcmc


@pytest.mark.slow
def test_thousands_of_dimensions_have_the_moments_of_an_exact_posterior(gaussian_run):
    mean, variance = moments_of_means(*means_data())
    report = gaussian_run.bias_report()
    assert "Nothing to do" in str(report)
    # A temperature that is not known is not called right.
    vague = report._replace(temperatures=report.temperatures._replace(total_se=1.6))
    assert "known to ± 1.6 only" in str(vague) and "Nothing to do" not in str(vague)
    draws = np.asarray(gaussian_run.get_samples()["mu"], float)
    z = (draws - mean) / np.sqrt(variance)
    # The mean over the directions of the relative error of the variance is the temperature's.
    chains = z.reshape(4, -1, WIDTH)
    each = (chains**2).mean((1, 2))
    error = max(each.std(ddof=1) / 2, 0.003)
    assert abs((z**2).mean() - 1) < 0.02 + SIGMAS * error
    t = report.temperatures
    assert abs(t.total - (z**2).mean()) < SIGMAS * np.hypot(t.total_se, error)
    # Means of single parameters: their errors have the size that the effective draws say.
    ess = np.asarray(numpyro.diagnostics.effective_sample_size(chains[..., ::100]))
    scores = chains.mean((0, 1))[::100] * np.sqrt(ess)
    assert np.abs(scores).max() < SIGMAS + 1
    assert report.r_hat.max() < 1.1
    place = report.parameters.names.index("mu[100]")
    assert report.parameters.ess[place] == pytest.approx(ess[1], rel=1e-6)
    assert "give no means" not in str(report)
    assert gaussian_run.plan.kinetic is not None and gaussian_run.plan.dynamics.order.period == 2


@pytest.mark.slow
def test_the_same_key_gives_the_same_draws_and_a_plan_can_be_saved(gaussian_run, tmp_path):
    data = means_data()
    again = SGWORLD(means, num_samples=500)
    again.run(jax.random.key(0), *data)
    same = lambda a, b: np.testing.assert_array_equal(a.get_samples()["mu"], b.get_samples()["mu"])  # noqa: E731
    same(gaussian_run, again)
    path = tmp_path / "plan.npz"
    again.save_plan(path)
    loaded = SGWORLD(means, num_samples=500, plan=path)
    loaded.run(jax.random.key(0), *data)
    same(gaussian_run, loaded)
    assert loaded.plan.kinetic.choice == again.plan.kinetic.choice
    # A run goes on where it ended.
    again.post_warmup_state = again.last_state
    again.run(again.last_state.rng_key, *data)
    assert not np.array_equal(again.get_samples()["mu"], gaussian_run.get_samples()["mu"])


@pytest.mark.slow
def test_a_run_that_is_too_hot_is_warned_of_truly():
    """With replacement, small batches and a long step: the noise heats the chains."""
    data = means_data()
    mcmc = SGLD(means, dynamics="kinetic", batch_size=4, step_size=0.05, num_samples=400)
    with pytest.warns(TuningWarning, match="temperature"):
        mcmc.run(jax.random.key(0), *data)
    mean, variance = moments_of_means(*data)
    hot = (((np.asarray(mcmc.get_samples()["mu"]) - mean) ** 2) / variance).mean()
    report = mcmc.bias_report()
    t = report.temperatures
    assert hot > 1.1  # the warning is true,
    assert abs(t.total - hot) < SIGMAS * t.total_se + 0.05 * hot  # it says how hot,
    # and the theory has predicted it, up to the noise that grows with the temperature.
    assert 0.3 * (hot - 1) < report.predicted_temperature_error < 3 * (hot - 1)


@pytest.mark.slow
def test_chains_begin_at_given_points():
    scale, y = means_data()
    points = {"mu": np.linspace(-1, 1, 4)[:, None] * np.ones((4, WIDTH), np.float32)}
    mcmc = SGWORLD(means, start="given", num_warmup=0, num_samples=1)
    mcmc.run(jax.random.key(0), scale, y, init_params=points)
    first = np.asarray(mcmc.get_samples(group_by_chain=True)["mu"])[:, 0]
    # After one draw of a few steps each chain is still on the way from its own point.
    assert len({tuple(np.round(row[-5:], 6)) for row in first}) == 4


@pytest.mark.filterwarnings("ignore")
def test_with_everything_given_chains_do_not_walk_before_the_first_draw(tmp_path):
    scale, y = means_data()
    points = {"mu": np.linspace(-1, 1, 2)[:, None] * np.ones((2, WIDTH), np.float32)}
    given = dict(friction=1.0, step_size=1e-4, batch_size=8, steps_per_draw=16, start="given")
    run = dict(num_warmup=0, num_samples=2, num_chains=2, progress_bar=False)
    mcmc = SGWORLD(means, dynamics="kinetic", **run, **given)
    mcmc.run(jax.random.key(0), scale, y, init_params=points)
    draws = mcmc.get_samples(group_by_chain=True)["mu"]
    # At unit speed, 16 steps of 1e-4 in coordinates of about unit scale lead no farther.
    assert 0 < np.abs(draws[:, 0] - points["mu"]).max() < 0.02
    fit = mcmc.plan.kinetic
    assert np.isnan(fit.temperature) and fit.factor == 1
    assert (fit.choice.step_size, fit.choice.batch_size, fit.choice.friction) == (1e-4, 8, 1.0)
    assert abs(mcmc.bias_report().predicted_temperature_error) < 1e-4
    mcmc.save_plan(tmp_path / "plan.npz")
    again = SGWORLD(means, plan=tmp_path / "plan.npz", **run)
    again.run(jax.random.key(0), scale, y)
    np.testing.assert_array_equal(again.get_samples(group_by_chain=True)["mu"], draws)


def curve(x, y=None, width=20):
    w1 = numpyro.sample("w1", dist.Normal(0, 1).expand([1, width]).to_event(2))
    b1 = numpyro.sample("b1", dist.Normal(0, 1).expand([width]).to_event(1))
    w2 = numpyro.sample("w2", dist.Normal(0, 1).expand([width]).to_event(1))
    b2 = numpyro.sample("b2", dist.Normal(0, 1))
    sigma = numpyro.sample("sigma", dist.HalfNormal(1.0))
    with numpyro.plate("rows", x.shape[0]):
        numpyro.sample("y", dist.Normal(jnp.tanh(x @ w1 + b1) @ w2 + b2, sigma), obs=y)


@pytest.mark.slow
def test_a_small_network_has_no_mode_and_runs_without_one():
    rng = np.random.default_rng(0)
    x = np.concatenate([rng.uniform(-2, -0.5, 60), rng.uniform(0.7, 2, 60)])[:, None]
    y = np.sin(2 * x[:, 0]) + 0.3 * x[:, 0] + 0.1 * rng.normal(size=120)
    x, y = x.astype(np.float32), y.astype(np.float32)
    mcmc = SGWORLD(partial(curve, width=10), num_samples=300)
    mcmc.run(jax.random.key(0), x, y)
    assert mcmc.plan.kinetic is not None
    sigma = np.asarray(mcmc.get_samples()["sigma"])
    assert 0.08 < sigma.mean() < 0.13
    quantities = mcmc.quantities()
    assert quantities["log_likelihood"].shape == (4, 300, 120)
    # Hidden units change places: nobody should read one weight, and the report says so.
    report = mcmc.bias_report()
    weights = np.asarray(mcmc.get_samples(group_by_chain=True)["w2"], float)
    r_hat = numpyro.diagnostics.split_gelman_rubin(weights)
    place = [report.parameters.names.index(f"w2[{i}]") for i in range(10)]
    np.testing.assert_allclose(report.parameters.r_hat[place], r_hat, rtol=1e-6)
    assert r_hat.max() > 1.1
    assert "of them these draws give no means or intervals" in str(report)
    assert "Nothing to do:" not in str(report)


def units(x, y, number, tied):
    """Hidden units of a small network; their weights have one width, known or not."""
    width = numpyro.sample("width", dist.HalfNormal(2.0)) if tied else 1.0
    w0 = numpyro.sample("w0", dist.Normal(0, width).expand([1, number]).to_event(2))
    b0 = numpyro.sample("b0", dist.Normal(0, width).expand([number]).to_event(1))
    last = width if tied else number**-0.5
    w1 = numpyro.sample("w1", dist.Normal(0, last).expand([number]).to_event(1))
    with numpyro.plate("rows", x.shape[0]):
        numpyro.sample("y", dist.Normal(jnp.tanh(x @ w0 + b0) @ w1, 0.1), obs=y)


@pytest.mark.slow
@pytest.mark.parametrize(("number", "tied"), [(11, False), (4, True)])
def test_networks_go_without_what_looks_like_a_mode(number, tied):
    """All pilot chains leave the first one's only mode; about the second's they hardly move."""
    rng = np.random.default_rng(0)
    x = np.sort(rng.uniform(-2, 2, 200))
    y = np.sin(2.5 * x) + 0.3 * x + 0.1 * rng.normal(size=200)
    mcmc = SGWORLD(partial(units, number=number, tied=tied))
    plan = mcmc.set_up(jax.random.key(0), x[:, None].astype(np.float32), y.astype(np.float32))
    assert plan.kinetic is not None


@pytest.mark.slow
def test_a_chain_in_a_mode_of_no_mass_is_named():
    """To average over such a mode would make predictions wrong by tens of standard deviations."""
    rng = np.random.default_rng(5)
    left, right = rng.normal(size=(25, 2)), rng.normal(size=(15, 2))
    row, column = rng.integers(25, size=250), rng.integers(15, size=250)
    y = ((left[row] * right[column]).sum(1) + 0.3 * rng.normal(size=250)).astype(np.float32)

    def factors(row, column, y):
        u = numpyro.sample("u", dist.Normal(0, 1).expand([25, 2]).to_event(2))
        v = numpyro.sample("v", dist.Normal(0, 1).expand([15, 2]).to_event(2))
        with numpyro.plate("ratings", row.shape[0]):
            numpyro.sample("y", dist.Normal((u[row] * v[column]).sum(-1), 0.3), obs=y)

    mcmc = SGWORLD(factors, num_samples=500)
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        mcmc.run(jax.random.key(0), row, column, y, extra_fields=("potential_energy",))
    energy = np.asarray(mcmc.get_extra_fields(group_by_chain=True)["potential_energy"]).mean(1)
    astray = np.flatnonzero(energy - energy.min() > 100)
    assert len(astray) > 0
    name = f"The mean potential of chain {', '.join(map(str, astray))} lies"
    report = str(mcmc.bias_report())
    assert any(name in str(each.message) for each in seen)
    assert name in report and "average over the modes" not in report


def small_convolution(images, y):
    """Four filters of three times three, and three classes: 51 weights."""
    kernel = numpyro.sample("kernel", dist.Normal(0, 0.5).expand([4, 1, 3, 3]).to_event(4))
    out = numpyro.sample("out", dist.Normal(0, 0.5).expand([4, 3]).to_event(2))
    bias = numpyro.sample("bias", dist.Normal(0, 0.5).expand([3]).to_event(1))
    hidden = jax.nn.relu(jax.lax.conv(images, kernel, (1, 1), "SAME")).mean((2, 3))
    with numpyro.plate("rows", len(y)):
        numpyro.sample("y", dist.Categorical(logits=hidden @ out + bias), obs=y)


@pytest.mark.slow
def test_networks_with_convolutions_search_no_mode_whatever_their_size():
    rng = np.random.default_rng(0)
    images = rng.normal(size=(100, 1, 8, 8)).astype(np.float32)
    mcmc = SGWORLD(small_convolution, progress_bar=False)
    plan = mcmc.set_up(jax.random.key(0), images, rng.integers(0, 3, 100))
    assert plan.kinetic is not None and plan.kinetic.choice.met


@pytest.mark.slow
@pytest.mark.parametrize("epochs", [None, 3])
def test_heat_of_the_way_down_is_not_taken_for_a_step_too_large(epochs, monkeypatch):
    """A small network of many rows; after few epochs of Adam its chains have far to fall."""
    if epochs is not None:
        monkeypatch.setattr(problem, "ADAM_EPOCHS", epochs)
    rng = np.random.default_rng(0)
    x = rng.uniform(-2, 2, (20_000, 1)).astype(np.float32)
    y = (np.sin(3 * x[:, 0]) + 0.3 * rng.standard_normal(len(x))).astype(np.float32)
    plan = SGWORLD(partial(curve, width=20)).set_up(jax.random.key(0), x, y)
    choice = plan.kinetic.choice
    assert choice.met and choice.step_size > 1e-4
    assert plan.kinetic.temperature < (1.2 if epochs is None else 5)


def wide_network(x, y):
    first = numpyro.sample("first", dist.Normal(0, 0.3).expand([10, 110]).to_event(2))
    second = numpyro.sample("second", dist.Normal(0, 0.1).expand([110, 5]).to_event(2))
    with numpyro.plate("rows", len(y)):
        numpyro.sample("y", dist.Categorical(logits=jnp.tanh(x @ first) @ second), obs=y)


@pytest.mark.slow
def test_chains_of_very_many_rows_begin_where_the_posterior_is():
    """After too few steps of Adam they fell by thousands of nats, which heated them for epochs."""
    rng = np.random.default_rng(0)
    x = rng.standard_normal((600_000, 10)).astype(np.float32)
    scores = np.tanh(x @ rng.standard_normal((10, 4))) @ rng.standard_normal((4, 5))
    y = (2 * scores + rng.gumbel(size=scores.shape)).argmax(1).astype(np.int32)
    mcmc = SGWORLD(wide_network, num_chains=2, num_warmup=5, num_samples=10, progress_bar=False)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a few draws have not mixed
        mcmc.run(jax.random.key(0), x, y)
    assert mcmc.draws().checks["kinetic"].mean() < 2


@pytest.mark.filterwarnings("ignore")
def test_a_model_of_many_rows_and_parameters_is_checked_on_a_part_of_the_rows():
    size, given = 60_000, dict(friction=1.0, step_size=1e-4, batch_size=50, steps_per_draw=4)

    def slopes(x, y):
        mu = numpyro.sample("mu", dist.Normal(0, 1).expand([18_000]).to_event(1))
        with numpyro.plate("rows", y.shape[0]):
            numpyro.sample("y", dist.Normal(x * mu[0] + mu[-1], 1), obs=y)

    x, y = np.random.default_rng(0).standard_normal((2, size)).astype(np.float32)
    run = dict(num_chains=1, num_warmup=0, num_samples=1, progress_bar=False, order="examples")
    mcmc = SGWORLD(slopes, dynamics="kinetic", **run, **given)
    with watch() as seen:
        mcmc.run(jax.random.key(0), x, y)
    # All rows are looked at, and put in random order; on a few the model is evaluated.
    assert 2 * size < seen.rows["checking the model"] < 2.5 * size

    def standardised(x, y):
        slopes((x - x.mean()) / x.std(), y)

    with pytest.raises(ValueError, match="standardises by the mean"):
        SGWORLD(standardised, dynamics="kinetic", **run, **given).run(jax.random.key(0), x, y)
