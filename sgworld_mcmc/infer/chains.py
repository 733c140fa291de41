"""The chains of a run: NumPyro asks for each of them here, and what they made is kept."""

from typing import Any

import jax
import numpy as np

from sgworld_mcmc.arrays import reshaped
from sgworld_mcmc.checkpoint.stored_draws import StoredDraws
from sgworld_mcmc.infer.checkpointed import CheckpointedMCMC
from sgworld_mcmc.interrupts import Interrupts
from sgworld_mcmc.progress import Reporter, stage
from sgworld_mcmc.sampling.collection import Collected, Collection
from sgworld_mcmc.sampling.program import first_draws

__all__ = ["ChainInterrupted", "ChainsMCMC"]


class ChainInterrupted(Exception):
    """Raised to leave NumPyro's loop over chains when a run is interrupted."""


class ChainsMCMC(CheckpointedMCMC):
    """The part of :class:`~sgworld_mcmc.infer.mcmc.MinibatchMCMC` that makes and keeps chains."""

    # The state of a run while it lasts, with the draws and the last states of its chains: one pair
    # for all of them, or one for each if they are made one after the other.
    _interrupts: Interrupts | None = None
    _reporter: Reporter | None = None
    _chains: list[tuple[dict, Any]]
    # Chains that are made one after the other write their draws into the same arrays.
    _shared: Collected | None = None

    def _single_chain_mcmc(self, init, args, kwargs, collect_fields, remove_sites):
        rng_key, state, init_params = init
        self._last_fields = collect_fields
        # Chains that are made one after the other come here one by one.
        several = self.chain_method == "sequential" and self.num_chains > 1
        number, count = (len(self._chains), self.num_chains) if several else (0, 1)
        self._reporter.portion = number, count
        stage("compiling")
        if state is None:
            state = self.sampler.init(
                rng_key, self.num_warmup, init_params, model_args=args, model_kwargs=kwargs
            )
        lower, upper = self._collection_params["lower"], self._collection_params["upper"]
        before, each = self._calls()
        collection = Collection(
            calls=lower * before,
            draws=(upper - lower) // self.thinning,
            thinning=self.thinning * each,
            fields=collect_fields,
            removed=remove_sites,
            vectorized=self._is_vectorized,
            room=self._room,
            chain=number,
            chains=count if several else 0,
        )
        # A warm-up that is collected cannot be cut short: it would be taken for a whole one.
        interrupts = None if self._collection_params["phase"] == "warmup" else self._interrupts
        found = self._collect(
            state,
            args,
            kwargs,
            sampler=self.sampler,
            collection=collection,
            postprocess=self.postprocess_fn,
            numbers=self._numbers(),
            interrupts=interrupts,
            portions=self._portions(self.data),
            buffers=None if self._shared is None else self._shared.buffers,
        )
        if any(isinstance(leaf, jax.core.Tracer) for leaf in jax.tree.leaves(found.state)):
            return found.draws, found.state
        whole = found.made == collection.draws
        if whole or number == 0:  # all chains must have the same number of draws
            self._chains.append((found.draws, found.state))
        if several and collection.draws:
            made = found.made if number == 0 else self._shared.made
            self._shared = found._replace(made=made, state=None)
        if several and self._interrupts.asked:
            raise ChainInterrupted
        # NumPyro would compile programs that put the draws in order.
        return {}, found.state

    def _ask_again(self) -> None:
        """Ask for all draws and chains again after a run that was interrupted."""
        if self._asked is None:
            return
        self.num_samples, self.num_chains = self._asked
        if self._warmup_state is None:
            self._asked = None
        else:  # the run goes on with the chains that were kept
            self.num_chains = np.size(self._warmup_state.i)

    def _keep_draws(self) -> None:
        """Keep the draws with an axis of chains, and then one of draws, as NumPyro does."""
        if not self._chains:  # they were made inside of a transformation: NumPyro has them
            return
        if self._saved is not None and self._saved.on_disk:
            made = self._saved.made if self._shared is None else self._shared.made
            self._states = self._saved.draws(made, self._kept_chains)
            self._states_flat = self._shared = None
            return
        first, _ = self._chains[0]
        if self._shared is not None:  # chains that were made one after the other
            made, chains = self._shared.made, len(self._chains)
            self._states = first_draws(first_draws(self._shared.buffers, chains, 0), made, 1)
        elif self._is_vectorized:
            self._states = first
        else:
            self._states = jax.tree.map(lambda x: reshaped(x, (1, *x.shape)), first)
        self._states_flat = self._shared = None

    def _get_states_flat(self) -> dict:
        # NumPyro's own method compiles a program for each shape.
        if isinstance(self._states, StoredDraws):
            return self._states.flat()
        if self._states_flat is None:
            flat = lambda x: reshaped(x, (-1, *x.shape[2:]))  # noqa: E731
            wide = any(x.dtype in (np.float64, np.int64) for x in jax.tree.leaves(self._states))
            with jax.enable_x64(wide or bool(jax.config.jax_enable_x64)):  # else they are rounded
                self._states_flat = jax.tree.map(flat, self._states)
        return self._states_flat

    @property
    def _kept_chains(self) -> int:
        return self.num_chains if self._is_vectorized else len(self._chains)

    @property
    def _is_vectorized(self) -> bool:
        return self.chain_method == "vectorized" and self.num_chains > 1

    def _what_is_kept(self) -> str:
        """Return a warning of what an interrupted run has kept; make the settings agree with it."""
        chains, draws = np.shape(self._states["diverging"])
        number, count = self.num_samples // self.thinning, self.num_chains
        if (draws, chains) != (number, count):
            self._asked = self._asked or (self.num_samples, self.num_chains)
            self.num_samples, self.num_chains = draws * self.thinning, chains
        return (
            f"The run was {self._interrupts.reason}: {draws} of {number} draws of {chains} of "
            f"{count} chains are kept, unchecked. {self._how_to_continue()}"
        )

    def _what_is_lost(self) -> str:
        """Return a note of where a run was interrupted that leaves no draws."""
        where, seconds = self._reporter.name or "beginning", self._reporter.seconds
        old = "" if self._states is None else ", and get_samples() has those of an earlier run"
        on = "" if self._saved is None else f" {self._how_to_continue()}"
        return f"Interrupted after {seconds:.1f} s ({where}): no draws are kept{old}.{on}"
