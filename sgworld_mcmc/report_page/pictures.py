"""Pictures of draws that are part of the page: vector graphics, written into its text."""

import base64
import io
from collections.abc import Mapping
from html import escape
from typing import Any

import numpy as np

from sgworld_mcmc.report_page.elements import paragraph

__all__ = ["pictures", "require_matplotlib"]

# Fewer draws of all chains together make no density.
FEWEST = 20


def require_matplotlib() -> None:
    """Raise an ImportError that says what to install, if Matplotlib is missing."""
    try:
        import matplotlib  # noqa: F401
    except ImportError as error:
        raise ImportError(
            "The pictures of a report need Matplotlib: pip install matplotlib, or "
            "pip install 'sgworld-mcmc[demo]'."
        ) from error


def pictures(scalars: Mapping[str, np.ndarray]) -> str:
    """Return densities and traces of scalars, each (chains, draws), as HTML."""
    from matplotlib import style

    from sgworld_mcmc.diagnostics.plots import plot_density, plot_trace

    finite = {
        name: np.asarray(values, float)
        for name, values in scalars.items()
        if np.isfinite(np.asarray(values, float)).all()
    }
    parts = []
    if len(finite) < len(scalars):
        missing = ", ".join(name for name in scalars if name not in finite)
        parts.append(paragraph(f"Not drawn, because some draws are not finite: {missing}."))
    if not finite:
        return "\n".join(parts)
    chains, draws = next(iter(finite.values())).shape
    if draws < 2 or chains * draws < FEWEST:
        few = f"Pictures need {FEWEST} or more draws in all, and 2 or more in a chain."
        return "\n".join([*parts, paragraph(few)])
    names = ", ".join(finite)
    # A user's own style, white letters perhaps, would not fit the page.
    with style.context("default", after_reset=True):
        density = plot_density(finite, chain_axes=2)
        trace = plot_trace(finite, chain_axes=2)
        parts += [
            _figure(
                density,
                f"Marginal posterior densities of {names}.",
                "Marginal densities, of all chains together.",
            ),
            _figure(
                trace,
                f"Traces of {names}, by chain, with "
                + ("histograms of ranks" if chains > 1 else "densities")
                + " beside them.",
                "Traces by chain"
                + (
                    ", and the ranks of each chain's draws among all: flat, within the grey band, "
                    "where the chains agree."
                    if chains > 1
                    else ", and the density."
                ),
            ),
        ]
    return "\n".join(parts)


def _figure(figure: Any, alternative: str, caption: str) -> str:
    """Return a Matplotlib figure as an HTML figure."""
    buffer = io.BytesIO()
    # Without metadata the picture names no address and no date.
    nothing = dict.fromkeys(("Creator", "Date", "Format", "Type"))
    figure.savefig(buffer, format="svg", transparent=True, dpi=150, metadata=nothing)
    text = base64.b64encode(buffer.getvalue()).decode("ascii")
    width, height = (round(96 * inches) for inches in figure.get_size_inches())
    return (
        f'<figure>\n<img src="data:image/svg+xml;base64,{text}" width="{width}" '
        f'height="{height}" alt="{escape(alternative)}">\n'
        f"<figcaption>{escape(caption)}</figcaption>\n</figure>"
    )
