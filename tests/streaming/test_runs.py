"""Runs on streamed rows: right draws, few passes, and errors that keep what was made."""

import warnings

import jax
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest

from sgworld_benchmarks.streaming.problem import exact, model, write_problem
from sgworld_mcmc import SGLD, SGWORLD, InterruptedWarning, TuningWarning
from sgworld_mcmc.progress import watch
from sgworld_mcmc.setup import forecast
from sgworld_mcmc.streaming.source import SourceError

pytestmark = pytest.mark.slow

SIZE, DIM = 150_007, 3  # no batch size divides a prime number of rows


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    made = tmp_path_factory.mktemp("rows")
    write_problem(made, SIZE, DIM, 0)
    return made


@pytest.fixture(scope="module")
def shared():
    """Return a sampler whose compiled functions of the set-up serve all tests."""
    return SGWORLD(model, stream=True)


def arrays(folder):
    return tuple(np.load(folder / name, mmap_mode="r") for name in ("X.npy", "y.npy"))


def sampler(shared, **settings):
    mcmc = SGWORLD(model, stream=True, **settings)
    mcmc.sampler.share(shared.sampler)
    return mcmc


def check(draws, folder, autocorrelation=2.0, tolerance=0.02):
    """Compare draws with the exact posterior: five Monte Carlo errors, and the tolerance."""
    draws, truth = np.asarray(draws, float), exact(folder)
    number = len(draws) / autocorrelation
    assert np.abs((draws.mean(0) - truth.mean) / truth.sd).max() < 5 / np.sqrt(number) + tolerance
    ratio = draws.std(0) / truth.sd
    assert np.abs(ratio - 1).max() < 5 / np.sqrt(2 * number) + tolerance


def test_defaults_are_right_and_read_the_file_twice(shared, folder):
    mcmc = sampler(shared)
    with watch() as seen:
        mcmc.run(jax.random.key(0), *arrays(folder))
    check(mcmc.get_samples()["beta"], folder)
    streaming = mcmc.plan.streaming
    assert streaming.passes == 2 and streaming.alike == 1 and streaming.grid.ragged
    # Two passes, a quarter of the rows as a part in memory, and some chunks.
    assert mcmc.data.stream.rows.rows_read < 4 * SIZE
    assert "gradient of all rows" in [stage.name for stage in seen.stages()]
    assert any("passes over the data" in text for text in seen.told)
    report = str(mcmc.bias_report())
    assert "are streamed" in report and "Nothing to do" in report
    assert mcmc.to_arviz().posterior["beta"].shape == (4, 1000, DIM)
    with pytest.raises(ValueError, match="The rows are streamed"):
        mcmc.to_arviz(log_likelihood=True)
    # The same key gives the same draws, in memory too where all batches are the same.
    again = sampler(shared)
    again.run(jax.random.key(0), *arrays(folder))
    assert (again.get_samples()["beta"] == mcmc.get_samples()["beta"]).all()


@pytest.mark.parametrize("order", ["batches", "examples"])
def test_plain_gradients_over_many_epochs(shared, folder, order):
    mcmc = sampler(shared, gradient="plain", order=order, num_samples=60, num_warmup=10)
    mcmc.run(jax.random.key(1), *arrays(folder))
    dynamics = mcmc.plan.dynamics
    assert dynamics.steps_per_draw % dynamics.num_batches == 0
    check(mcmc.get_samples()["beta"], folder)
    last = mcmc.last_state
    made = 10 * dynamics.steps_per_warmup + 60 * dynamics.steps_per_draw
    assert (np.asarray(last.step) == made).all()
    assert mcmc.forecast().passes == pytest.approx(made / dynamics.num_batches)


def test_a_continued_run_is_one_longer_run(shared, folder):
    settings = {"gradient": "plain", "batch_size": 500, "step_size": 5e-4, "steps_per_draw": 40}
    whole = sampler(shared, num_samples=30, num_warmup=3, **settings)
    whole.run(jax.random.key(2), *arrays(folder))
    X, y = arrays(folder)
    part = sampler(shared, num_samples=15, num_warmup=3, **settings)
    part.run(jax.random.key(2), X, y)
    first = part.get_samples(group_by_chain=True)["beta"]
    part.post_warmup_state = part.last_state
    part.run(part.last_state.rng_key, X, y)
    second = part.get_samples(group_by_chain=True)["beta"]
    both = np.concatenate([first, second], axis=1)
    np.testing.assert_array_equal(both, whole.get_samples(group_by_chain=True)["beta"])


def test_a_sorted_file_is_right_and_its_cost_is_told(tmp_path):
    def straight(x, y):
        a = numpyro.sample("a", dist.Normal(0, 10))
        with numpyro.plate("data", len(y)):
            numpyro.sample("y", dist.Normal(a, 1.0), obs=y)

    y = np.sort(np.random.default_rng(0).standard_normal(SIZE).astype(np.float32))
    np.save(tmp_path / "y.npy", y)
    y = np.load(tmp_path / "y.npy", mmap_mode="r")
    mcmc = SGWORLD(straight, stream=True, gradient="plain", num_samples=60, num_warmup=10)
    with pytest.warns(TuningWarning, match="sgworld-mcmc shuffle"):
        mcmc.run(jax.random.key(0), None, y)
    draws = np.asarray(mcmc.get_samples()["a"], float)
    sd = 1 / np.sqrt(SIZE + 0.01)
    assert mcmc.plan.streaming.alike > 100 and mcmc.plan.dynamics.order.name == "examples"
    # The predicted error of the variance allows for what the sorted blocks do.
    error = 5 / np.sqrt(len(draws))
    assert abs((draws.mean() - y.astype(float).mean()) / sd) < 1.5 * error + 0.02
    assert abs(draws.std() / sd - 1) < error + 0.02


@pytest.mark.parametrize(
    "settings",
    # Both relax in the time of an epoch: a kinetic step spans step size over friction.
    [{"step_size": 1 / 400}, {"step_size": 1 / 200, "dynamics": "kinetic", "friction": 2.0}],
)
def test_the_price_of_alike_neighbours_is_right(tmp_path, settings):
    def straight(y):
        a = numpyro.sample("a", dist.Normal(0, 10))
        with numpyro.plate("data", len(y)):
            numpyro.sample("y", dist.Normal(a, 1.0), obs=y)

    size, each, generator = 40_000, 100, np.random.default_rng(0)
    groups = np.repeat(0.3 * generator.standard_normal(size // each), each)
    y = (groups + generator.standard_normal(size)).astype(np.float32)
    settings = {"gradient": "plain", "batch_size": 100, **settings}
    mcmc = SGWORLD(straight, stream=True, num_samples=600, num_warmup=20, **settings)
    with pytest.warns(TuningWarning):
        mcmc.run(jax.random.key(1), y)
    (predicted,) = mcmc.bias_report().predicted_variance_error
    draws = np.asarray(mcmc.get_samples()["a"], float)
    measured = (size + 0.01) * np.mean((draws - y.astype(float).mean()) ** 2) - 1
    # Rows in random order would give an error of 4 %: a time of one per epoch, B = 100. Draws of an
    # autocorrelation time of about two have a Monte Carlo error of 5 %.
    assert predicted > 0.15 and abs(measured - predicted) < 0.2


def test_a_source_that_fails_in_a_run_keeps_the_draws(shared, folder, monkeypatch):
    from sgworld_mcmc.streaming.arrays import ArraySource

    X, y = arrays(folder)
    settings = {"gradient": "plain", "batch_size": 500, "step_size": 5e-4, "steps_per_draw": 40}
    mcmc = sampler(shared, num_samples=400, num_warmup=3, **settings)
    mcmc.set_up(jax.random.key(3), X, y)
    read, count = ArraySource.read_into, []

    def read_into(self, *args):
        count.append(1)
        if len(count) > 400:
            raise OSError("the disk is gone")
        return read(self, *args)

    monkeypatch.setattr(ArraySource, "read_into", read_into)
    with pytest.warns(InterruptedWarning, match=r"cut short.*the disk is gone.* of 400 draws"):
        mcmc.run(jax.random.key(3), X, y)
    kept = mcmc.get_samples(group_by_chain=True)["beta"]
    monkeypatch.undo()
    whole = sampler(shared, num_samples=400, num_warmup=3, **settings)
    whole.run(jax.random.key(3), X, y)
    assert 0 < kept.shape[1] < 400
    full = whole.get_samples(group_by_chain=True)["beta"]
    np.testing.assert_array_equal(kept, full[:, : kept.shape[1]])


def test_rows_that_turn_bad_in_a_run_are_named_and_the_draws_kept(shared, tmp_path, monkeypatch):
    from sgworld_mcmc.streaming.arrays import ArraySource

    write_problem(tmp_path, SIZE, DIM, 0)
    settings = {"gradient": "plain", "batch_size": 500, "step_size": 5e-4, "steps_per_draw": 40}
    whole = sampler(shared, num_samples=100, num_warmup=3, **settings)
    whole.run(jax.random.key(3), *arrays(tmp_path))
    data, file = arrays(tmp_path), np.load(tmp_path / "X.npy", mmap_mode="r+")
    mcmc = sampler(shared, num_samples=100, num_warmup=3, **settings)
    mcmc.set_up(jax.random.key(3), *data)
    good, read, count = file[140_000:].copy(), ArraySource.read_into, []

    def read_into(self, *args):
        count.append(1)
        if len(count) == 200:  # another program writes to the end of the file
            file[140_000:] = np.nan
            file.flush()
        return read(self, *args)

    monkeypatch.setattr(ArraySource, "read_into", read_into)
    expected = r"cut short \(`X` has NaN or infinity in row 14.*source has changed.* of 100 draws"
    with pytest.warns(InterruptedWarning, match=expected):
        mcmc.run(jax.random.key(3), *data)
    kept = mcmc.get_samples(group_by_chain=True)["beta"]
    assert 0 < kept.shape[1] < 100
    full = whole.get_samples(group_by_chain=True)["beta"]
    np.testing.assert_array_equal(kept, full[:, : kept.shape[1]])

    # Before the first draw there is nothing to keep.
    with pytest.raises(SourceError, match=r"`X` has NaN or infinity in row 14.*has changed since"):
        mcmc.run(jax.random.key(3), *data)
    file[140_000:] = good
    file.flush()
    mcmc.run(jax.random.key(3), *data)
    np.testing.assert_array_equal(mcmc.get_samples(group_by_chain=True)["beta"], full)


def test_a_row_that_is_not_finite_is_found_in_the_first_pass(shared, tmp_path):
    write_problem(tmp_path, SIZE, DIM, 0)
    X, seen_in = np.load(tmp_path / "X.npy", mmap_mode="r+"), set()
    # A quarter of the rows, in pieces of 36, is a part that is read before.
    for row in range(123_400, 123_600, 40):
        before, X[row, 1] = X[row, 1], np.inf
        X.flush()
        with watch() as seen, pytest.raises(ValueError, match=f"`X` has NaN or inf.* row {row} "):
            sampler(shared).run(jax.random.key(0), *arrays(tmp_path))
        seen_in.add(seen.name)
        X[row, 1] = before
    assert seen_in == {"checking the model", "gradient of all rows"}


def test_what_cannot_be_streamed_is_refused(shared, folder):
    X, y = arrays(folder)

    def inside(X, y):
        with numpyro.plate("data", len(y)):
            z = numpyro.sample("z", dist.Normal(0, 1))
            numpyro.sample("y", dist.Normal(z, 1.0), obs=y)

    with pytest.raises(ValueError, match=r"cannot be: The latent site 'z' lies inside"):
        SGWORLD(inside, stream=True).run(jax.random.key(0), X, y)

    def counted(X, y):
        beta = numpyro.sample("beta", dist.Normal(0, 1).expand([1 + int(y.max())]))
        numpyro.sample("y", dist.Normal(X[:, 0] * beta[0], 1.0), obs=y)

    with pytest.raises(ValueError, match="takes values from its array arguments in Python"):
        SGWORLD(counted, stream=True).run(jax.random.key(0), X, y)
    with pytest.raises(ValueError, match="SGLD draws batches with replacement"):
        SGLD(model, stream=True).run(jax.random.key(0), X, y)
    for settings, name in (
        ({"order": "symmetric"}, "`order` 'symmetric'"),
        ({"record_moments": True}, "record_moments"),
    ):
        with pytest.raises(ValueError, match=name):
            sampler(shared, **settings).run(jax.random.key(0), X, y)
    with pytest.raises(ValueError, match="potential_energy"):
        sampler(shared).run(jax.random.key(0), X, y, extra_fields=("potential_energy",))


def test_sites_that_depend_on_the_rows_are_left_out(folder):
    def with_sites(X, y):
        beta = numpyro.sample("beta", dist.Normal(0, 10).expand([X.shape[1]]).to_event(1))
        numpyro.deterministic("length", (beta**2).sum())
        numpyro.deterministic("mean", (X @ beta).mean())
        with numpyro.plate("data", len(y)):
            numpyro.sample("y", dist.Normal(X @ beta, 1.0), obs=y)

    mcmc = SGWORLD(with_sites, stream=True, num_samples=50)
    with pytest.warns(UserWarning, match=r"\['mean'\] depend on the rows"):
        mcmc.run(jax.random.key(0), *arrays(folder))
    made = mcmc.get_samples()
    assert sorted(made) == ["beta", "length"]
    np.testing.assert_allclose(made["length"], (made["beta"] ** 2).sum(1), rtol=1e-5)


def test_kinetic_dynamics_about_the_mode(shared, folder):
    mcmc = sampler(shared, dynamics="kinetic", num_samples=500)
    mcmc.run(jax.random.key(6), *arrays(folder))
    dynamics = mcmc.plan.dynamics
    assert dynamics.integrator.name == "ubu" and dynamics.order.name == "batches"
    check(mcmc.get_samples()["beta"], folder)
    assert "are streamed" in str(mcmc.bias_report())


def test_forecast_and_chains_one_after_the_other(shared, folder):
    mcmc = sampler(shared, chain_method="sequential", num_chains=2, num_samples=200)
    with warnings.catch_warnings():
        warnings.simplefilter("error", TuningWarning)
        mcmc.run(jax.random.key(4), *arrays(folder))
    check(mcmc.get_samples()["beta"], folder)
    assert "s of reading at the rate so far" in str(mcmc.forecast())


def test_too_little_memory_is_refused_before_the_work(shared, folder, monkeypatch):
    mcmc = sampler(shared, num_samples=100)
    X, y = arrays(folder)
    plan = mcmc.set_up(jax.random.key(5), X, y)
    monkeypatch.setattr(forecast, "available_memory", lambda: 10**5)
    with pytest.raises(MemoryError, match=r"are free. Ask for fewer draws"):
        mcmc.run(jax.random.key(5), X, y)
    with pytest.raises(MemoryError, match=r"takes about .* MB of memory, and 100 kB are free"):
        sampler(shared).run(jax.random.key(5), *arrays(folder))
    assert plan.streaming.passes == 2


def test_few_streamed_rows_are_checked(tmp_path):
    write_problem(tmp_path, 41, DIM, 0)
    mcmc = SGWORLD(model, stream=True, num_samples=500)
    mcmc.run(jax.random.key(0), *arrays(tmp_path))
    check(mcmc.get_samples()["beta"], tmp_path)
    assert np.isfinite(mcmc.bias_report().stein.variance_error).all()


def test_rows_in_random_order_are_not_alike_for_plain_gradients(folder):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        mcmc = SGWORLD(model, stream=True, gradient="plain", num_samples=10, num_chains=1)
        assert mcmc.set_up(jax.random.key(3), *arrays(folder)).streaming.alike == 1
