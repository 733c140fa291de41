"""Models with modules of Flax and Equinox: what is sampled, and what is a sum over rows."""

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from numpyro.infer import Predictive

pytest.importorskip("flax")
pytest.importorskip("equinox")

import modules

from sgworld_mcmc import SGWORLD
from sgworld_mcmc.model.additivity import check_minibatching, make_evaluation
from sgworld_mcmc.model.inspection import minibatch_model

X, Y = modules.X, modules.Y


def seen(model, *data):
    """Return a model as the sampler sees it, and its sites that add up over the rows."""
    data = data or (X, Y)
    view = minibatch_model(model, data, {})
    rows = jax.tree.map(jnp.asarray, data)
    return view, check_minibatching(view, make_evaluation(view), rows, ())


PLAIN = {
    "linen": (modules.of_linen(), "net/Dense_0.kernel"),
    "linen with LayerNorm": (modules.of_linen(norm="layer"), "net/LayerNorm_0.scale"),
    "linen with GroupNorm": (modules.of_linen(norm="group"), "net/GroupNorm_0.scale"),
    "nnx": (modules.of_nnx(), "net/first.kernel"),
    "nnx with LayerNorm": (modules.of_nnx(norm="layer"), "net/norm.scale"),
    "equinox": (modules.of_equinox(), "net/first.weight"),
}


@pytest.mark.parametrize("name", PLAIN)
def test_weights_are_latent_sites_and_rows_add_up(name):
    model, site = PLAIN[name]
    view, additive = seen(model)
    assert site in view.latents and additive == {"y"}
    # Flax asks for a key to make initial weights, on which nothing depends.
    assert not view.random
    assert not any(site.kind in ("fixed", "mutable") for site in view.sites.values())


@pytest.mark.slow
def test_a_group_of_two_features_has_minibatches_in_a_run_too():
    """Where two features are nearly equal, its variance has few digits in double precision."""
    settings = {"step_size": 0.1, "gradient": "plain", "batch_size": 20, "start": "given"}
    mcmc = SGWORLD(PLAIN["linen with GroupNorm"][0], **settings)
    view, _ = seen(PLAIN["linen with GroupNorm"][0])
    points = {name: jnp.full(view.shapes[name], 0.1) for name in view.latents}
    assert mcmc.set_up(jax.random.key(0), X, Y, init_params=points).num_batches == 3


def test_statistics_that_do_not_change_are_no_obstacle():
    view, additive = seen(modules.of_linen(norm="batch", running=True, mutable=["batch_stats"]))
    assert additive == {"y"} and view.sites["net$state"].kind == "mutable"


BATCH_NORM = {
    "linen": modules.of_linen(norm="batch", mutable=["batch_stats"]),
    "nnx": modules.of_nnx(norm="batch"),
    "equinox": modules.normalised_equinox,
}


@pytest.mark.parametrize("kind", BATCH_NORM)
def test_batch_norm_is_refused_with_the_reason_and_a_cure(kind):
    with pytest.raises(ValueError, match=r"rows of a batch depend on each other.*net\$state") as e:
        SGWORLD(BATCH_NORM[kind]).set_up(jax.random.key(0), X, Y)
    assert "LayerNorm or GroupNorm" in str(e.value)


def test_weights_without_a_prior_are_named():
    settings = {"num_samples": 20, "step_size": 0.1, "gradient": "plain", "batch_size": 20}
    with pytest.warns(UserWarning, match=r"net/Dense_0.kernel.*have no prior"):
        SGWORLD(modules.without_prior, **settings).set_up(jax.random.key(0), X, Y)
    prior = {"first.kernel": modules.PRIOR}
    view, additive = seen(modules.of_nnx(prior=prior))
    fixed = {name for name, site in view.sites.items() if site.kind == "fixed"}
    assert fixed == {"net/first.bias", "net/last.kernel", "net/last.bias"}
    assert view.latents == ("net/first.kernel",) and additive == {"y"}


def test_a_convolution_in_plain_jax():
    rng = np.random.default_rng(1)
    # A convolution takes images and kernel of one type: that of the parameters.
    images = rng.normal(size=(40, 6, 6, 1)).astype(jnp.result_type(float))
    view, additive = seen(modules.convolution, images, rng.integers(0, 3, 40))
    assert additive == {"y"} and view.dimension == 24


def test_functions_that_do_not_mix_precisions_are_set_up_in_single_precision(tmp_path):
    with jax.enable_x64(False):  # in double precision JAX refuses the model itself
        rng = np.random.default_rng(1)
        data = rng.normal(size=(40, 6, 6, 1)).astype(np.float32), rng.integers(0, 3, 40)
        settings = {"batch_size": 10, "step_size": 0.05, "gradient": "plain", "start": "given"}
        points = {"kernel": np.full((3, 3, 1, 2), 0.1), "weights": np.full((2, 3), 0.1)}
        mcmc = SGWORLD(modules.convolution, **settings)
        mcmc.set_up(jax.random.key(0), *data, init_params=points)
        assert not mcmc.data.model.precise and mcmc.plan.num_batches == 4
        mcmc.save_plan(tmp_path / "plan.npz")
        again = SGWORLD(modules.convolution, plan=tmp_path / "plan.npz")
        assert again.set_up(jax.random.key(1), *data).num_batches == 4


@pytest.mark.slow
@pytest.mark.parametrize("name", ["linen", "nnx", "equinox"])
def test_draws_reach_predictions_and_arviz_under_the_modules_names(name):
    model, site = PLAIN[name]
    settings = {"batch_size": 20, "step_size": 0.05, "gradient": "plain", "start": "given"}
    view, _ = seen(model)
    points = {name: jnp.full(view.shapes[name], 0.1) for name in view.latents}
    mcmc = SGWORLD(model, num_samples=20, num_warmup=2, num_chains=2, **settings)
    mcmc.run(jax.random.key(0), X, Y, init_params=points)
    draws = mcmc.get_samples()
    assert draws[site].shape == (40, *view.shapes[site])
    made = Predictive(model, draws)(jax.random.key(1), X[:5])["y"]
    # The weights are those of the draws: the same sites by hand give the same means.
    trace = numpyro.handlers.trace(
        numpyro.handlers.substitute(
            numpyro.handlers.seed(model, jax.random.key(2)), {k: v[0] for k, v in draws.items()}
        )
    ).get_trace(X[:5])
    assert made.shape == (40, 5) and abs(made[0] - trace["y"]["fn"].mean).max() < 6 * 0.3
    idata = mcmc.to_arviz()
    by_hand = dist.Normal(trace["y"]["fn"].mean, 0.3).log_prob(Y[:5])
    np.testing.assert_allclose(idata["log_likelihood"]["y"][0, 0, :5], by_hand, rtol=1e-4)
    assert set(draws) == set(idata["posterior"].data_vars)


def test_keys_of_a_dict_of_priors_that_fit_no_weight_are_said():
    flax = pytest.importorskip("flax")
    from numpyro.contrib.module import random_flax_module

    def model(X, y):
        priors = {"Dense_0.kernel": dist.Normal(0, 1)}  # the module is one layer: its key is kernel
        net = random_flax_module("net", flax.linen.Dense(1), priors, input_shape=(1, 3))
        numpyro.sample("y", dist.Normal(net(X)[:, 0], 1.0), obs=y)

    with pytest.raises(
        ValueError, match=r"nothing to sample. The weights \['net/bias', 'net/kernel'\]"
    ):
        SGWORLD(model).run(jax.random.key(0), np.ones((20, 3), np.float32), np.ones(20))
