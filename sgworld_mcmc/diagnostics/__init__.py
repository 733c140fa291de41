"""Tools for after a run: conversion to ArviZ, pictures, and draws as named scalars."""

from sgworld_mcmc.diagnostics.arviz import to_arviz
from sgworld_mcmc.diagnostics.plots import plot_density, plot_trace
from sgworld_mcmc.diagnostics.scalars import as_chains, flatten_scalars, select_scalars

__all__ = [
    "as_chains",
    "flatten_scalars",
    "plot_density",
    "plot_trace",
    "select_scalars",
    "to_arviz",
]
