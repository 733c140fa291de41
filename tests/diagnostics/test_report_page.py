"""The HTML report: one well-formed page that needs nothing else, for every kind of run."""

import builtins
import pickle
import re
import warnings
from html.parser import HTMLParser

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest

from sgworld_mcmc import SGLD, SGWORLD
from sgworld_mcmc.report_page.elements import number, table
from sgworld_mcmc.report_page.parameters import choose, summary
from sgworld_mcmc.report_page.pictures import pictures
from sgworld_mcmc.report_page.write import DRAWN

VOID = {"meta", "img", "br", "hr", "link", "input"}


class Page(HTMLParser):
    """Reads a page, and checks that every element is closed and every id is used once."""

    def __init__(self, text):
        super().__init__()
        self.open, self.tags, self.ids, self.words = [], [], [], []
        self.feed(text)
        self.close()
        assert self.open == []
        assert len(self.ids) == len(set(self.ids))
        self.text = " ".join(" ".join(self.words).split())

    def handle_starttag(self, tag, attrs):
        attributes = dict(attrs)
        self.tags.append((tag, attributes))
        if "id" in attributes:
            self.ids.append(attributes["id"])
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if not {"style", "script"} & set(self.open):
            self.words.append(data)

    def found(self, tag):
        return [attributes for name, attributes in self.tags if name == tag]


def model(x, y):
    slope = numpyro.sample("slope", dist.Normal(0, 2).expand([2]).to_event(1))
    shift = numpyro.sample("<shift> & 'co'", dist.Normal(0, 5))
    numpyro.deterministic("twice", 2 * slope)
    with numpyro.plate("rows", len(y)):
        numpyro.sample("y", dist.Normal(shift + x @ slope, 1.0), obs=y)


def regression(seed=0, rows=200):
    first, second = jax.random.split(jax.random.key(seed))
    x = jax.random.normal(first, (rows, 2))
    return x, x @ jnp.array([1.0, -1.0]) + jax.random.normal(second, (rows,))


def run(num_samples=60, num_chains=2, kind=SGWORLD, model=model, **settings):
    mcmc = kind(model, num_samples=num_samples, num_chains=num_chains, **settings)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        mcmc.run(jax.random.key(0), *regression())
    return mcmc


@pytest.fixture(scope="module")
def mcmc():
    return run()


def read(path):
    text = path.read_text(encoding="utf-8")
    # Nothing is loaded: neither by an address in the page, nor by one in a picture's style.
    assert not re.search(r"https?:|url\(|@import|<script|<link", text)
    return Page(text)


def test_a_page_has_all_parts_and_needs_no_other_file(mcmc, tmp_path):
    path = mcmc.report(tmp_path / "report.html")
    assert path == tmp_path / "report.html"
    page = read(path)
    assert page.text.startswith("model")  # the title
    for name in ("slope[0]", "slope[1]", "<shift> & 'co'", "twice[0]"):
        assert name in page.text
    for words in (
        *("SGWORLD run", "R-hat", "Detailed balance", "Stein identity", "Batch size", "Step size"),
        *("passes over the data", "compiling", f"jax {jax.__version__}", "Python", "Device"),
    ):
        assert words in page.text
    links = [attributes["href"] for attributes in page.found("a")]
    assert {link.removeprefix("#") for link in links} <= set(page.ids)
    images = page.found("img")
    assert len(images) == 2
    assert all("slope[0]" in image["alt"] for image in images)
    assert all(image["src"].startswith("data:image/svg+xml;base64,") for image in images)
    assert all(cell["scope"] in ("row", "col") for cell in page.found("th"))
    assert list(tmp_path.iterdir()) == [path]  # no temporary file is left


def test_a_report_replaces_a_file_only_when_it_is_complete(mcmc, tmp_path, monkeypatch):
    path = tmp_path / "report.html"
    path.write_text("old")
    with monkeypatch.context() as patch:
        patch.setattr("os.replace", lambda *_: (_ for _ in ()).throw(OSError("disk full")))
        with pytest.raises(OSError, match="disk full"):
            mcmc.report(path)
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]
    mcmc.report(str(path))
    assert "<!DOCTYPE html>" in path.read_text(encoding="utf-8")


def test_errors_say_what_is_wrong(mcmc, tmp_path, monkeypatch):
    with pytest.raises(ValueError, match=r"call run\(...\) first"):
        SGWORLD(model).report(tmp_path / "report.html")
    with pytest.raises(FileNotFoundError, match=r"missing.*does not exist"):
        mcmc.report(tmp_path / "missing" / "report.html")
    with pytest.raises(IsADirectoryError, match="is a folder"):
        mcmc.report(tmp_path)
    with pytest.raises(TypeError, match="`path` must be the path of a file, not int"):
        mcmc.report(3)
    imported = builtins.__import__

    def refuse(name, *args, **kwargs):
        if name.partition(".")[0] == "matplotlib":
            raise ImportError(name)
        return imported(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", refuse)
    with pytest.raises(ImportError, match="pip install matplotlib"):
        mcmc.report(tmp_path / "report.html")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("num_samples", [1, 3])
@pytest.mark.slow
def test_too_few_draws_are_no_error(num_samples, tmp_path):
    page = read(run(num_samples, 1, kind=SGLD).report(tmp_path / "report.html"))
    assert "too few to tell how biased they are" in page.text
    assert "SGLD run" in page.text
    assert "1 warning" in page.text


def test_a_run_that_was_pickled_says_what_it_has_not_kept(mcmc, tmp_path):
    again = pickle.loads(pickle.dumps(mcmc))
    page = read(again.report(tmp_path / "report.html"))
    assert "not kept when a run is pickled" in page.text
    assert "slope[0]" in page.text
    assert "seconds of the stages are not kept" in page.text


@pytest.mark.slow
def test_warnings_come_first(tmp_path):
    mcmc = run(30)
    mcmc._last_state = mcmc.last_state._replace(diverged_at=np.array([-1, 40]))
    page = read(mcmc.report(tmp_path / "report.html"))
    before, _, _ = page.text.partition("Summary")
    assert "A chain diverged: chain 1 at minibatch step 40" in before
    assert "step_size" in [word.strip() for word in page.words]  # set as code


@pytest.mark.slow
def test_kinetic_runs_report_temperatures(tmp_path):
    def wide(x, y):
        w = numpyro.sample("w", dist.Normal(0, 1).expand([2, 600]).to_event(2))
        numpyro.sample("y", dist.Normal(jnp.tanh(x @ w).mean(1), 0.5), obs=y)

    mcmc = run(30, model=wide)
    assert mcmc.plan.kinetic is not None
    page = read(mcmc.report(tmp_path / "report.html"))
    for words in ("configurational temperature", "Friction", "velocities", "w[0,0]"):
        assert words in page.text
    assert "more parameters are left out" in page.text
    assert f"{DRAWN} of 1200 parameters" in page.text


def test_draws_that_are_not_finite_are_named(tmp_path):
    draws = {"good": np.random.default_rng(0).normal(size=(2, 50)), "bad": np.full((2, 50), np.nan)}
    assert "not finite" in Page(summary(draws)).text
    drawn = pictures(draws)
    assert "not finite: bad." in Page(drawn).text
    assert "good" in Page(drawn).found("img")[0]["alt"]


def test_scalars_are_chosen_from_all_sites():
    draws = {"w": np.zeros((2, 5, 30, 40)), "sigma": np.zeros((2, 5)), "late": np.zeros((2, 5, 9))}
    names = list(choose(draws, 12, ["w", "sigma"]))
    assert names == [*(f"w[0,{i}]" for i in range(11)), "sigma"]
    assert len(choose(draws, 12)) == 12
    assert list(choose({"w": draws["w"]}, 42))[-1] == "w[1,1]"


def test_texts_are_escaped_and_numbers_short():
    made = table("<b>", ["<i>"], [["</table>"]])
    assert "<b>" not in made
    assert Page(made).found("table") == [{}]
    assert [number(x) for x in (0.0, 1.0, -12345.6, 1e9, np.inf)] == [
        *("0.00", "1.00", "−12346", "1.00e+09", "inf"),
    ]
