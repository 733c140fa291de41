"""A model seen through minibatches: the same density as NumPyro's, and errors that say why not."""

import functools
import re

import jax
import jax.numpy as jnp
import models
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from numpyro.infer.util import potential_energy

from sgworld_mcmc import SGWORLD
from sgworld_mcmc.data.dealt_rows import DealtRows
from sgworld_mcmc.data.fixed_partition import partition
from sgworld_mcmc.data.in_memory import cut, shuffle
from sgworld_mcmc.gradients.weighting import epoch_mean
from sgworld_mcmc.infer import SGMCMCKernel
from sgworld_mcmc.setup.checked_model import check_model

KEY = jax.random.key(0)


def view_of(model, *args, **kwargs):
    """The model through minibatches, after all checks and before the search for the mode."""
    settings = SGMCMCKernel(model).settings
    return check_model(np.random.default_rng(0), model, settings, args, kwargs, {}).model


@pytest.mark.parametrize(
    ("model", "batch_size"),
    [(model, 20) for model in models.MODELS] + [(models.plated, 1), (models.with_factors, 203)],
    ids=lambda value: getattr(value, "__name__", value),
)
def test_mean_over_batches_is_numpyros_full_gradient(model, batch_size):
    """To rounding error, in float64, for batches of 18 and 19 rows, of one row, and of all."""
    with jax.enable_x64(True):
        X, y = (x.astype(float) for x in models.regression_data())
        view = view_of(model, X, y)
        data, constants = view.layout.split((X, y), {})
        rows = shuffle(np.random.default_rng(0), data)
        batches = cut(rows, -(-len(y) // batch_size))
        flat = jax.random.normal(jax.random.key(1), (view.dimension,))

        def log_density(flat, rows):
            return view.log_density(flat, rows, constants)

        value, gradient = jax.jit(
            lambda flat: epoch_mean(jax.value_and_grad(log_density), flat, batches)
        )(flat)
        full = potential_energy_of(SGMCMCKernel(model).model, view, X, y)
        expected, expected_gradient = jax.jit(jax.value_and_grad(full))(flat)
        np.testing.assert_allclose(value, -expected, rtol=1e-11)
        np.testing.assert_allclose(gradient, -expected_gradient, rtol=1e-10, atol=1e-9)


def potential_energy_of(model, view, *args):
    return lambda flat: potential_energy(model, args, {}, view.unravel(flat))


def test_gathered_rows_give_the_same_gradient_as_contiguous_batches():
    X, y = models.regression_data()
    view, data = view_of(models.plated, X, y), (jnp.asarray(X), jnp.asarray(y))
    flat = jnp.array([0.1, 0.2, 0.3, -0.4])

    @jax.jit
    def mean_gradient(feed, dealing=()):
        log_density = lambda flat, rows: view.log_density(flat, rows, ())  # noqa: E731
        return epoch_mean(jax.grad(log_density), flat, feed, dealing=dealing)

    feed = DealtRows(data, 11)
    gathered = mean_gradient(feed, feed.init(jax.random.key(5)))
    contiguous = mean_gradient(partition(jax.random.key(6), data, 20))
    np.testing.assert_allclose(gathered, contiguous, rtol=1e-5)


def test_an_observation_that_is_no_data_counts_once():
    X, y = models.regression_data()
    previous = np.array([1.0, -0.5, 0.2], np.float32)
    view = view_of(functools.partial(models.with_summary, previous=previous), X, y)
    assert view.sites["previous"].kind == "observed"
    assert view.additive == {"y"}


def test_factor_sites_are_told_apart_by_their_values():
    X, y = models.regression_data()
    assert view_of(models.with_factors, X, y).additive == {"likelihood"}


def test_arguments_by_keyword_nested_and_static():
    X, y = models.regression_data()

    def model(data, *, scale, name, offsets=None):
        assert name == "text"
        assert isinstance(scale, float)
        b = numpyro.sample("b", dist.Normal(0, 1).expand([3]).to_event(1))
        numpyro.sample("y", dist.Normal(data["X"] @ b + offsets.sum(), scale), obs=data["y"])

    view = view_of(model, {"X": X, "y": y}, scale=0.5, name="text", offsets=np.zeros(7))
    assert view.size == len(y)
    assert view.layout.names == ("data['X']", "data['y']", "name", "offsets", "scale")
    assert view.layout.kinds == ("data", "data", "static", "constant", "static")


def coefficients():
    return numpyro.sample("b", dist.Normal(0, 1).expand([3]).to_event(1))


def unobserved(X, y):
    numpyro.sample("y", dist.Normal(X @ coefficients(), 1))


def local_in_plate(X, y):
    b = coefficients()
    with numpyro.plate("rows", len(y)):
        e = numpyro.sample("e", dist.Normal(0, 1))
        numpyro.sample("y", dist.Normal(X @ b + e, 1), obs=y)


def local_without_plate(X, y):
    b, e = coefficients(), numpyro.sample("e", dist.Normal(0, 1).expand([len(y)]))
    numpyro.sample("y", dist.Normal(X @ b + e, 1), obs=y)


def discrete(X, y):
    b, z = coefficients(), numpyro.sample("z", dist.Poisson(0.5))
    numpyro.sample("y", dist.Normal(X @ b + z, 1), obs=y)


def standardising(X, y):
    Z = (X - X.mean(0)) / X.std(0)
    numpyro.sample("y", dist.Normal(Z @ coefficients(), 1), obs=y)


def scaled_prior(X, y):
    with numpyro.handlers.scale(scale=len(y) / models.N):
        b = coefficients()
    numpyro.sample("y", dist.Normal(X @ b, 1), obs=y)


def written_scale(X, y):
    b = coefficients()
    with numpyro.handlers.scale(scale=models.N / len(y)):
        numpyro.sample("y", dist.Normal(X @ b, 1), obs=y)


def data_in_prior(X, y):
    b = numpyro.sample("b", dist.MultivariateNormal(jnp.zeros(3), precision_matrix=X.T @ X))
    numpyro.sample("y", dist.Normal(X @ b, 1), obs=y)


def concrete(X, y):
    b, y = coefficients(), np.asarray(y)
    numpyro.sample("y", dist.Normal(X @ b, 1), obs=y)


def written_expand(X, y):
    numpyro.sample("y", dist.Normal(X @ coefficients(), 1).expand([models.N]), obs=y)


def not_a_number(X, y):
    b = coefficients()
    numpyro.sample("y", dist.Normal(jnp.log(-jnp.exp(b[0])) + X[:, 0], 1), obs=y)


def no_latent(X, y):
    numpyro.sample("y", dist.Normal(X[:, 0], 1), obs=y)


@pytest.mark.parametrize(
    ("model", "words"),
    [
        (unobserved, "no observed site.*obs="),
        (no_latent, "no latent site"),
        (local_in_plate, "'e' lies inside the plate 'rows'"),
        (local_without_plate, "'e' lies inside the rows"),
        (discrete, "'z'.* discrete without a finite number of values"),
        (standardising, "site 'y' has a log density that does not add up.*standardise"),
        (scaled_prior, "site 'b' has a prior that changes"),
        (written_scale, "site 'y' has a log density that does not add up"),
        (data_in_prior, "site 'b' has a prior that changes"),
        (concrete, "does not add up|fails on half"),
        (written_expand, "fails on 101 of its 203 rows.*functools.partial"),
        (not_a_number, "'y' is NaN or infinite"),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_models_that_cannot_be_minibatched_raise_before_sampling(model, words):
    with pytest.raises(ValueError, match=words):
        SGWORLD(model, batch_size=20).run(KEY, *models.regression_data())


def test_arrays_without_rows_are_named():
    X, y = models.regression_data()
    with pytest.raises(ValueError, match=r"empty: X \(0, 3\), y \(0,\)"):
        SGWORLD(models.plated).run(KEY, X[:0], y[:0])


def test_data_that_the_model_closes_over_raise():
    X, y = models.regression_data()
    with pytest.raises(ValueError, match=r"No array argument.*arguments of run"):
        SGWORLD(lambda: models.plated(X, y), batch_size=20).run(KEY)


def test_different_numbers_of_observations_raise():
    X, y = models.regression_data()

    def model(X, y, other):
        b = coefficients()
        numpyro.sample("y", dist.Normal(X @ b, 1), obs=y)
        numpyro.sample("other", dist.Normal(b[0], 1), obs=other)

    with pytest.raises(ValueError, match=r"different numbers of rows.*'other': 50"):
        SGWORLD(model, batch_size=20).run(KEY, X, y, y[:50])


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_bad_numbers_in_the_data_are_counted_by_argument(value):
    X, y = models.regression_data()
    X = X.copy()
    X[[3, 5], 1] = value
    with pytest.raises(ValueError, match=r"`X` has NaN or infinity in 2 of 203 rows.*row 3"):
        SGWORLD(models.plated).run(KEY, X, y)


def test_a_table_is_no_array():
    class Table:
        __array__ = lambda self, dtype=None, copy=None: np.ones((203, 3))  # noqa: E731

    with pytest.raises(TypeError, match=r"`X` is a \w+ Table.*numpy.asarray\(X\)"):
        SGWORLD(models.plated).run(KEY, Table(), models.regression_data()[1])


def test_failing_model_keeps_its_own_error_and_gains_a_note():
    X, y = models.regression_data()

    def failing(X, y):
        raise KeyError("no such column")

    with pytest.raises(KeyError, match="no such column") as caught:
        SGWORLD(failing).run(KEY, X[:100], y)
    assert "X float32 (100, 3), y float32 (203,)" in "".join(caught.value.__notes__)
    message = "`X` has 100, `y` has 203.* The cause: .*Incompatible shapes"
    with pytest.raises(ValueError, match=message):
        SGWORLD(models.plated).run(KEY, X[:100], y)


@pytest.mark.parametrize(
    ("settings", "error", "words"),
    [
        ({"batch_size": 0}, ValueError, "`batch_size` must be at least 1"),
        ({"batch_size": 204}, ValueError, "`batch_size` must be between 1 and 203"),
        ({"batch_size": 10.5}, TypeError, "`batch_size` must be an integer"),
        ({"step_size": 0}, ValueError, "`step_size` must be positive"),
        ({"step_size": -1.0}, ValueError, "`step_size` must be positive"),
        ({"step_size": np.nan}, ValueError, "`step_size` must be positive and finite"),
        ({"step_size": "automatic"}, ValueError, "mean 'auto'"),
        ({"order": "batch"}, ValueError, "mean 'batches'"),
        ({"noise": "average"}, ValueError, "mean 'averaged'"),
        ({"gradient": "control"}, ValueError, "mean 'control_variate'"),
        ({"num_samples": 0}, ValueError, "`num_samples` must be at least 1"),
        ({"num_chains": 0}, ValueError, "`num_chains` must be at least 1"),
        ({"num_warmup": -1}, ValueError, "`num_warmup` must be at least 0"),
        ({"thinning": 0}, ValueError, "`thinning`"),
        ({"steps_per_draw": 0}, ValueError, "`steps_per_draw` must be at least 1"),
        ({"tolerance": 0}, ValueError, "`tolerance` must be positive"),
        ({"tolerance": 2}, ValueError, "must be below 1, not 2: 0.02 stands for 2 %"),
        ({"temperature": -1}, ValueError, "`temperature` must be zero or positive"),
        ({"chain_method": "vectorised"}, ValueError, "mean 'vectorized'"),
        ({"preconditioner": np.eye(2)}, ValueError, r"`preconditioner` has shape \(2, 2\)"),
        ({"preconditioner": -np.ones(4)}, ValueError, "positive definite"),
    ],
    ids=lambda value: "-".join(value) if isinstance(value, dict) else "",
)
def test_bad_settings_raise_before_sampling(settings, error, words):
    with pytest.raises(error, match=words):
        SGWORLD(models.plated, **settings).run(KEY, *models.regression_data())


@pytest.mark.parametrize(
    ("params", "words"),
    [
        ({"beta": np.zeros(3)}, r"unknown \['beta'\]"),
        ({"b": np.zeros((4, 3))}, r"missing \['s'\]"),
        ({"b": np.zeros(3), "s": np.zeros(4)}, r"\(4, 3\) \(chains first\)"),
    ],
)
def test_bad_initial_values_raise_before_sampling(params, words):
    with pytest.raises(ValueError, match=words):
        SGWORLD(models.plated).run(KEY, *models.regression_data(), init_params=params)


def test_number_in_place_of_a_key_raises():
    with pytest.raises(TypeError, match=r"`rng_key` must be a JAX random key"):
        SGWORLD(models.plated).run(0, *models.regression_data())
    # The data in its place are not printed in full.
    with pytest.raises(TypeError, match=r"(?s)not array.{1,150}It is the first argument"):
        SGWORLD(models.plated).run(*models.regression_data())


def test_labels_that_are_no_integers_are_named():
    def model(X, label):
        b = numpyro.sample("b", dist.Normal(0, 1).expand([3, 4]).to_event(2))
        numpyro.sample("label", dist.Categorical(logits=X @ b), obs=label)

    X, y = models.regression_data()
    with pytest.raises(TypeError, match="integer") as caught:
        SGWORLD(model).run(KEY, X, np.floor(4 * np.abs(np.sin(y))))
    note = "site 'label', a Categorical.* float32. Labels must be integers: pass them .astype"
    assert re.search(note, "".join(caught.value.__notes__))
