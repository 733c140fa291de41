"""The base class of SGWORLD and SGLD, a NumPyro ``MCMC`` that lays the data out."""

import os
import warnings

import jax
import jax.numpy as jnp
from numpyro.util import is_prng_key

from sgworld_mcmc.checks import check_choice, check_integer, check_key
from sgworld_mcmc.hosts import is_of_lost_host
from sgworld_mcmc.infer.chains import ChainInterrupted, ChainsMCMC
from sgworld_mcmc.infer.extra_fields import CHECKS, check_extra_fields
from sgworld_mcmc.infer.kernel import SGMCMCKernel
from sgworld_mcmc.infer.run_warnings import DivergenceWarning, TuningWarning
from sgworld_mcmc.infer.set_up import SetUp
from sgworld_mcmc.interrupts import InterruptedWarning, Interrupts
from sgworld_mcmc.model.user_data import UserData
from sgworld_mcmc.progress import reporting, stage
from sgworld_mcmc.report.divergence import divergence_note
from sgworld_mcmc.setup.initial_points import check_start
from sgworld_mcmc.setup.run_plan import RunPlan

__all__ = ["MinibatchMCMC"]


_NOT_PICKLED = (
    *("_checked", "_drawn_with", "_interrupts", "_reporter", "_shared"),
    *("_folder", "_saved", "_request"),
)


class MinibatchMCMC(ChainsMCMC):
    """The base class of :class:`SGWORLD` and :class:`SGLD`: NumPyro's ``MCMC``, with a plan."""

    def __init__(
        self,
        sampler: SGMCMCKernel,
        *,
        num_samples: int = 1000,
        num_warmup: int = 100,
        num_chains: int = 4,
        thinning: int = 1,
        chain_method: str = "vectorized",
        progress_bar: bool | None = None,
        plan: RunPlan | str | os.PathLike | None = None,
    ) -> None:
        check_integer("num_chains", num_chains, 1)
        check_integer("num_samples", num_samples, 1)
        check_integer("num_warmup", num_warmup, 0)
        check_integer("thinning", thinning, 1, num_samples)
        if not callable(chain_method):
            check_choice("chain_method", chain_method, ("vectorized", "sequential", "parallel"))
        if not (progress_bar is None or isinstance(progress_bar, bool)):
            raise TypeError(f"`progress_bar` must be True, False or None, not {progress_bar!r}.")
        super().__init__(
            sampler,
            num_warmup=num_warmup,
            num_samples=num_samples,
            num_chains=num_chains,
            thinning=thinning,
            chain_method=chain_method,
            progress_bar=False,  # with NumPyro's own bar every draw would be a call of its own
            jit_model_args=True,
        )
        self.progress_bar = progress_bar
        self._args, self._kwargs = (), {}
        self._setup = SetUp(sampler, plan)
        self._chains = []

    def __getstate__(self):
        return super().__getstate__() | dict.fromkeys(_NOT_PICKLED)

    def run(
        self,
        rng_key,
        *args,
        extra_fields=(),
        init_params=None,
        checkpoint=None,
        every=60.0,
        resume=False,
        draws="memory",
        **kwargs,
    ):
        """Sample the posterior; the arguments are those of ``numpyro.infer.MCMC.run``.

        Parameters
        ----------
        rng_key
            Random key that decides partition, orders, initial points and noise. To continue a run,
            set ``mcmc.post_warmup_state = mcmc.last_state`` and call
            ``mcmc.run(mcmc.last_state.rng_key, ...)``: the draws are those of one longer run (up
            to rounding, if only the longer run is long enough to be compiled for speed).
        *args, **kwargs
            The model's own arguments; the arrays among them whose leading axis is that of the
            observations are the data. Frames and columns of pandas and others, lists of numbers
            and sparse matrices are read as arrays (docs/using.md).
        extra_fields
            Names of further fields of :class:`~sgworld_mcmc.sampling.chain.SGMCMCState` to collect;
            ``"potential_energy"``, minus the log density of all rows, is computed if asked for.
        init_params
            Dict of *unconstrained* initial values by latent site; with several chains, their axis
            comes first.
        checkpoint
            Folder in which the run is saved while it lasts (docs/big_data.md, *Runs that survive*);
            None for none. Needs ``pip install 'sgworld-mcmc[checkpoints]'``.
        every
            Seconds between two checkpoints. A checkpoint takes some hundredths of a second, of
            which the chains notice little: a minute loses hardly anything either way.
        resume
            Whether to go on with the run in the folder, bit for bit as if it had never ended. If
            there is none yet, the run begins; a finished one returns its draws.
        draws
            ``"disk"`` leaves the draws in the folder, so that the memory of the run does not grow
            with their number; ``"memory"`` is as without checkpoint.

        Raises
        ------
        ValueError, TypeError
            If the model or the arguments cannot be sampled. The error is raised before the first
            step; the message names the site or argument and says what to change. So is that of a
            checkpoint which is one of another run.
        FileExistsError, OSError, RuntimeError
            If the folder of the checkpoint holds something already, cannot be written, or is in use
            by another process.
        KeyboardInterrupt
            If Ctrl-C is pressed before the first draw, or twice. Once there are draws, Ctrl-C ends
            the run with an :class:`InterruptedWarning`, and they are kept.

        Notes
        -----
        A second run on the same arrays needs no set-up. Partition, coordinates and settings stay
        those of the first run with these data, whose key decided them; the new key decides orders,
        starts and noise. The arrays must be the same objects (frames, lists and sparse matrices
        only have to hold the same numbers); a NumPy array whose elements have changed since is
        noticed. With ``init_params``, or with other data, ``run`` sets up anew, and so does a new
        object of this class.

        Examples
        --------
        >>> import jax, tempfile, os
        >>> from sgworld_mcmc import SGWORLD, exact
        >>> target = exact.GaussianMean()
        >>> mcmc = SGWORLD(target.model, num_samples=100)
        >>> folder = os.path.join(tempfile.mkdtemp(), "run")
        >>> mcmc.run(jax.random.key(0), *target.data, checkpoint=folder)
        >>> again = SGWORLD(target.model, num_samples=100)  # in another process, say
        >>> again.run(jax.random.key(0), *target.data, checkpoint=folder, resume=True)
        >>> bool((again.get_samples()["mu"] == mcmc.get_samples()["mu"]).all())
        True
        """
        check_key("rng_key", rng_key)
        check_extra_fields(extra_fields)
        if self._warmup_state is None:
            check_start(self.sampler.settings, init_params)
        if self._warmup_state is None:
            self._checked = None
        self._ask_again()
        asked_of = {"extra_fields": tuple(extra_fields), "init_params": (init_params,)}
        self._open_checkpoint(rng_key, checkpoint, every, resume, draws, asked_of)
        try:
            self._run(rng_key, args, kwargs, extra_fields, init_params)
        except (jax.errors.JaxRuntimeError, ValueError) as error:
            if self.sampler.on_hosts and is_of_lost_host(error):
                raise self._host_lost(error) from error
            raise
        finally:
            self._close_checkpoint()

    def _run(self, rng_key, args, kwargs, extra_fields, init_params) -> None:
        """Make the draws, and look at them."""
        self._interrupts, self._chains = Interrupts(), []
        with reporting(self.progress_bar) as self._reporter:
            try:
                self._make_draws(rng_key, args, kwargs, extra_fields, init_params)
                note = divergence_note(self.last_state)
                if note:
                    warnings.warn(note, DivergenceWarning, stacklevel=3)
                if not any(name in (self._states or {}) for name in ("position", CHECKS)):
                    return  # a warm-up that is not collected
                self._take_positions(extra_fields)
            finally:
                self._interrupts.release()
            if self._interrupts.asked:
                warnings.warn(self._what_is_kept(), InterruptedWarning, stacklevel=3)
                return
            try:
                stage("checking the draws")
                notes = self._notes()
            except KeyboardInterrupt:
                self._checked, notes = None, []
                warnings.warn(
                    "Interrupted while the draws were checked: all of them are kept. "
                    "bias_report() checks them.",
                    InterruptedWarning,
                    stacklevel=3,
                )
        for note in notes:
            warnings.warn(note, TuningWarning, stacklevel=3)

    @property
    def sample_field(self):
        """Raise: ``numpyro.infer.MCMC`` asks its sampler for this."""
        name = type(self).__name__
        raise TypeError(
            f"{name}(model) is an MCMC object already: call its run(...), or give "
            f"numpyro.infer.MCMC its kernel, {name}(model).sampler."
        )

    def _make_draws(self, rng_key, args, kwargs, extra_fields, init_params) -> None:
        """Set up and run the chains."""
        read = before = UserData(self._args, self._kwargs, self._labels)
        try:
            read = self._read(args, kwargs)
            self._check_streamed(read.args, read.kwargs, extra_fields)
            draws = self.num_samples // self.thinning
            given = (rng_key, read.args, read.kwargs, init_params)
            plan = self._make_set_up(*given, stacklevel=4, draws=draws)
            self._tell_forecast()
            hidden = self._hidden_fields(extra_fields)
            if self.num_chains > 1 and is_prng_key(rng_key):
                rng_key = self.sampler.split(rng_key, self.num_chains)
            given = self._given_starts(init_params)
            with jax.enable_x64(plan.double):
                # With a schedule the step sizes are the weights of the draws.
                scheduled = plan.dynamics.step_schedule is not None
                fields = (*extra_fields, *hidden, *(("step_size",) if scheduled else ()))
                super().run(rng_key, self.data, extra_fields=fields, init_params=given)
            self._keep_draws()
        except ChainInterrupted:
            last = [state for _, state in self._chains]
            # NumPyro's state of a single chain has no axis of chains.
            self._last_state = jax.tree.map(lambda *x: jnp.stack(x), *last) if last[1:] else last[0]
            self._keep_draws()
        except KeyboardInterrupt as interrupt:
            interrupt.add_note(self._what_is_lost())
            read = before
            raise
        except Exception:
            read = before
            raise
        finally:
            # ArviZ and NumPyro's utilities call the model with these arguments.
            self._args, self._kwargs, self._labels = read
            # After a warm-up that failed NumPyro would use its parameters in the next run.
            self._set_collection_params()
            self._chains, self._shared = [], None
