"""Runs that survive: a folder with the plan, the states of the chains, and the draws so far.

The folder of a run holds

* ``run.json``: what was asked, by which another run is refused (:mod:`.request`),
* ``plan.npz``: the set-up, as ``mcmc.save_plan`` writes it,
* ``states/``: the states of the chains, written by orbax (:mod:`.states`),
* ``draws.zarr``: the draws, in ArviZ's groups, and ``checks.zarr``: what only the checks of the
  draws need (:mod:`.draws_store`),
* ``lock``: held by the process that is at work (:mod:`.folder`).

Draws are appended, and only then the state after them is committed, by a rename. What a process
that was killed has written beyond the last state does not count and is written again.
"""
