"""Stochastic-gradient MCMC without replacement for NumPyro models, with the bias measured."""

__version__ = "0.1.0"
