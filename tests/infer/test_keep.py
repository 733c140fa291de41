"""What is kept of a draw, and the quantities by which draws are judged."""

import pickle

import jax
import jax.numpy as jnp
import models
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from numpyro.infer import Predictive

from sgworld_mcmc import SGWORLD

KEY = jax.random.key(0)
X, Y = models.regression_data()
# Nothing is searched or measured.
QUICK = {"step_size": 0.1, "gradient": "plain", "batch_size": 50, "preconditioner": "none"}
RUN = {"num_samples": 40, "num_warmup": 2, "num_chains": 2, **QUICK, "start": "given"}
START = {"b": jnp.array([1.0, -0.5, 0.2]), "s": jnp.array(-0.7)}


def model(X, y=None):
    b = numpyro.sample("b", dist.Normal(0, 1).expand([3]).to_event(1))
    s = numpyro.sample("s", dist.HalfNormal(1))
    mean = numpyro.deterministic("mean", X @ b)
    with numpyro.plate("data", len(X)):
        numpyro.sample("y", dist.Normal(mean, s), obs=y)


def few(sites):
    return {"largest": sites["b"].max(), "b": sites["b"][:2], "pair": (sites["s"], sites["s"] ** 2)}


def run(*, step_size=1e-3, key=KEY, **settings):
    mcmc = SGWORLD(model, **{**RUN, "step_size": step_size, **settings})
    mcmc.run(key, X, Y, init_params=START)
    return mcmc


@pytest.fixture(scope="module")
def whole():
    return run()


@pytest.mark.slow
@pytest.mark.parametrize("method", ["vectorized", "sequential"])
def test_what_is_kept_is_the_function_of_the_same_draws(whole, method):
    mcmc = run(keep=few, chain_method=method)
    expected = jax.vmap(jax.vmap(few))(whole.get_samples(group_by_chain=True))
    got = mcmc.get_samples(group_by_chain=True)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5), got, expected)
    assert mcmc.get_samples()["pair"][1].shape == (80,)


@pytest.mark.slow
def test_thinning_resuming_and_pickling(whole):
    expected = whole.get_samples(group_by_chain=True)["b"][:, :, 0]
    keep = lambda sites: sites["b"][0]  # noqa: E731
    thinned = run(keep=keep, thinning=4).get_samples(group_by_chain=True)["kept"]
    np.testing.assert_allclose(thinned, expected[:, 3::4], rtol=1e-5)
    mcmc = run(keep=few, num_samples=20)
    first = mcmc.get_samples(group_by_chain=True)["b"]
    mcmc.post_warmup_state = mcmc.last_state
    mcmc.run(mcmc.last_state.rng_key, X, Y)
    both = np.concatenate([first, mcmc.get_samples(group_by_chain=True)["b"]], axis=1)
    np.testing.assert_allclose(both[:, :, 0], expected, rtol=1e-5)
    again = pickle.loads(pickle.dumps(mcmc))
    assert again.get_samples()["largest"].shape == (40,)
    again.print_summary()


@pytest.mark.slow
def test_summaries_show_what_is_kept(whole, capsys):
    mcmc = run(keep=few)
    mcmc.print_summary()
    shown = capsys.readouterr().out
    for name in ("largest", "b[1]", "pair.0", "pair.1", "divergences: 0"):
        assert name in shown
    with pytest.warns(UserWarning, match=r"latent sites \['b', 's'\] have no draws"):
        idata = mcmc.to_arviz()
    assert set(idata["posterior"].data_vars) == {"largest", "b", "pair.0", "pair.1"}
    assert idata["posterior"]["b"].shape == (2, 40, 2)
    np.testing.assert_array_equal(idata["observed_data"]["y"], Y)
    # Latent sites that are kept whole serve all that their draws serve.
    mcmc = run(keep=lambda sites: {**sites, "large": sites["s"] > 0.5})
    assert mcmc.to_arviz()["log_likelihood"]["y"].shape == (2, 40, len(Y))
    draws = mcmc.get_samples()
    made = Predictive(model, {name: draws[name] for name in ("b", "s")})(KEY, X[:7])
    assert made["y"].shape == (80, 7)


@pytest.mark.slow
def test_sites_that_are_not_kept_are_not_computed():
    def program(keep):
        mcmc = SGWORLD(with_cost, **{**RUN, "num_chains": 1}, keep=keep)
        mcmc.set_up(KEY, X, Y, init_params=START)
        transform = mcmc.sampler.postprocess_fn((mcmc.data,), {})
        return jax.jit(transform).lower(START).compile().as_text()

    def with_cost(X, y=None):
        model(X, y)
        numpyro.deterministic("costly", jnp.linalg.eigvalsh(X.T @ X))

    assert "custom-call" in program(lambda sites: {"e": sites["costly"]})
    assert "custom-call" not in program(lambda sites: {"b": sites["b"]})


@pytest.mark.parametrize("name", ["keep", "quantities"])
def test_errors_of_the_users_functions_name_the_sites(name):
    def fails(sites):
        return {"x": sites["beta"]}

    def in_numpy(sites):
        return np.asarray(sites["b"]).mean()

    for function in (fails, in_numpy):
        with pytest.raises(TypeError, match=rf"`{name}` fails.*b \(3,\), mean \(203,\), s \(\)"):
            SGWORLD(model, **RUN, **{name: function}).run(KEY, X, Y, init_params=START)
    for value in (None, {}, "text"):
        with pytest.raises(TypeError, match=rf"`{name}` (returns no numbers|fails)"):
            SGWORLD(model, **RUN, **{name: lambda sites, v=value: v}).set_up(
                KEY, X, Y, init_params=START
            )
    with pytest.raises(TypeError, match=f"`{name}` must be a function"):
        SGWORLD(model, **{name: "b"})


@pytest.mark.slow
def test_quantities_of_a_model_with_a_mode(tmp_path):
    def quantities(sites):
        return {"ratio": sites["b"][0] / sites["s"], "at": sites["mean"][:3]}

    mcmc = SGWORLD(model, num_samples=200, num_chains=2, quantities=quantities)
    mcmc.run(KEY, X, Y)
    draws = mcmc.get_samples(group_by_chain=True)
    found = mcmc.quantities()
    np.testing.assert_allclose(found["ratio"], draws["b"][..., 0] / draws["s"], rtol=1e-5)
    np.testing.assert_allclose(found["at"], draws["mean"][..., :3], rtol=1e-5, atol=1e-6)
    report = mcmc.bias_report()
    assert report.quantities.names == ("at[0]", "at[1]", "at[2]", "ratio")
    assert (report.quantities.r_hat < 1.1).all() and (report.quantities.ess > 40).all()
    assert "Quantities (4 numbers): R-hat at most 1.0" in str(report)
    # They are no part of a plan: another run may ask for others.
    path = tmp_path / "plan.npz"
    mcmc.save_plan(path)
    again = SGWORLD(model, num_samples=200, num_chains=2, plan=path, keep=quantities)
    again.run(KEY, X, Y)
    np.testing.assert_allclose(again.get_samples(True)["ratio"], found["ratio"], rtol=1e-5)


def test_what_is_kept_and_not_finite_is_said():
    with pytest.warns(UserWarning, match=r"`keep` returned is not finite in `log` \(1 of its"):
        run(keep=lambda sites: {"log": jnp.log(sites["s"] - 100), "b": sites["b"]})


@pytest.mark.slow
def test_quantities_that_are_not_finite_are_said_in_warning_and_report():
    def quantities(sites):
        return {"log": jnp.log(sites["b"][1]), "constant": 0 * sites["s"], "s": sites["s"]}

    with pytest.warns(UserWarning, match=r"`quantities` returned is not finite in `log` \(1 of"):
        mcmc = SGWORLD(model, num_samples=100, num_chains=2, quantities=quantities)
        mcmc.run(KEY, X, Y)
    found = mcmc.bias_report().quantities
    assert found.names == ("constant", "log", "s")
    np.testing.assert_array_equal(np.isnan(found.r_hat), [False, True, False])
    np.testing.assert_array_equal(np.isnan(found.ess), [True, True, False])
    assert "effective draws (s), 1 not finite at some draws (log)" in str(found)
