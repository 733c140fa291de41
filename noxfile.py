"""The fast tests on every supported Python, and on the oldest libraries: ``make test-all``.

Interpreters that are not installed are left out, with a word. nox makes an environment for each
with uv, and keeps it for the next time in ``.nox``.
"""

import nox

nox.options.default_venv_backend = "uv"
nox.options.error_on_missing_interpreters = False
nox.options.reuse_venv = "yes"
VERSIONS = ("jax", "numpyro", "arviz", "blackjax", "numpy")
FAST = ("-m", "not slow", "-n", "2", "--dist", "worksteal")


def run_tests(session: nox.Session) -> None:
    """Say which libraries the environment has got, and run the fast tests (or those asked for)."""
    lines = [f"print('{name}', version('{name}'))" for name in VERSIONS]
    session.run("python", "-c", "\n".join(["from importlib.metadata import version", *lines]))
    if "--no-run" not in session.posargs:
        session.run("python", "-m", "pytest", *(session.posargs or FAST))


@nox.session(python=["3.11", "3.12", "3.13"])
def newest(session: nox.Session) -> None:
    """Test with the newest libraries that this Python gets."""
    session.install(".[test]")
    run_tests(session)


@nox.session(python="3.11")
def lowest(session: nox.Session) -> None:
    """Test with the lowest versions that pyproject.toml declares."""
    session.install("--resolution=lowest-direct", ".[test]")
    run_tests(session)
