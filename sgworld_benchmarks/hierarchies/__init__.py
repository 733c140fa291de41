"""``sgworld-mcmc benchmark hierarchies``."""

from sgworld_benchmarks.hierarchies.run import add_arguments, run_cli

__all__ = ["add_arguments", "run_cli"]
