"""Models that draw random numbers: dropout and augmentation."""

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest

from sgworld_mcmc import SGWORLD
from sgworld_mcmc.model.additivity import check_minibatching, make_evaluation
from sgworld_mcmc.model.inspection import minibatch_model
from sgworld_mcmc.model.random_parts import key_at
from sgworld_mcmc.protocols import Integrator
from sgworld_mcmc.sampling.sweep import sweep

KEEP, SIZE, FEATURES = 0.7, 2000, 3
_rng = np.random.default_rng(0)
X = _rng.normal(size=(SIZE, FEATURES)).astype(np.float32)
Y = (X @ np.array([1.0, -0.5, 0.2]) + _rng.normal(size=SIZE)).astype(np.float32)


def dropout(X, y):
    """Linear regression with dropout of the inputs."""
    b = numpyro.sample("b", dist.Normal(0, 1).expand([FEATURES]).to_event(1))
    keep = jax.random.bernoulli(numpyro.prng_key(), KEEP, X.shape) / KEEP
    with numpyro.plate("data", len(y)):
        numpyro.sample("y", dist.Normal((X * keep) @ b, 1.0), obs=y)


def posterior():
    """Return mean and covariance of the averaged log density, which is quadratic."""
    gram = X.T.astype(float) @ X
    precision = gram + (1 - KEEP) / KEEP * np.diag(np.diag(gram)) + np.eye(FEATURES)
    covariance = np.linalg.inv(precision)
    return covariance @ (X.T.astype(float) @ Y), covariance


def seen(model):
    view = minibatch_model(model, (X, Y), {})
    rows = (jnp.asarray(X[:100]), jnp.asarray(Y[:100]))
    return view, check_minibatching(view, make_evaluation(view), rows, ())


def test_a_key_that_is_used_makes_a_model_random():
    view, additive = seen(dropout)
    assert view.random and additive == {"y"}

    def idle(X, y):
        numpyro.prng_key()
        scale = numpyro.sample("s", dist.HalfNormal(1))
        numpyro.sample("y", dist.Normal(X.sum(1), scale), obs=y)

    assert not seen(idle)[0].random


@pytest.mark.slow
def test_modules_with_random_numbers_of_their_own():
    pytest.importorskip("flax")
    pytest.importorskip("equinox")
    import modules

    models = (
        modules.of_linen(dropout=0.3, apply_rng=["dropout"]),
        modules.of_nnx(dropout=0.3),
        modules.of_equinox(dropout=0.3),
    )
    for model in models:
        view = minibatch_model(model, (modules.X, modules.Y), {})
        rows = tuple(map(jnp.asarray, (modules.X, modules.Y)))
        assert view.random
        assert check_minibatching(view, make_evaluation(view), rows, ()) == {"y"}
        flat = jnp.ones(view.dimension)
        values = [view.log_density(flat, rows, (), jax.random.key(k)) for k in (0, 1, 0)]
        assert values[0] == values[2] != values[1]


def test_random_numbers_that_tie_rows_together_are_refused():
    def shuffled(X, y):
        b = numpyro.sample("b", dist.Normal(0, 1).expand([FEATURES]).to_event(1))
        mixed = 0.5 * X + 0.5 * jax.random.permutation(numpyro.prng_key(), X)
        numpyro.sample("y", dist.Normal(mixed @ b, 1.0), obs=y)

    def standardised(X, y):
        dropout((X - X.mean(0)) / X.std(0), y)

    for model in (shuffled, standardised):
        with pytest.raises(ValueError, match=r"draws random numbers.*'y'.*for half of the rows"):
            seen(model)


def test_other_dynamics_are_refused_with_the_cure():
    for settings in ({"dynamics": "overdamped"}, {"gradient": "taylor"}):
        with pytest.raises(ValueError, match=r"draws random numbers.*dynamics='kinetic'"):
            SGWORLD(dropout, **settings).set_up(jax.random.key(0), X, Y)


def test_a_key_without_an_owner_belongs_to_point_and_rows():
    params, rows = {"b": jnp.arange(3.0)}, (jnp.ones((2, 3)), jnp.arange(2))
    key = lambda *x: int(jax.random.bits(key_at(*x)))  # noqa: E731
    here = key(params, rows)
    assert here == key(params, rows)
    assert here != key({"b": jnp.arange(3.0).at[1].add(1e-6)}, rows)
    assert here != key(params, (rows[0], rows[1] + 1))
    gradient = jax.grad(lambda b: jax.random.normal(key_at({"b": b}, rows)) * b.sum())(params["b"])
    assert np.isfinite(gradient).all()


class Recorder(Integrator):
    """Adds up the gradients that it is given."""

    name, normals = "recorder", 1

    def init(self, rng_key, position):
        return position

    def position(self, state):
        return state

    def step(self, state, gradient, normals, step_size, temperature):
        return state + gradient(state)

    def affine(self, step_size, hessian, temperature=1.0):
        raise NotImplementedError("no exact recursion is needed")


def test_every_step_has_a_key_of_its_own():
    def run(seed):
        drawn = []

        def gradient(position, index, key):
            jax.debug.callback(lambda x: drawn.append(float(x)), jax.random.normal(key))
            return jnp.zeros_like(position)

        options = {"integrator": Recorder(), "gradient": gradient, "step_size": 1.0}
        made = sweep(jax.random.key(seed), jnp.zeros(2), jnp.arange(20), random=True, **options)
        jax.block_until_ready(made.state)
        jax.effects_barrier()
        return drawn

    first, again, other = run(0), run(0), run(1)
    assert len(set(first)) == 20 and sorted(first) == sorted(again)
    assert not set(first) & set(other)


@pytest.mark.slow
def test_draws_are_those_of_the_averaged_log_density(tmp_path):
    settings = {"batch_size": 100, "step_size": 0.3, "friction": 1.0, "steps_per_draw": 40}
    run = {"num_samples": 400, "num_warmup": 20}
    mcmc = SGWORLD(dropout, **settings, **run)
    with pytest.warns(UserWarning):  # the step is too large on purpose
        mcmc.run(jax.random.key(0), X, Y)
    draws = np.asarray(mcmc.get_samples()["b"], float)
    mean, covariance = posterior()
    sd = np.sqrt(np.diag(covariance))
    # 1500 effective draws of a distribution that is wider by the white noise of the dropout.
    assert (abs(draws.mean(0) - mean) < 0.2 * sd).all()
    report = mcmc.bias_report()
    predicted = 1 + report.predicted_temperature_error
    assert predicted > 2.5
    # The prediction is an upper limit: the noise of the batches, which cancels within an epoch, is
    # taken for as white as that of the dropout.
    assert 0.5 < (np.mean(draws.var(0) / sd**2) - 1) / (predicted - 1) < 1.15
    assert "averaged over them" in str(report)
    path = tmp_path / "plan.npz"
    mcmc.save_plan(path)
    again = SGWORLD(dropout, plan=path, **run)
    with pytest.warns(UserWarning):
        again.run(jax.random.key(0), X, Y)
    np.testing.assert_array_equal(again.get_samples()["b"], mcmc.get_samples()["b"])


def made_from_a_key(key):
    return 0.1 + 0 * jax.random.normal(key)


def with_weight(initial):
    def model(X, y):
        offset = numpyro.param("offset", initial)
        b = numpyro.sample("b", dist.Normal(0, 1).expand([FEATURES]).to_event(1))
        keep = jax.random.bernoulli(numpyro.prng_key(), KEEP, X.shape) / KEEP
        with numpyro.plate("data", len(y)):
            numpyro.sample("y", dist.Normal((X * keep) @ b + offset, 1.0), obs=y)

    return model


def test_weights_without_a_prior_leave_a_model_random():
    """The random numbers were the same ones in every step, and the draws those of one dropout."""
    view, _ = seen(with_weight(0.1))
    assert view.random and view.sites["offset"].kind == "fixed"
    # A weight that comes from a key would be another one in every step.
    with pytest.raises(ValueError, match=r"draws random numbers.*\['offset'\] have no prior"):
        seen(with_weight(made_from_a_key))
    held = numpyro.handlers.substitute(with_weight(made_from_a_key), data={"offset": 0.1})
    assert seen(held)[0].random

    def idle(X, y):
        offset = numpyro.param("offset", made_from_a_key)
        numpyro.sample("b", dist.Normal(0, 1))
        numpyro.sample("y", dist.Normal(X.sum(1) + offset, 1.0), obs=y)

    assert not seen(idle)[0].random
