"""The frame of the page: its head, its style, and where the parts go."""

from html import escape
from string import Template

__all__ = ["fill"]

STYLE = """
:root { color-scheme: light dark; --text: #1c2024; --dim: #5b646d; --back: #fff; --card: #f5f6f8;
  --line: #d9dde2; --good: #1a7f4b; --bad: #b54708; --link: #0b62b0; }
@media (prefers-color-scheme: dark) {
  :root { --text: #e4e7ea; --dim: #a0a9b2; --back: #15181b; --card: #1e2226; --line: #363c43;
    --good: #5cc98e; --bad: #f5a15b; --link: #7ab8f5; }
  /* Inverted lightness with the hues as they were: dark lines and letters become light ones. */
  figure img { filter: invert(1) hue-rotate(180deg); }
}
* { box-sizing: border-box; }
body { margin: 0 auto; max-width: 60rem; padding: 2rem 1.25rem 4rem; background: var(--back);
  color: var(--text); font: 1rem/1.5 system-ui, sans-serif; }
h1 { font-size: 1.9rem; line-height: 1.2; margin: 0 0 .25rem; overflow-wrap: anywhere; }
h2 { font-size: 1.3rem; margin: 2.5rem 0 .75rem; padding-top: .75rem;
  border-top: 1px solid var(--line); }
h3 { font-size: 1.05rem; margin: 1.5rem 0 .5rem; }
p { margin: .5rem 0; max-width: 46rem; }
a { color: var(--link); }
code { font: .92em ui-monospace, monospace; }
nav ul { display: flex; flex-wrap: wrap; gap: .25rem 1.25rem; list-style: none; padding: 0;
  margin: 1rem 0; }
.dim, caption, figcaption { color: var(--dim); }
.verdict { border-left: .3rem solid var(--good); background: var(--card); padding: .75rem 1rem;
  margin: 1.25rem 0; max-width: none; }
.verdict.bad { border-color: var(--bad); }
.warnings { padding-left: 1.2rem; }
.warnings li { margin: .4rem 0; }
.warnings li::marker { color: var(--bad); }
.wide { overflow-x: auto; margin: 1rem 0; }
table { border-collapse: collapse; font-size: .9rem; font-variant-numeric: tabular-nums;
  width: 100%; }
caption { text-align: left; padding-bottom: .4rem; }
th, td { padding: .3rem .6rem; text-align: right; white-space: nowrap; }
th:first-child { text-align: left; padding-left: 0; }
thead th { border-bottom: 2px solid var(--line); vertical-align: bottom; white-space: normal; }
tbody th { font-weight: 600; }
tbody tr + tr > * { border-top: 1px solid var(--line); }
figure { margin: 1rem 0; overflow-x: auto; }
figure img { width: 100%; min-width: 34rem; height: auto; }
dl { display: grid; grid-template-columns: repeat(auto-fill, minmax(17rem, 1fr)); gap: .5rem 2rem;
  margin: .75rem 0; }
dt { color: var(--dim); font-size: .85rem; }
dd { margin: 0; overflow-wrap: anywhere; }
@media print {
  :root { --text: #000; --dim: #444; --back: #fff; --card: #fff; --line: #bbb; --good: #1a7f4b;
    --bad: #b54708; }
  @page { margin: 15mm; }
  body { max-width: none; padding: 0; font-size: 10pt; }
  nav { display: none; }
  figure img { filter: none; min-width: 0; width: auto; max-width: 100%; max-height: 10.5cm; }
  figure { overflow: visible; }
  figure, tr, dl > div, .verdict, li { break-inside: avoid; }
  h2, h3, h2 + p, caption { break-after: avoid; }
  thead { display: table-header-group; }
  .wide { overflow: visible; }
  table { font-size: 8.5pt; }
  th, td { padding: .15rem .35rem; }
}
"""

PAGE = Template("""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="generator" content="$generator">
<title>$title</title>
<style>$style</style>
</head>
<body>
<header>
<h1>$title</h1>
<p class="dim">$subtitle</p>
$verdict
<nav aria-label="Sections">
<ul>
$links
</ul>
</nav>
</header>
<main>
$sections
</main>
</body>
</html>
""")


def fill(
    title: str,
    subtitle: str,
    verdict: str,
    sections: dict[str, tuple[str, str]],
    generator: str,
) -> str:
    """Return the page.

    Parameters
    ----------
    title, subtitle, generator
        Texts, which are escaped.
    verdict
        HTML of what comes first.
    sections
        For each name to link to, the title in the list of links and the section as HTML.

    Examples
    --------
    >>> page = fill("A & B", "today", "", {"x": ("X", "<p>x</p>")}, "test")
    >>> "<h1>A &amp; B</h1>" in page, '<a href="#x">X</a>' in page
    (True, True)
    """
    links = [
        f'<li><a href="#{escape(name)}">{escape(title)}</a></li>'
        for name, (title, _) in sections.items()
    ]
    return PAGE.substitute(
        title=escape(title),
        subtitle=escape(subtitle),
        generator=escape(generator),
        style=STYLE,
        verdict=verdict,
        links="\n".join(links),
        sections="\n".join(html for _, html in sections.values()),
    )
