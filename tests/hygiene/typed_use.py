"""A program of a user, whose types pyright checks (`make hygiene`); it is not run.

What the package returns must not be of an unknown type: each ``assert_type`` fails if it is.
"""

from typing import assert_type

import jax
import jax.numpy as jnp
import numpy as np
from numpyro.infer import MCMC

import sgworld_mcmc as sg
from sgworld_mcmc import SGLD, SGWORLD, audit, exact, nonequilibrium


def inference(model, X: np.ndarray, y: np.ndarray) -> None:
    mcmc = SGWORLD(model, num_samples=500, batch_size=100, order="symmetric", step_size="auto")
    mcmc.run(jax.random.key(0), X, y)
    mcmc.print_summary()
    other = SGLD(model, step_size=1e-3, gradient="plain")
    assert_type(mcmc, SGWORLD)
    assert_type(other, SGLD)
    own: MCMC = MCMC(mcmc.sampler, num_warmup=10, num_samples=10)
    own.run(jax.random.key(1), X, y)
    plan = mcmc.plan
    if plan is not None:
        assert_type(plan.step_size, float)
        assert_type(plan.num_batches, int)
    report = audit(model, {"beta": np.zeros((4, 100, 3))}, X, y)
    assert_type(report, sg.AuditReport)
    assert_type(report.passed, bool)


def kernels(estimator, data: jax.Array) -> None:
    algorithms = (
        sg.sgworld(estimator, data, batch_size=100, step_size=1e-3),
        sg.ubu(estimator, data, batch_size=100, step_size=1e-2, friction=2.0),
        sg.sgd(estimator, data, batch_size=100, learning_rate=1e-3),
    )
    for algorithm in algorithms:
        state = algorithm.init(jnp.zeros(3), jax.random.key(0))
        state, _ = algorithm.step(jax.random.key(1), state)
        print(jax.tree.leaves(state))  # BlackJAX's own types know no `position`


def posteriors() -> None:
    target = exact.LinearRegression(num_data=100, dim=3)
    draws = target.sample(jax.random.key(0), 1000)
    error = target.compare(draws)
    print(error.to_dict()["mean_error"])
    print(target.mean, target.covariance, target.log_prob(target.mean))


def physics(trajectory: np.ndarray, hessian: np.ndarray) -> None:
    noise = np.eye(len(hessian))
    covariance = nonequilibrium.stationary_covariance(hessian, noise, 0.1)
    circulation = nonequilibrium.circulation_matrix(hessian, covariance, 0.1)
    rate = nonequilibrium.entropy_production_rate(circulation, covariance, noise)
    assert_type(rate, float)
    violation = nonequilibrium.detailed_balance_violation(trajectory, lags=(1, 2))
    print(violation.p_value, nonequilibrium.areal_velocity(trajectory).shape)
