"""Write a plan to a file and read it: named arrays and a description in one NumPy archive.

The archive (``numpy.savez``) holds the arrays under names such as ``tuning.coordinates.scale``,
and under ``plan`` a JSON text with everything else. The archive contains no code, and reading it
runs none: records are rebuilt from a list of known classes.
"""

import dataclasses
import json
import os
import zipfile
from typing import Any

import jax
import numpy as np

from sgworld_mcmc.gradients.batch_expansions import BatchExpansions, Crossing, GroupBlocks
from sgworld_mcmc.gradients.taylor import TaylorControls
from sgworld_mcmc.members import COORDINATES, GRADIENTS, INTEGRATORS, ORDERS
from sgworld_mcmc.model.description import ModelDescription
from sgworld_mcmc.protocols import Integrator, Order
from sgworld_mcmc.sampling.dynamics import Dynamics
from sgworld_mcmc.setup.batch_noise import BatchNoise
from sgworld_mcmc.setup.choose import Choice
from sgworld_mcmc.setup.coordinate_fit import CoordinateFit
from sgworld_mcmc.setup.measurements import Measurements
from sgworld_mcmc.setup.predict import Prediction
from sgworld_mcmc.setup.random_parts import Uncancelled
from sgworld_mcmc.setup.row_noise import RowNoise
from sgworld_mcmc.setup.run_plan import RunPlan, Tuning
from sgworld_mcmc.setup.step_error import Discretisation
from sgworld_mcmc.setup.streamed.streaming import Streaming
from sgworld_mcmc.setup.without_mode.choice import KineticChoice
from sgworld_mcmc.setup.without_mode.spectrum import Spectrum
from sgworld_mcmc.setup.without_mode.tune import KineticFit
from sgworld_mcmc.streaming.grid import Grid

__all__ = ["VERSION", "load_plan", "save_plan"]

# The version is raised when a record changes: plans of another version are refused.
VERSION = 5
_FORMAT = "sgworld_mcmc plan"
_RECORDS = (
    *(RunPlan, Tuning, Dynamics, CoordinateFit, Measurements, RowNoise, BatchNoise),
    *(Discretisation, Choice, Prediction, ModelDescription, TaylorControls),
    *(KineticFit, KineticChoice, Spectrum, Uncancelled),
    *(BatchExpansions, GroupBlocks, Crossing),
    *(Streaming, Grid),
)


def save_plan(plan: RunPlan, path: str | os.PathLike) -> None:
    """Write a plan to a file; if this fails, no incomplete file is left.

    Raises
    ------
    OSError
        If the file cannot be written.
    """
    arrays: dict[str, np.ndarray] = {}
    tree = _encode(plan, "", arrays)
    text = json.dumps({"format": _FORMAT, "version": VERSION, "plan": tree})
    temporary = f"{os.fsdecode(path)}.{os.getpid()}.part"
    try:
        with open(temporary, "wb") as file:
            np.savez(file, plan=np.array(text), **arrays)
        os.replace(temporary, path)
    finally:
        if os.path.exists(temporary):
            os.remove(temporary)


def load_plan(path: str | os.PathLike, **own: Integrator | Order | None) -> RunPlan:
    """Read a plan from a file.

    Parameters
    ----------
    path
        A file written by :func:`save_plan`.
    own
        The ``integrator`` and ``order`` that the plan was made with, if they are not those of the
        package.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    ValueError
        If the file holds no plan, is truncated, or is of another version.
    """
    if not isinstance(path, str | bytes | os.PathLike):
        raise TypeError(f"`plan` must be the path of a saved plan, not {type(path).__name__}.")
    name = os.fsdecode(path)
    try:
        with np.load(path, allow_pickle=False) as archive:
            arrays = {key: archive[key] for key in archive.files}
        header = json.loads(str(arrays.pop("plan")))
    except FileNotFoundError:
        raise
    except (OSError, KeyError, ValueError, EOFError, TypeError, zipfile.BadZipFile) as error:
        raise ValueError(
            f"`plan` {name!r} cannot be read: it is truncated, or no plan that "
            f"`mcmc.save_plan(path)` has written ({type(error).__name__}: {error})."
        ) from error
    if not isinstance(header, dict) or header.get("format") != _FORMAT:
        raise ValueError(f"`plan` {name!r} is no plan that `mcmc.save_plan(path)` has written.")
    if header["version"] != VERSION:
        raise ValueError(
            f"`plan` {name!r} is of version {header['version']}, this package reads version "
            f"{VERSION}: set up anew, without `plan`, and save again."
        )
    try:
        return _decode(header["plan"], arrays, _classes(own))
    except (KeyError, TypeError) as error:
        raise ValueError(
            f"`plan` {name!r} cannot be read: {error} is missing or not known. Where the plan was "
            "made with an integrator or order of your own, give it as `integrator` or `order` too."
        ) from error


def _classes(own: dict[str, Any]) -> dict[str, type]:
    tables = (ORDERS, GRADIENTS, INTEGRATORS, COORDINATES)
    known = [*_RECORDS, *(kind for table in tables for kind in table.values())]
    classes = {kind.__name__: kind for kind in known}
    for argument, value in own.items():
        name, kind = type(value).__name__, type(value)
        if value is not None and classes.setdefault(name, kind) is not kind:
            raise ValueError(
                f"`{argument}` is of a class {name}, which the package has too: a plan could not "
                "tell them apart. Give your class another name."
            )
    return classes


def _encode(value: Any, name: str, arrays: dict[str, np.ndarray]) -> Any:
    """Return a value as JSON can hold it; its arrays are put into ``arrays`` by name."""
    inner = lambda key, part: _encode(part, f"{name}.{key}".lstrip("."), arrays)  # noqa: E731
    if isinstance(value, np.generic):
        value = value.item()
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, np.ndarray | jax.Array):
        arrays[name] = np.asarray(value)
        return {"array": name}
    if isinstance(value, dict):
        return {"dict": [[key, inner(key, part)] for key, part in value.items()]}
    if dataclasses.is_dataclass(value):
        fields = {f.name: getattr(value, f.name) for f in dataclasses.fields(value)}
    elif hasattr(value, "_asdict"):
        fields = value._asdict()
    elif isinstance(value, tuple | list):
        return {"tuple": [inner(number, part) for number, part in enumerate(value)]}
    else:
        raise TypeError(f"A plan cannot hold a {type(value).__name__} ({name}).")
    return {"record": type(value).__name__, "fields": {k: inner(k, v) for k, v in fields.items()}}


def _decode(tree: Any, arrays: dict[str, np.ndarray], classes: dict[str, type]) -> Any:
    if not isinstance(tree, dict):
        return tree
    if "array" in tree:
        return arrays[tree["array"]]
    if "dict" in tree:
        return {key: _decode(part, arrays, classes) for key, part in tree["dict"]}
    if "tuple" in tree:
        return tuple(_decode(part, arrays, classes) for part in tree["tuple"])
    fields = {key: _decode(part, arrays, classes) for key, part in tree["fields"].items()}
    return classes[tree["record"]](**fields)
