"""The demo compares minibatch samplers, NUTS and Laplace on real data."""

from sgworld_mcmc.demo.run import run

__all__ = ["run"]
