"""Every block of Python in the README and in docs/ runs, and every link leads somewhere."""

import functools
import inspect
import json
import os
import re
import subprocess
import sys
import traceback
import warnings
from pathlib import Path
from types import ModuleType

import pytest

import sgworld_mcmc
from sgworld_mcmc.infer.mcmc import MinibatchMCMC
from sgworld_mcmc.settings import make_settings

ROOT = Path(__file__).parent.parent
DOCS = ROOT / "docs"
PAGES = [
    ROOT / "README.md",
    ROOT / "CONTRIBUTING.md",
    ROOT / "CHANGELOG.md",
    *sorted(DOCS.glob("*.md")),
    *sorted((DOCS / "api").glob("*.md")),
]
# These pages go on from the data, the model and the run of the start, its first three blocks.
START, BEGIN, REST = DOCS / "start.md", slice(3), slice(3, None)
GO_ON = {"auditing.md", "big_data.md", "clusters.md", "index.md", "using.md"}
FENCE = re.compile(r"^```(.*?)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
OPTION = re.compile(r"^:\w+:.*\n", re.MULTILINE)


def blocks(path):
    """Return the blocks of Python of a page, (number of the line before, code)."""
    text = path.read_text()
    return [
        (text.count("\n", 0, match.start(2)), match[2])
        for match in FENCE.finditer(text)
        if match[1] in ("python", "{code-cell} python")
    ]


def run_blocks(path, namespace, which=slice(None)):
    """Run a page's blocks one after the other; an error has the page's name and line."""
    for line, code in blocks(path)[which]:
        # Options of a cell keep their lines, so that numbers stay right.
        code = OPTION.sub("\n", code)
        exec(compile("\n" * line + code, str(path), "exec"), namespace)


def main(out, *pages):
    """Run pages, each in a namespace of its own, and write what went wrong in each as JSON."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    warnings.simplefilter("ignore", sgworld_mcmc.TuningWarning)
    started, wrong = {}, {}
    for page in map(Path, pages):
        module = ModuleType("page")
        sys.modules["page"] = module  # where dataclasses look for their names
        try:
            if page.name not in GO_ON | {START.name}:
                run_blocks(page, module.__dict__)
            else:
                if not started:
                    started["__name__"] = "page"
                    run_blocks(START, started, BEGIN)
                module.__dict__.update(started)
                run_blocks(page, module.__dict__, REST if page == START else slice(None))
        except Exception:
            wrong[page.name] = traceback.format_exc()
        plt.close("all")
    Path(out).write_text(json.dumps(wrong))


def process_of(page):
    """Return which pages share a process: those with several devices need another one."""
    if any("devices=" in code for _, code in blocks(page)):
        return "several devices"
    return "start" if page.name in GO_ON | {START.name} else "others"


@pytest.fixture(scope="module")
def wrong(tmp_path_factory):
    """Return a function of a process that returns what went wrong in its pages, by name."""

    @functools.cache
    def run(process):
        flags = "--xla_force_host_platform_device_count=4" if process == "several devices" else ""
        folders = (Path(__file__).parent, ROOT, DOCS, os.environ.get("PYTHONPATH", ""))
        folder = tmp_path_factory.mktemp("pages")
        result = subprocess.run(
            [
                sys.executable,
                "-c",
                "import sys, test_docs; test_docs.main(*sys.argv[1:])",
                "wrong.json",
                *(page for page in RUN if process_of(page) == process),
            ],
            cwd=folder,
            env=os.environ
            | {"XLA_FLAGS": f"{os.environ.get('XLA_FLAGS', '')} {flags}"}
            | {"PYTHONPATH": os.pathsep.join(map(str, folders)), "CI": "true"},
            capture_output=True,
            text=True,
            timeout=1200,
        )
        assert result.returncode == 0, result.stderr[-3000:]
        return json.loads((folder / "wrong.json").read_text())

    return run


RUN = sorted(filter(blocks, PAGES), key=process_of)


@pytest.mark.slow
@pytest.mark.parametrize("page", RUN, ids=lambda p: p.name)
def test_the_blocks_of_a_page_run(page, wrong):
    """With four devices if a block asks for several."""
    error = wrong(process_of(page)).get(page.name)
    assert error is None, error[-3000:]


def anchors(path):
    """Return the anchors of a page's headings, as GitHub and Sphinx make them."""
    text = FENCE.sub("", path.read_text())
    headings = re.findall(r"^#{1,4} (.*)$", text, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.name)
def test_links_lead_somewhere(page):
    text = FENCE.sub("", page.read_text())
    for target in re.findall(r"\]\(([^()\s]+)\)", text):
        if target.startswith(("https:", "http:", "mailto:")):
            continue
        name, _, anchor = target.partition("#")
        there = (page.parent / name).resolve() if name else page
        assert there.exists(), f"{page.name} has a link to {target}"
        if anchor:
            assert anchor in anchors(there), f"{page.name}: {target} has no such heading"


def test_code_names_pages_that_exist():
    for folder in ("sgworld_mcmc", "sgworld_benchmarks", "examples", "tests"):
        for path in (ROOT / folder).rglob("*.py"):
            for name in re.findall(r"docs/(\w+\.md)", path.read_text()):
                assert (DOCS / name).exists(), f"{path.relative_to(ROOT)} names docs/{name}"


def test_every_setting_has_a_line():
    own = inspect.signature(MinibatchMCMC.__init__).parameters
    run = inspect.signature(MinibatchMCMC.run).parameters
    names = {*own, *run, *inspect.signature(make_settings).parameters}
    text = (DOCS / "settings.md").read_text()
    # Users give `num_chains`; settings know it as `chains`.
    own = {"self", "sampler", "rng_key", "chains"}
    missing = names - set(re.findall(r"`(\w+)`", text)) - own
    assert missing <= {"args", "kwargs"}, missing


def test_the_reference_has_every_public_name():
    text = "".join(path.read_text() for path in (DOCS / "api").glob("*.md"))
    assert [name for name in sgworld_mcmc.__all__ if name not in text] == []


def test_imports_point_one_way(monkeypatch):
    """The picture of the page on architecture, whose arrows point down."""
    monkeypatch.syspath_prepend(DOCS)
    import architecture_picture as picture

    level = picture.LEVEL
    up = [
        (room, other)
        for room, other in picture.imports()
        if room in level and other in level and level[room] >= level[other]
    ]
    assert not up
