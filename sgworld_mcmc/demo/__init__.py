"""The demo: minibatch samplers, NUTS and Laplace side by side on real data."""

from sgworld_mcmc.demo.run import run

__all__ = ["run"]
