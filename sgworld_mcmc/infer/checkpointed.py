"""A NumPyro ``MCMC`` whose runs can be saved while they last, and resumed."""

import importlib.util
import inspect
from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from sgworld_mcmc.checkpoint.folder import Folder, open_folder
from sgworld_mcmc.checkpoint.followers import Follower, tell_followers
from sgworld_mcmc.checkpoint.request import asked, difference
from sgworld_mcmc.checkpoint.saved_run import WAITING, WINDOW_BYTES, SavedRun
from sgworld_mcmc.checkpoint.stored_draws import StoredDraws
from sgworld_mcmc.checks import check_choice, check_positive
from sgworld_mcmc.hosts import HostLost, all_of, from_first
from sgworld_mcmc.infer.reported import ReportedMCMC
from sgworld_mcmc.model.arguments import flatten_arguments
from sgworld_mcmc.sampling.collection import Collected
from sgworld_mcmc.sampling.loop import collect
from sgworld_mcmc.setup.checked_model import warn_of
from sgworld_mcmc.setup.lay_out import PlanMismatch
from sgworld_mcmc.setup.plan_file import VERSION, load_plan, save_plan
from sgworld_mcmc.setup.run_plan import RunPlan
from sgworld_mcmc.streaming.arguments import is_streamed

__all__ = ["CheckpointedMCMC"]

# The defaults of the arguments of `run` that are about checkpoints.
DEFAULTS = {"checkpoint": None, "every": 60.0, "resume": False, "draws": "memory"}
# The version of what a checkpoint holds beside the plan.
FORMAT = 1
# What a request says of rows that are streamed; of rows in memory it says nothing.
ROWS = "rows"


class CheckpointedMCMC(ReportedMCMC):
    """The part of :class:`~sgworld_mcmc.infer.mcmc.MinibatchMCMC` that saves and resumes runs."""

    # The folder that the present run holds, and the saving of its draws; None without checkpoint.
    _folder: Folder | None = None
    _saved: SavedRun | None = None
    # What was asked of the present run, but for the model's arguments, which are read later.
    _request: dict[str, Any] | None = None
    _every, _on_disk, _resume = 60.0, False, False
    # Whether another process of a run on several hosts saves it, and where it is saved.
    _follows, _place = False, None

    def _open_checkpoint(self, rng_key, checkpoint, every, resume, draws, asked_of) -> None:
        """Check the arguments, and take the folder; raise before any work."""
        given = {"checkpoint": checkpoint, "every": every, "resume": resume, "draws": draws}
        for name in _own_arguments(self.sampler.model.fn):
            # What is not as by default may be meant for the model.
            if name in given and str(given[name]) != str(DEFAULTS[name]):
                raise TypeError(
                    f"`{name}` is an argument of run(...) and of the model: rename that of the "
                    "model, or pass it by its place."
                )
        check_choice("draws", draws, ("memory", "disk"))
        if not isinstance(resume, bool):
            raise TypeError(f"`resume` must be True or False, not {resume!r}.")
        check_positive("every", every)
        if checkpoint is None:
            for name, needed in (("resume", resume), ("draws='disk'", draws == "disk")):
                if needed:
                    raise ValueError(f"`{name}` needs `checkpoint`, the folder to write to.")
            return
        for module in ("orbax.checkpoint", "zarr"):
            if not _is_there(module):
                raise ImportError(
                    f"`checkpoint` needs {module.partition('.')[0]}: pip install "
                    "'sgworld-mcmc[checkpoints]'"
                )
        if self._warmup_state is not None or self._collection_params["phase"] == "warmup":
            raise ValueError(
                "`checkpoint` saves a run from its beginning: leave it out of warmup(...), and "
                "set post_warmup_state to None."
            )
        if self.num_chains > 1 and self.chain_method not in ("vectorized", "sequential"):
            raise ValueError(
                "`checkpoint` needs chain_method 'vectorized' or 'sequential': with "
                f"{self.chain_method!r} all draws are made by one call, between whose parts "
                "nothing can be saved."
            )
        counts = ("num_samples", "num_warmup", "num_chains", "thinning", "chain_method")
        settings = dict(vars(self.sampler.settings))
        settings["any_order"] = settings.pop("any_order")  # last: `order` says more
        settings.pop("devices")  # a run may go on with others
        self._request = {
            "format of the checkpoint": FORMAT,
            "version of plans": VERSION,
            "sampler": type(self).__name__,
            **{name: getattr(self, name) for name in counts},
            "settings": settings,
            "rng_key": rng_key,
            "draws": draws,
            "jax_enable_x64": bool(jax.config.jax_enable_x64),
            "jax": f"{jax.__version__} on {jax.default_backend()}",
            **asked_of,
        }
        self._take_folder(checkpoint, resume)
        self._every, self._on_disk, self._resume = float(every), draws == "disk", resume

    def _take_folder(self, checkpoint, resume: bool) -> None:
        """Take the folder; of several hosts the first one has it."""
        if not self.sampler.on_hosts:
            self._folder = open_folder(checkpoint, resume)
            self._place = self._folder.path
            return
        if self._request["draws"] == "disk":
            raise ValueError("`draws='disk'` is for one host: leave it out.")

        def take():
            self._folder = open_folder(checkpoint, resume)

        from_first(take)
        self._follows = jax.process_index() > 0
        self._place = checkpoint

    def _close_checkpoint(self) -> None:
        self._follows = False
        if self._saved is not None:
            self._saved.close()
        elif self._folder is not None:
            self._folder.release()
        self._folder = self._saved = self._request = None

    def _streams(self) -> bool | None:
        # A run goes on as it has begun, however much memory is free now.
        if self._folder is None or self._folder.request is None:
            return super()._streams()
        return ROWS in self._folder.request

    def _draws_bytes(self) -> float:
        made = super()._draws_bytes()
        on_disk = self._saved is not None and self._saved.on_disk
        return min(made, (1 + WAITING) * WINDOW_BYTES) if on_disk else made

    def _make_set_up(
        self, rng_key, args, kwargs, init_params, stacklevel: int, draws: int = 0
    ) -> RunPlan:
        if self._follows or (self._folder is not None and self.sampler.on_hosts):
            return self._set_up_on_hosts(rng_key, args, kwargs, init_params, stacklevel + 1)
        if self._folder is None:
            return super()._make_set_up(rng_key, args, kwargs, init_params, stacklevel + 1, draws)
        draws = 0 if self._on_disk else draws
        folder = self._folder
        arguments = flatten_arguments(self.sampler.model.fn, args, kwargs)
        shapes = {f"argument {name}": _shape(x) for name, x in arguments.items()}
        rows = {ROWS: "streamed"} if is_streamed(args, kwargs) else {}
        request = asked(**self._request, arguments=shapes, **rows)
        if self._resume and (folder.has_plan or folder.request is not None):
            what = difference(folder.request or {}, request)
            if what is not None:
                raise ValueError(self._refusal(what))
        if folder.has_plan:
            self._use_saved_plan(args, kwargs)
            warn_of(self.data.model, stacklevel + 1)
        else:
            folder.begin(request)
            super()._make_set_up(rng_key, args, kwargs, init_params, stacklevel + 1, draws)
        hidden = self._hidden_fields(self._request["extra_fields"])
        self._saved = SavedRun(folder, self._every, self._on_disk, self.num_chains, hidden)
        if not folder.has_plan:
            try:
                save_plan(self._setup.identified_plan(), folder.plan)
            except OSError as error:
                self._saved.warn(error)
        return self.plan

    def _set_up_on_hosts(self, rng_key, args, kwargs, init_params, stacklevel: int) -> RunPlan:
        """Set up together with the other hosts; the first one reads and writes the folder."""
        arguments = flatten_arguments(self.sampler.model.fn, args, kwargs)
        here = max((len(x) for x in arguments.values() if np.ndim(x)), default=0)
        size, settings = sum(all_of(here)), self.sampler.settings

        def shape(x):
            rows = np.ndim(x) and len(x) == here
            return f"{x.dtype}{(size, *x.shape[1:])}" if rows else _shape(x)

        request = asked(
            **self._request, arguments={f"argument {n}": shape(x) for n, x in arguments.items()}
        )

        def found():
            folder = self._folder
            if self._resume and (folder.has_plan or folder.request is not None):
                what = difference(folder.request or {}, request)
                if what is not None:
                    raise ValueError(self._refusal(what))
            if folder.has_plan:
                own = {"integrator": settings.integrator, "order": settings.order}
                return load_plan(folder.plan, **own)
            return folder.begin(request)

        plan = from_first(found)
        if plan is None:
            super()._make_set_up(rng_key, args, kwargs, init_params, stacklevel + 1)
        else:
            try:
                self._setup.adopt(plan, args, kwargs)
            except PlanMismatch as error:
                raise ValueError(self._refusal(error.what)) from None
        if self._follows:
            self._saved = Follower()
            return self.plan
        hidden = self._hidden_fields(self._request["extra_fields"])
        self._saved = SavedRun(self._folder, self._every, False, self.num_chains, hidden)
        self._saved.told = tell_followers
        if plan is None:
            try:
                save_plan(self._setup.identified_plan(), self._folder.plan)
            except OSError as error:
                self._saved.warn(error)
        return self.plan

    def _use_saved_plan(self, args: tuple, kwargs: dict) -> None:
        settings = self.sampler.settings
        plan = load_plan(self._folder.plan, integrator=settings.integrator, order=settings.order)
        try:
            self._setup.adopt(plan, args, kwargs)
        except PlanMismatch as error:
            raise ValueError(self._refusal(error.what)) from None

    def _refusal(self, what: str) -> str:
        return (
            f"The checkpoint {str(self._place)!r} is one of another run. What differs is "
            f"{what}. Ask for the same, or begin anew in another folder."
        )

    def _collect(self, *args: Any, **options: Any) -> Collected:
        """Make draws, and save them if that is asked for."""
        return (collect if self._saved is None else self._saved.collect)(*args, **options)

    def _host_lost(self, error: Exception) -> HostLost:
        """Return the error of a run on several hosts of which one has gone."""
        saved = "Nothing was saved: give `checkpoint`."
        if self._place is not None:
            saved = f"The last whole checkpoint in {str(self._place)!r} stays valid"
            saved += ": start all processes again, as many as you like, with resume=True."
        reason = str(error).strip().splitlines()[0][:200]
        return HostLost(
            f"Process {jax.process_index()} of {jax.process_count()} cannot reach the others any "
            f"more: one of them has ended. {saved} ({reason})"
        )

    def _how_to_continue(self) -> str:
        if self._saved is None:
            return (
                "To continue: `mcmc.post_warmup_state = mcmc.last_state`, then "
                "`mcmc.run(mcmc.last_state.rng_key, ...)`."
            )
        return "To continue, here or in another process: `mcmc.run(..., resume=True)`."

    @property
    def draws_on_disk(self) -> StoredDraws | None:
        """The draws, if they lie on disk; None if they are in memory."""
        return self._states if isinstance(self._states, StoredDraws) else None

    def get_extra_fields(self, group_by_chain: bool = False) -> dict[str, Any]:
        """Return the extra fields of the draws, as ``numpyro.infer.MCMC`` does."""
        if not isinstance(self._states, StoredDraws):
            return super().get_extra_fields(group_by_chain)
        states = self._states if group_by_chain else self._states.flat()
        return {name: states[name] for name in states if name != self._sample_field}


def _own_arguments(model: Callable) -> list[str]:
    try:
        return list(inspect.signature(model).parameters)
    except (TypeError, ValueError):  # an object of another language
        return []


def _shape(x: Any) -> Any:
    """Return what a request says of an argument: the plan knows the numbers of arrays."""
    shape = getattr(x, "shape", None)
    return x if shape is None else f"{getattr(x, 'dtype', '')}{tuple(shape)}"


def _is_there(module: str) -> bool:
    try:
        return importlib.util.find_spec(module) is not None
    except ModuleNotFoundError:
        return False
