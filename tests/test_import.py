"""Importing the package is quick: optional packages are loaded, and arrays made, only when used."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

import sgworld_mcmc

OPTIONAL = {"arviz", "matplotlib", "rich", "sklearn", "pandas"}

# After each statement it notes which packages are imported beside those that NumPyro imports, and
# the number of backends that are initialised. The arrays are counted last, because counting them
# initialises a backend.
PROBE = """
import json, sys
import numpyro
before = set(sys.modules)
found = []
for statement in {statements}:
    exec(statement)
    import jax
    from jax._src import xla_bridge
    imported = sorted({{name.partition(".")[0] for name in set(sys.modules) - before}})
    found.append([imported, len(xla_bridge._backends)])
print(json.dumps([found, len(jax.live_arrays())]))
"""


def probe(*statements):
    result = subprocess.run(
        [sys.executable, "-c", PROBE.format(statements=statements)],
        capture_output=True,
        text=True,
        check=True,
        cwd=Path(__file__).parent.parent,  # the first place in which `python -c` looks for modules
    )
    return json.loads(result.stdout)


def test_import_is_light():
    """In one process, from what imports least on: each statement has what those before it had."""
    (package, samplers, rooms), arrays = probe(
        "import sgworld_mcmc",
        "from sgworld_mcmc import SGLD, SGWORLD",
        "from sgworld_mcmc import diagnostics, exact, nonequilibrium",
    )
    assert "sgworld_mcmc" in package[0]
    for imported, backends in (package, samplers, rooms):
        assert not OPTIONAL & set(imported)
        # A program may still choose the platform and the number of devices after the import.
        assert backends == 0
    assert not {"blackjax", "optax"} & set(samplers[0])
    assert arrays == 0


def test_kernels_do_not_import_what_only_pictures_and_files_need():
    ((imported, _),), _ = probe("from sgworld_mcmc import sgd, sgld, sgworld")
    assert not OPTIONAL & set(imported)


def test_public_names_need_no_import_of_their_own_and_make_no_arrays():
    """BlackJAX makes an array when it is imported: it comes before the arrays are counted."""
    probe(
        "import blackjax, jax, sgworld_mcmc; arrays = len(jax.live_arrays());"
        "assert set(sgworld_mcmc.__all__) <= set(dir(sgworld_mcmc));"
        "[getattr(sgworld_mcmc, name) for name in sgworld_mcmc.__all__];"
        "assert len(jax.live_arrays()) == arrays"
    )


def test_a_public_name_is_the_object_of_its_module():
    from sgworld_mcmc.exact import LinearRegression
    from sgworld_mcmc.infer import SGWORLD
    from sgworld_mcmc.kernels import sgld

    assert sgworld_mcmc.SGWORLD is SGWORLD
    assert sgworld_mcmc.sgld is sgld
    assert sgworld_mcmc.exact.LinearRegression is LinearRegression


def test_star_import_and_unknown_names():
    namespace = {}
    exec("from sgworld_mcmc import *", namespace)
    assert set(sgworld_mcmc.__all__) <= set(namespace)
    with pytest.raises(AttributeError, match="'sgworld_mcmc' has no attribute 'SGWRLD'"):
        sgworld_mcmc.SGWRLD  # noqa: B018
    with pytest.raises(ImportError, match="cannot import name 'SGWRLD'"):
        exec("from sgworld_mcmc import SGWRLD")


def test_type_checkers_are_told_that_the_package_has_types():
    assert (Path(sgworld_mcmc.__file__).parent / "py.typed").exists()
