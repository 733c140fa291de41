"""Python on the data inside a model: its answers are those of all rows, in every minibatch."""

import jax
import jax.numpy as jnp
import models
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest

from sgworld_mcmc import SGWORLD
from sgworld_mcmc.model.inspection import minibatch_model
from sgworld_mcmc.model.python_values import WithAnswers

KEY = jax.random.key(0)
X, Y = models.regression_data()
GROUP = np.random.default_rng(1).integers(0, 7, len(Y))
GROUP[:2] = 0, 6
QUICK = {"num_samples": 20, "num_warmup": 2, "num_chains": 2, "step_size": 0.1, "gradient": "plain"}


def groups(count, group, y):
    with numpyro.plate("groups", count):
        a = numpyro.sample("a", dist.Normal(0, 1))
    with numpyro.plate("rows", len(y)):
        numpyro.sample("y", dist.Normal(a[group], 1), obs=y)


QUESTIONS = {
    "unique": lambda group: len(np.unique(group)),
    "int": lambda group: int(group.max()) + 1,
    "of jnp": lambda group: int(jnp.max(group)) + 1,
    "index": lambda group: len(range(group.max() + 1)),
    "item": lambda group: group.max().item() + 1,
    "list": lambda group: len(set(group.tolist())),
    "numpy": lambda group: np.asarray(group).max() + 1,
    "float": lambda group: round(float(group.max())) + 1,
    "bool": lambda group: 7 if (group < 7).all() and bool((group == 6).any()) else 3,
    "two": lambda group: int(group.max()) - int(group.min()) + 1,
}


@pytest.mark.parametrize("question", QUESTIONS)
def test_the_answers_are_those_of_all_rows(question):
    model = lambda group, y: groups(QUESTIONS[question](group), group, y)  # noqa: E731
    seen = minibatch_model(model, (GROUP, Y), {})
    assert isinstance(seen.model, WithAnswers)
    assert seen.shapes == {"a": (7,)} and seen.size == len(Y)
    # A minibatch in which most groups are missing.
    few = (jnp.asarray(GROUP[:2]), jnp.asarray(Y[:2]))
    flat = jnp.arange(7.0) / 7
    found = jax.jit(seen.log_density)(flat, few, ())
    prior = dist.Normal(0, 1).log_prob(flat).sum()
    rows = dist.Normal(flat[GROUP[:2]], 1).log_prob(Y[:2]).sum()
    np.testing.assert_allclose(found, prior + len(Y) / 2 * rows, rtol=1e-5)


@pytest.mark.slow
def test_draws_are_those_of_the_model_with_the_number_given():
    asking = SGWORLD(
        lambda group, y: groups(len(np.unique(group)), group, y), batch_size=20, **QUICK
    )
    asking.run(KEY, GROUP, Y)
    given = SGWORLD(lambda group, y: groups(7, group, y), batch_size=20, **QUICK)
    given.run(KEY, GROUP, Y)
    np.testing.assert_array_equal(asking.get_samples()["a"], given.get_samples()["a"])
    # Other data give other answers.
    fewer = np.minimum(GROUP, 4)
    asking.run(KEY, fewer, Y)
    assert asking.get_samples()["a"].shape == (40, 5)
    assert asking.to_arviz()["log_likelihood"]["y"].shape == (2, 20, len(Y))


def test_data_with_the_same_answers_share_the_compiled_programs():
    mcmc = SGWORLD(lambda group, y: groups(int(group.max()) + 1, group, y), batch_size=20, **QUICK)
    mcmc.run(KEY, GROUP, Y)
    model = mcmc.data.model
    mcmc.run(KEY, GROUP[::-1].copy(), Y)
    assert mcmc.data.model is model


def test_a_decision_on_a_latent_value_is_an_error():
    def model(y):
        mu = numpyro.sample("mu", dist.Normal(0, 1))
        numpyro.sample("y", dist.Normal(mu if mu > 0 else 0.0, 1), obs=y)

    with pytest.raises(jax.errors.ConcretizationTypeError) as caught:
        SGWORLD(model, **QUICK).run(KEY, Y)
    assert "y float32 (203,)" in "".join(caught.value.__notes__)


def test_a_statistic_of_all_rows_that_is_no_sum_is_found_out():
    """The model means another thing on half of the rows: nothing but the check sees it."""

    def model(y):
        mu = numpyro.sample("mu", dist.Normal(0, 1))
        numpyro.sample("y", dist.Normal(mu, 1 + float(y.max() - y.min())), obs=y - y.mean())

    with pytest.raises(ValueError, match="does not add up"):
        SGWORLD(model, batch_size=20, **QUICK).run(KEY, Y)
