"""Settings of the documentation, which ``make docs`` builds with Sphinx.

Pages are MyST Markdown. Those whose head says ``file_format: mystnb`` are run by the build, so that
what they print and draw is what this version of the package prints and draws.
"""

import os
import re
from collections import namedtuple
from importlib.metadata import version as version_of

# A progress display has no place in a page.
os.environ.setdefault("CI", "true")

project = "sgworld_mcmc"
author = "The authors of sgworld_mcmc"
copyright = f"2026, {author}"
release = version = version_of("sgworld-mcmc")

extensions = [
    "myst_nb",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "sphinx.ext.mathjax",
    "sphinx-mathjax-offline",  # copies MathJax into the site: reading it needs no network
]
exclude_patterns = ["_build"]
# Fields of different states have the same name; their mention in a docstring needs no link.
suppress_warnings = ["ref.python"]

html_theme = "sphinx_book_theme"
html_title = "sgworld_mcmc"
html_static_path = ["_static"]
html_css_files = ["pages.css"]
html_theme_options = {"show_toc_level": 2, "home_page_in_toc": True, "use_download_button": False}
html_theme_options |= {"navbar_persistent": []}

myst_enable_extensions = ["dollarmath", "amsmath", "colon_fence", "deflist"]
myst_dmath_double_inline = True
myst_heading_anchors = 4

nb_execution_mode = "force"
nb_execution_timeout = 600
nb_execution_raise_on_error = True
nb_execution_show_tb = True
nb_merge_streams = True
nb_output_stderr = "remove"  # warnings of the machine that builds, with its paths

napoleon_google_docstring = False
napoleon_use_ivar = True
autodoc_typehints = "none"
autodoc_member_order = "bysource"

_FIELD = type(namedtuple("_Example", "field").field)


def skip_fields(app, what, name, obj, skip, options):
    """Leave fields of named tuples to the docstring, which has them under *Attributes*."""
    return True if isinstance(obj, _FIELD) else None


def escape_bars(app, what, name, obj, options, lines):
    """Show |x| in docstrings as it is, which reStructuredText would take for a substitution."""
    for i, line in enumerate(lines):
        if "|" in line and not line.lstrip().startswith((">>>", "...")):
            parts = line.split("``")
            parts[::2] = [part.replace("|", r"\|") for part in parts[::2]]
            lines[i] = "``".join(parts)


def join_equations(app, docname, source):
    """Put equations on one line: Markdown takes a line that begins with + for a list."""
    join = lambda match: " ".join(match[0].split())  # noqa: E731
    source[0] = re.sub(r"\$\$.*?\$\$", join, source[0], flags=re.DOTALL)


def setup(app):
    """Connect the functions of this file to Sphinx."""
    app.connect("autodoc-process-docstring", escape_bars)
    app.connect("source-read", join_equations)
    app.connect("autodoc-skip-member", skip_fields)
