"""Chains with known answers, simulated side by side."""

import numpy as np
from scipy.linalg import solve_discrete_lyapunov


def simulate(transition, noise, steps, chains, seed):
    """(chains, steps, D) of x' = A x + N(0, V), from its stationary state."""
    rng = np.random.default_rng(seed)
    transition, noise = np.asarray(transition, float), np.asarray(noise, float)
    dim = len(transition)
    start = np.linalg.cholesky(solve_discrete_lyapunov(transition, noise))
    x = np.empty((steps, chains, dim))
    kicks = rng.standard_normal((steps, chains, dim))
    x[0] = kicks[0] @ start.T
    kicks = kicks @ np.linalg.cholesky(noise).T
    for k in range(1, steps):
        x[k] = x[k - 1] @ transition.T + kicks[k]
    return np.ascontiguousarray(x.swapaxes(0, 1))


def rotation(dim, seed):
    return np.linalg.qr(np.random.default_rng(seed).standard_normal((dim, dim)))[0]


def reversible(curvatures, step, seed=0):
    """Transition and noise of an exact discretised Gaussian in rotated axes: detailed balance."""
    axes = rotation(len(curvatures), seed)
    decay = np.exp(-step * np.asarray(curvatures, float))
    variance = 1 / np.asarray(curvatures, float)
    return axes * decay @ axes.T, axes * (variance * (1 - decay**2)) @ axes.T


def linearised_sgd(step):
    """Hessian and diffusion that do not commute, D = (h^2 / 2) C."""
    hessian = np.array([[1.0, 0.3, 0.0], [0.3, 5.0, 0.4], [0.0, 0.4, 0.5]])
    return hessian, step**2 / 2 * (np.ones((3, 3)) + 6 * np.eye(3))


def random_markov_chains(count, seed):
    """(count, m, m) transition matrices: every other one a driven ring, also driven hard."""
    rng = np.random.default_rng(seed)
    m = 5
    chains = []
    for k in range(count):
        p = rng.gamma(rng.choice([0.3, 1.0, 5.0]), size=(m, m)) + 1e-4
        if k % 2:
            forward, rest = 1 / (1 + np.exp(-rng.uniform(0, 6))), rng.uniform(0, 0.5)
            i = np.arange(m)
            p = np.zeros((m, m))
            p[i, (i + 1) % m], p[i, (i - 1) % m] = (1 - rest) * forward, (1 - rest) * (1 - forward)
            p[i, i] = rest
        chains.append(p / p.sum(axis=1, keepdims=True))
    return np.array(chains)


def joint_and_rate(p):
    """Stationary joint probability of a step, (m, m), and the exact production per step."""
    m = len(p)
    equations = np.concatenate([p.T - np.eye(m), np.ones((1, m))])
    stationary = np.linalg.lstsq(equations, np.r_[np.zeros(m), 1.0], rcond=None)[0]
    joint = stationary[:, None] * p
    used = joint > 0
    return joint, float(np.sum(joint[used] * np.log(joint[used] / joint.T[used])))


def simulate_states(matrices, steps, seed):
    """(chains, steps) states of several Markov chains side by side."""
    rng = np.random.default_rng(seed)
    cumulative = matrices.cumsum(axis=2)
    which = np.arange(len(matrices))
    state = rng.integers(matrices.shape[1], size=len(matrices))
    out = np.empty((steps, len(matrices)), int)
    for k, u in enumerate(rng.random((steps + 200, len(matrices)))):
        state = np.minimum(
            (cumulative[which, state] < u[:, None]).sum(axis=1), matrices.shape[1] - 1
        )
        if k >= 200:
            out[k - 200] = state
    return out.T
