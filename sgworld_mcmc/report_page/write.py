"""Put the page together and write it to a file."""

import os
import tempfile
from datetime import UTC, datetime
from html import escape
from pathlib import Path
from typing import Any

from sgworld_mcmc.report_page.elements import items, paragraph, section
from sgworld_mcmc.report_page.errors import errors_of
from sgworld_mcmc.report_page.facts import costs, model_name, run_warnings, settings, versions
from sgworld_mcmc.report_page.parameters import choose, count_scalars, samples_of, summary
from sgworld_mcmc.report_page.pictures import pictures, require_matplotlib
from sgworld_mcmc.report_page.template import fill

__all__ = ["write_page"]

# Numbers of scalar parameters in the table and in the pictures.
SUMMARISED, DRAWN = 60, 12


def write_page(mcmc: Any, path: str | os.PathLike, *, control: bool = False) -> Path:
    """Write a report of a run as one HTML page: see ``mcmc.report`` of :class:`SGWORLD`."""
    path = _checked(path)
    if mcmc._positions is None:
        raise ValueError("There are no draws to report on: call run(...) first.")
    require_matplotlib()
    _replace(path, _page(mcmc, control))
    return path


def _page(mcmc: Any, control: bool) -> str:
    """Return the page as text."""
    samples = samples_of(mcmc)
    plan = mcmc._drawn_with or mcmc.plan
    latents = () if plan is None else [name for name, _ in plan.description.latents]
    # What is computed from the latent sites comes after them.
    shown = choose(samples, SUMMARISED, latents)
    drawn = choose(samples, DRAWN, latents)
    count = count_scalars(samples)
    errors = errors_of(mcmc, control)
    # The last look at the draws may have found what the run's own check has warned of.
    warnings = list(dict.fromkeys([*run_warnings(mcmc), *errors.warnings]))
    picture_note = ""
    if count > len(drawn):
        picture_note = paragraph(
            f"{len(drawn)} of {count} parameters, from each site the first ones."
        )
    nothing = paragraph("The run kept no values of parameters.")
    parts = {
        "summary": (
            "Summary",
            [summary(shown, count - len(shown)) if shown else nothing],
        ),
        "pictures": (
            "Densities and traces",
            [picture_note, pictures(drawn)] if drawn else [nothing],
        ),
        "bias": ("Bias report", [errors.html]),
        "settings": ("Settings", [settings(mcmc, errors.time_per_epoch)]),
        "costs": ("Costs", [costs(mcmc)]),
        "versions": ("Versions", [versions()]),
    }
    now = datetime.now(UTC)
    return fill(
        model_name(mcmc.sampler.model),
        f"{type(mcmc).__name__} run, reported on {now.day} {now:%B %Y at %H:%M} UTC",
        _verdict(warnings, errors.verdict),
        {name: (title, section(name, title, *html)) for name, (title, html) in parts.items()},
        "sgworld-mcmc",
    )


def _verdict(warnings: list[str], good: str) -> str:
    """Return what comes first on the page: the warnings, or that there are none."""
    if not warnings:
        return f'<div class="verdict">{paragraph(good or "The run gave no warnings.")}</div>'
    title = "1 warning" if len(warnings) == 1 else f"{len(warnings)} warnings"
    return (
        f'<div class="verdict bad" role="note"><strong>{escape(title)}</strong>\n'
        f"{items(warnings, 'warnings')}</div>"
    )


def _checked(path: str | os.PathLike) -> Path:
    """Return the path of a file that can be written; raise if there can be none."""
    if not isinstance(path, str | os.PathLike):
        raise TypeError(f"`path` must be the path of a file, not {type(path).__name__}.")
    path = Path(path)
    if path.is_dir():
        raise IsADirectoryError(f"`path` {str(path)!r} is a folder: give the name of a file in it.")
    if not path.parent.is_dir():
        raise FileNotFoundError(
            f"The folder {str(path.parent)!r} of `path` does not exist: make it first."
        )
    return path


def _replace(path: Path, text: str) -> None:
    """Write a file whole, or leave what was there: the new one takes its place at once."""
    # What a link points to is replaced, and not the link.
    path = path.resolve()
    handle, temporary = tempfile.mkstemp(".part", f".{path.name}.", path.parent)
    try:
        with open(handle, "w", encoding="utf-8", newline="\n") as file:
            file.write(text)
        # mkstemp lets nobody else read the file: a page has the rights of any new file.
        mask = os.umask(0)
        os.umask(mask)
        os.chmod(temporary, 0o666 & ~mask)
        os.replace(temporary, path)
    finally:
        if os.path.exists(temporary):
            os.remove(temporary)
