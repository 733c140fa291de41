"""Samplers as BlackJAX-style kernels: ``init``, ``build_kernel`` and a top-level API each."""

from blackjax import GenerateSamplingAPI

from sgworld_mcmc.kernels import sgd as _sgd
from sgworld_mcmc.kernels import sgld as _sgld
from sgworld_mcmc.kernels import sgworld as _sgworld
from sgworld_mcmc.kernels import ubu as _ubu
from sgworld_mcmc.kernels.sgd import SGDInfo, SGDState
from sgworld_mcmc.kernels.sgld import SGLDInfo, SGLDState
from sgworld_mcmc.kernels.sgworld import SGWORLDInfo, SGWORLDState
from sgworld_mcmc.kernels.ubu import UBUInfo, UBUState

__all__ = [
    "SGDInfo",
    "SGDState",
    "SGLDInfo",
    "SGLDState",
    "SGWORLDInfo",
    "SGWORLDState",
    "UBUInfo",
    "UBUState",
    "sgd",
    "sgld",
    "sgworld",
    "ubu",
]

sgd = GenerateSamplingAPI(_sgd.as_top_level_api, _sgd.init, _sgd.build_kernel)
sgld = GenerateSamplingAPI(_sgld.as_top_level_api, _sgld.init, _sgld.build_kernel)
sgworld = GenerateSamplingAPI(_sgworld.as_top_level_api, _sgworld.init, _sgworld.build_kernel)
ubu = GenerateSamplingAPI(_ubu.as_top_level_api, _ubu.init, _ubu.build_kernel)
