"""Networks on streamed rows: kinetic dynamics without a mode, set up on a part of the file."""

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest

from sgworld_mcmc import SGWORLD

SIZE, FEATURES, UNITS, CLASSES = 20_000, 30, 30, 4
KEY = jax.random.key(0)


def logits(x, w1, b1, w2):
    return jnp.tanh(x @ w1 + b1) @ w2


def network(x, y=None):
    w1 = numpyro.sample("w1", dist.Normal(0, FEATURES**-0.5).expand([FEATURES, UNITS]).to_event(2))
    b1 = numpyro.sample("b1", dist.Normal(0, 1).expand([UNITS]).to_event(1))
    w2 = numpyro.sample("w2", dist.Normal(0, UNITS**-0.5).expand([UNITS, CLASSES]).to_event(2))
    with numpyro.plate("rows", x.shape[0]):
        numpyro.sample("y", dist.Categorical(logits=logits(x, w1, b1, w2)), obs=y)


@pytest.fixture(scope="module")
def arrays(tmp_path_factory):
    """Features and classes in files, and the same in memory."""
    folder, rng = tmp_path_factory.mktemp("network"), np.random.default_rng(0)
    x = rng.standard_normal((SIZE, FEATURES)).astype(np.float32)
    inner = np.tanh(x @ rng.standard_normal((FEATURES, 5)) / 3)
    scores = inner @ rng.standard_normal((5, CLASSES)) + rng.gumbel(size=(SIZE, CLASSES))
    y = scores.argmax(1).astype(np.int32)
    np.save(folder / "x", x), np.save(folder / "y", y)
    return tuple(np.load(folder / f"{name}.npy", mmap_mode="r") for name in "xy"), (x, y)


def predicted(mcmc, x):
    """Return (draws, rows, classes) probabilities at some draws."""
    some = {name: value[::10] for name, value in mcmc.get_samples().items()}
    each = jax.vmap(lambda s: jax.nn.softmax(logits(x, s["w1"], s["b1"], s["w2"])))
    return np.asarray(each(some))


@pytest.mark.slow
def test_a_network_predicts_what_it_predicts_with_all_rows_in_memory(arrays, tmp_path):
    mapped, held = arrays
    probabilities = []
    for stream, data in ((True, mapped), (False, held)):
        mcmc = SGWORLD(network, stream=stream, num_samples=300, progress_bar=False)
        mcmc.run(KEY, *data)
        assert mcmc.plan.kinetic is not None
        probabilities.append(predicted(mcmc, held[0][:200]))
        if stream:
            streamed, report = mcmc, str(mcmc.bias_report())
    assert "not measured on streamed rows" in report and "nan" not in report
    away = np.abs(probabilities[0].mean(0) - probabilities[1].mean(0)).sum(-1).mean() / 2
    assert away < 0.015  # in total variation
    widths = [x.std(0).mean() for x in probabilities]
    assert 0.85 < widths[0] / widths[1] < 1.15
    streamed.save_plan(tmp_path / "plan.npz")
    plan = tmp_path / "plan.npz"
    again = SGWORLD(network, stream=True, num_samples=300, progress_bar=False, plan=plan)
    again.run(KEY, *mapped)
    np.testing.assert_array_equal(again.get_samples()["w2"], streamed.get_samples()["w2"])


def small_network(x, y=None):
    w1 = numpyro.sample("w1", dist.Normal(0, 1).expand([6, 10]).to_event(2))
    b1 = numpyro.sample("b1", dist.Normal(0, 1).expand([10]).to_event(1))
    w2 = numpyro.sample("w2", dist.Normal(0, 1).expand([10]).to_event(1))
    with numpyro.plate("rows", x.shape[0]):
        numpyro.sample("y", dist.Bernoulli(logits=jnp.tanh(x @ w1 + b1) @ w2), obs=y)


@pytest.fixture(scope="module")
def two_classes(tmp_path_factory):
    """Six features and two classes in files, and the chances of the second class."""
    folder, rng = tmp_path_factory.mktemp("small"), np.random.default_rng(0)
    x = rng.standard_normal((SIZE, 6)).astype(np.float32)
    chance = 1 / (1 + np.exp(-3 * np.tanh(x[:, 0] * x[:, 1] + x[:, 2])))
    y = (rng.random(SIZE) < chance).astype(np.int32)
    np.save(folder / "x", x), np.save(folder / "y", y)
    return tuple(np.load(folder / f"{name}.npy", mmap_mode="r") for name in "xy"), chance


@pytest.mark.slow
def test_a_small_network_whose_searches_end_in_several_places_needs_no_mode(two_classes):
    mapped, chance = two_classes
    mcmc = SGWORLD(small_network, stream=True, num_samples=100, progress_bar=False)
    mcmc.run(KEY, *mapped)
    assert mcmc.plan.kinetic is not None

    def chances(s):
        return jax.nn.sigmoid(jnp.tanh(mapped[0][:500] @ s["w1"] + s["b1"]) @ s["w2"])

    predicted = np.asarray(jax.vmap(chances)(mcmc.get_samples())).mean(0)
    assert np.abs(predicted - chance[:500]).mean() < 0.05


@pytest.mark.slow
def test_searches_that_are_still_rising_in_several_places_need_no_mode(tmp_path):
    """Searches of a curve among many rows end early, at densities that differ by hundreds."""

    def curve(x, y=None):
        w1 = numpyro.sample("w1", dist.Normal(0, 1).expand([1, 20]).to_event(2))
        b1 = numpyro.sample("b1", dist.Normal(0, 1).expand([20]).to_event(1))
        w2 = numpyro.sample("w2", dist.Normal(0, 1).expand([20]).to_event(1))
        sigma = numpyro.sample("sigma", dist.HalfNormal(1.0))
        with numpyro.plate("rows", x.shape[0]):
            numpyro.sample("y", dist.Normal(jnp.tanh(x @ w1 + b1) @ w2, sigma), obs=y)

    rng = np.random.default_rng(0)
    x = rng.uniform(-2, 2, (SIZE, 1)).astype(np.float32)
    y = (np.sin(3 * x[:, 0]) + 0.3 * rng.standard_normal(SIZE)).astype(np.float32)
    np.save(tmp_path / "x", x), np.save(tmp_path / "y", y)
    mapped = (np.load(tmp_path / f"{name}.npy", mmap_mode="r") for name in "xy")
    plan = SGWORLD(curve, stream=True, progress_bar=False).set_up(KEY, *mapped)
    assert plan.kinetic is not None and plan.kinetic.temperature < 1.5
    assert plan.kinetic.choice.step_size > 1e-4


def test_a_flat_posterior_is_no_network_and_refused_with_the_cure(two_classes):
    def model(x, y):
        flat = dist.ImproperUniform(dist.constraints.real, (), ())
        one, other = numpyro.sample("one", flat), numpyro.sample("other", flat)
        with numpyro.plate("rows", x.shape[0]):
            numpyro.sample("y", dist.Bernoulli(logits=x[:, 2] + one + other), obs=y)

    mcmc = SGWORLD(model, stream=True, progress_bar=False)
    with pytest.raises(ValueError, match=r"No mode .* Reparametrise"):
        mcmc.set_up(KEY, *two_classes[0])


def test_a_sorted_file_is_refused_with_the_cure(arrays, tmp_path):
    order = np.argsort(arrays[1][1], kind="stable")
    for name, values in zip("xy", arrays[1], strict=True):
        np.save(tmp_path / name, values[order])
    mcmc = SGWORLD(network, stream=True, order="examples", progress_bar=False)
    with pytest.raises(ValueError, match=r"Neighbouring rows .*sgworld-mcmc shuffle"):
        mcmc.set_up(KEY, *(np.load(tmp_path / f"{name}.npy", mmap_mode="r") for name in "xy"))


def test_a_row_that_is_not_finite_is_named_before_the_run(arrays, tmp_path):
    x = arrays[1][0].copy()
    x[12_345, 3] = np.nan
    np.save(tmp_path / "x", x)
    mapped = np.load(tmp_path / "x.npy", mmap_mode="r"), arrays[0][1]
    with pytest.raises(ValueError, match="`x` has NaN or infinity in row 12345"):
        SGWORLD(network, stream=True, progress_bar=False).set_up(KEY, *mapped)


def test_other_dynamics_of_so_many_parameters_are_refused(arrays):
    mcmc = SGWORLD(network, stream=True, progress_bar=False, gradient="control_variate")
    with pytest.raises(ValueError, match="Leave out the settings that ask for others"):
        mcmc.set_up(KEY, *arrays[0])


def slope(x, y):
    b = numpyro.sample("b", dist.Normal(0, 3))
    with numpyro.plate("rows", len(y)):
        numpyro.sample("y", dist.Normal(b * x, 1.0), obs=y)


def test_quantities_of_streamed_rows_are_functions_of_the_draws(tmp_path):
    rng = np.random.default_rng(1)
    x, y = rng.standard_normal((2, 4000)).astype(np.float32)
    np.save(tmp_path / "x", x), np.save(tmp_path / "y", y)
    mapped = (np.load(tmp_path / f"{name}.npy", mmap_mode="r") for name in "xy")
    square = lambda sites: {"square": sites["b"] ** 2}  # noqa: E731
    mcmc = SGWORLD(slope, stream=True, num_samples=50, quantities=square, progress_bar=False)
    mcmc.run(KEY, *mapped)
    draws = mcmc.get_samples(group_by_chain=True)["b"]
    np.testing.assert_allclose(mcmc.quantities()["square"], draws**2, rtol=1e-5)


def many_weak_effects(x, y):
    b = numpyro.sample("b", dist.Normal(0, 1).expand([1100]).to_event(1))
    with numpyro.plate("rows", len(y)):
        numpyro.sample("y", dist.Normal(x @ b, 1000.0), obs=y)


def test_draws_come_in_mid_epoch_where_chains_forget_within_an_epoch(tmp_path):
    rng = np.random.default_rng(1)
    x = rng.standard_normal((6000, 1100)).astype(np.float32)
    np.save(tmp_path / "x", x), np.save(tmp_path / "y", 1000 * rng.standard_normal(6000))
    mapped = tuple(np.load(tmp_path / f"{name}.npy", mmap_mode="r") for name in "xy")
    mcmc = SGWORLD(many_weak_effects, stream=True, batch_size=20, progress_bar=False)
    plan = mcmc.set_up(KEY, *mapped)
    # White noise is what is predicted there, since none of it cancels in mid-epoch.
    assert plan.dynamics.steps_per_draw < plan.num_batches
    assert plan.dynamics.order.law == "replacement" and plan.kinetic.choice.met
