"""The elements of a page as HTML text; everything that is not an element is escaped."""

import re
from collections.abc import Iterable, Sequence
from html import escape

__all__ = ["items", "number", "pairs", "paragraph", "section", "table"]


def paragraph(text: str, kind: str = "") -> str:
    """Return a paragraph, of a class if ``kind`` names one.

    Examples
    --------
    >>> paragraph("R-hat < 1.1")
    '<p>R-hat &lt; 1.1</p>'
    """
    return f"<p{_class(kind)}>{_prose(text)}</p>"


def items(sentences: Iterable[str], kind: str = "") -> str:
    """Return sentences as the items of a list; nothing if there are none."""
    lines = "".join(f"<li>{_prose(sentence)}</li>\n" for sentence in sentences)
    return f"<ul{_class(kind)}>\n{lines}</ul>" if lines else ""


def section(name: str, title: str, *parts: str) -> str:
    """Return a section with a heading, to which ``name`` links."""
    inner = "\n".join(part for part in parts if part)
    return (
        f'<section id="{escape(name)}" aria-labelledby="{escape(name)}-title">\n'
        f'<h2 id="{escape(name)}-title">{escape(title)}</h2>\n{inner}\n</section>'
    )


def table(caption: str, headings: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return a table whose first column has the names of the rows.

    Examples
    --------
    >>> print(table("Sites", ["site", "mean"], [["mu", "1.2"]]))
    <div class="wide" role="region" aria-label="Sites" tabindex="0"><table>
    <caption>Sites</caption>
    <thead><tr><th scope="col">site</th><th scope="col">mean</th></tr></thead>
    <tbody>
    <tr><th scope="row">mu</th><td>1.2</td></tr>
    </tbody></table></div>
    """
    head = "".join(f'<th scope="col">{escape(heading)}</th>' for heading in headings)
    lines = [
        f'<tr><th scope="row">{escape(name)}</th>'
        + "".join(f"<td>{escape(cell)}</td>" for cell in cells)
        + "</tr>"
        for name, *cells in rows
    ]
    # A table that is wider than the page is scrolled by itself.
    return "\n".join(
        [
            f'<div class="wide" role="region" aria-label="{escape(caption)}" tabindex="0"><table>',
            f"<caption>{escape(caption)}</caption>",
            f"<thead><tr>{head}</tr></thead>",
            "<tbody>",
            *lines,
            "</tbody></table></div>",
        ]
    )


def pairs(rows: Iterable[tuple[str, str]]) -> str:
    """Return names and their values as a description list."""
    lines = [f"<div><dt>{escape(k)}</dt><dd>{escape(v)}</dd></div>" for k, v in rows]
    return "\n".join(["<dl>", *lines, "</dl>"])


def number(value: float, digits: int = 3) -> str:
    """Return a number with so many digits, and with a true minus sign.

    Examples
    --------
    >>> number(-0.012345), number(1234.5678), number(float("nan"))
    ('−0.0123', '1235', '–')
    """
    value = float(value)
    if value != value:
        return "–"
    size = abs(value)
    if 10**digits <= size < 1e6:
        return f"{value:.0f}".replace("-", "−")
    return f"{value:#.{digits}g}".rstrip(".").replace("-", "−")


def _prose(text: str) -> str:
    """Return a text in which names between backticks are set as code."""
    return re.sub(r"`([^`]+)`", r"<code>\1</code>", escape(text))


def _class(kind: str) -> str:
    return f' class="{escape(kind)}"' if kind else ""
