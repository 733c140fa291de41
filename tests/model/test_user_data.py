"""Data in the forms that users have them give the draws that plain arrays give."""

import jax
import jax.numpy as jnp
import models
import narwhals as nw
import numpy as np
import numpyro
import numpyro.distributions as dist
import pandas as pd
import pytest
import scipy.sparse
from jax.experimental.sparse import BCOO, BCSR
from numpyro.infer import MCMC

from sgworld_mcmc import SGWORLD
from sgworld_mcmc.streaming.source import SourceError

pytestmark = pytest.mark.slow

KEY = jax.random.key(0)
# Nothing to choose: the set-up compiles little.
SETTINGS = {"gradient": "plain", "batch_size": 20, "step_size": 0.05}
SETTINGS |= {"num_samples": 30, "num_warmup": 3, "num_chains": 2}
X, Y = models.regression_data()
NAMES = ["age", "dose", "sex"]
FRAME = pd.DataFrame(X, columns=NAMES)
COLUMN = pd.Series(Y, name="response")


def from_dict(data):
    """The model of one argument, whose columns are looked up by name."""
    features = jnp.stack([data["age"], data["dose"], data["sex"]], axis=-1)
    models.plated(features, data["y"])


def intercepts(group, y, num_groups=None):
    a = numpyro.sample("a", dist.Normal(0, 1).expand([num_groups or 3]))
    with numpyro.plate("data", len(y)):
        numpyro.sample("y", dist.Normal(a[group], 1), obs=y)


def plate_of_categories(group, y):
    with numpyro.plate("country", 3):
        a = numpyro.sample("a", dist.Normal(0, 1))
    numpyro.sample("y", dist.Normal(a[group], 1), obs=y)


def logistic(X, y=None):
    b = numpyro.sample("b", dist.Normal(0, 1).expand([3]).to_event(1))
    numpyro.sample("y", dist.Bernoulli(logits=X @ b), obs=y)


@pytest.fixture(scope="module")
def compiled():
    """Runs whose compiled functions all others use, by model."""
    return {}


@pytest.fixture
def run(compiled):
    """Return a function that runs a model on data, with few compilations."""

    def run(model, *args, **kwargs):
        mcmc = SGWORLD(model, **SETTINGS)
        if model in compiled:
            mcmc.sampler.share(compiled[model].sampler)
        compiled.setdefault(model, mcmc)
        mcmc.run(KEY, *args, **kwargs)
        return mcmc

    return run


def structured():
    fields = [(name, np.float32) for name in (*NAMES, "y")]
    return np.array([(*x, y) for x, y in zip(X, Y, strict=True)], fields)


FORMS = {
    "frame and column": (FRAME, COLUMN),
    "frame of one type, in one array": (pd.DataFrame(np.asfortranarray(X)), Y),
    "nullable": (FRAME.astype("Float32"), COLUMN.astype("Float32")),
    "narwhals": (nw.from_native(FRAME), nw.from_native(COLUMN, series_only=True)),
    "lists": (X.tolist(), Y.tolist()),
    "array and list": (X, Y.tolist()),
    "other byte order": (X.astype(">f4"), Y.astype(">f4")),
    "mask that hides nothing": (np.ma.masked_array(X), np.ma.masked_array(Y, False)),
    "matrix": (np.matrix(X), Y),
}


@pytest.mark.parametrize("form", FORMS)
def test_the_draws_are_those_of_plain_arrays_and_a_second_run_does_no_set_up(run, form):
    expected = run(models.plated, X, Y).get_samples()
    mcmc = run(models.plated, *FORMS[form])
    np.testing.assert_array_equal(mcmc.get_samples()["b"], expected["b"])
    plan, rows = mcmc.plan, mcmc.data.feed
    mcmc.run(jax.random.key(1), *FORMS[form])
    assert mcmc.plan is plan and mcmc.data.feed is rows
    assert mcmc.to_arviz()["log_likelihood"]["y"].shape == (2, 30, len(Y))


SPARSE = {
    "csr": scipy.sparse.csr_array,
    "csc matrix": scipy.sparse.csc_matrix,
    "coo with duplicates": lambda x: scipy.sparse.coo_array(
        (np.tile(x[x != 0] / 2, 2), tuple(np.tile(i, 2) for i in np.nonzero(x))), x.shape
    ),
    "BCOO": BCOO.fromdense,
    "BCOO with a batch axis": lambda x: BCOO.fromdense(x, n_batch=1),
    "BCSR": BCSR.fromdense,
    "pandas": lambda x: pd.DataFrame(x).astype(pd.SparseDtype("float32", 0.0)),
}


@pytest.mark.parametrize("form", SPARSE)
@pytest.mark.filterwarnings("ignore:.*:jax.experimental.sparse.CuSparseEfficiencyWarning")
def test_sparse_matrices_give_the_draws_of_dense_ones(run, form):
    few = X * (np.abs(X) > 0.7)  # rows with 0 to 3 entries
    expected = run(models.plateless, few, Y).get_samples()
    mcmc = run(models.plateless, SPARSE[form](few), Y)
    np.testing.assert_allclose(mcmc.get_samples()["b"], expected["b"], atol=1e-4)
    plan = mcmc.plan
    mcmc.run(jax.random.key(1), SPARSE[form](few), Y)
    assert mcmc.plan is plan
    mcmc.run(KEY, SPARSE[form](2 * few), Y)
    assert mcmc.plan is not plan


def test_the_default_settings_work_on_a_sparse_matrix():
    rng = np.random.default_rng(0)
    columns = rng.integers(0, 6, 500)
    y = rng.normal(size=6)[columns] + rng.normal(size=500)
    one_hot = scipy.sparse.csr_array((np.ones(500), columns, np.arange(501)), shape=(500, 6))

    def model(X, y):
        beta = numpyro.sample("beta", dist.Normal(0, 1).expand([X.shape[1]]).to_event(1))
        numpyro.sample("y", dist.Normal(X @ beta, 1), obs=y)

    mcmc = SGWORLD(model, num_samples=500)
    mcmc.run(KEY, one_hot, y)
    draws = mcmc.get_samples()["beta"]
    count = np.bincount(columns)
    mean = np.bincount(columns, y) / (count + 1)
    np.testing.assert_allclose((draws.mean(0) - mean) * np.sqrt(count + 1), 0, atol=0.2)
    np.testing.assert_allclose(draws.std(0) * np.sqrt(count + 1), 1, atol=0.1)
    assert np.isfinite(mcmc.bias_report().step_size)
    constants = mcmc.to_arviz()["constant_data"]
    assert set(constants.data_vars) == {"X.values", "X.columns"}


def test_a_sparse_matrix_never_becomes_dense(run):
    size, width = 2000, 10**7
    columns = np.random.default_rng(0).integers(0, width, size)
    X = scipy.sparse.csr_array((np.ones(size), columns, np.arange(size + 1)), shape=(size, width))

    def model(X, y):
        a = numpyro.sample("a", dist.Normal(0, 1))
        assert X.shape[1] == width
        numpyro.sample("y", dist.Normal(a * X.sum(1).todense(), 1), obs=y)

    mcmc = run(model, X, np.arange(size) / size)
    assert sum(x.nbytes for x in jax.tree.leaves(mcmc.data.feed)) < 100 * size


def test_square_sparse_matrices_and_those_of_other_lengths_stay_what_they_are(run):
    seen = []

    def model(penalty, neighbours, y):
        seen.append((type(penalty), type(neighbours)))
        numpyro.sample("y", dist.Normal(numpyro.sample("mu", dist.Normal(0, 1)), 1), obs=y)

    run(model, BCOO.fromdense(jnp.eye(4)), scipy.sparse.eye_array(3), Y)
    assert set(seen) == {(BCOO, scipy.sparse.dia_array)}


def test_long_rows_of_a_sparse_matrix_are_named(run, monkeypatch):
    monkeypatch.setattr("sgworld_mcmc.data.sparse_rows.MANY", 100)
    X = scipy.sparse.lil_array((203, 50))
    X[:, 0], X[7] = 1.0, 2.0

    def model(X, y):
        a = numpyro.sample("a", dist.Normal(0, 1))
        numpyro.sample("y", dist.Normal(X @ jnp.full(50, a), 1), obs=y)

    with pytest.warns(UserWarning, match="Row 7 of `X` has 50 entries and the mean row 1.24"):
        run(model, X, Y)


def test_structured_arrays_are_dicts_of_their_fields(run):
    expected = run(models.plated, X, Y).get_samples()["b"]
    dicts = {**{name: X[:, i] for i, name in enumerate(NAMES)}, "y": Y}
    for data in (structured(), dicts, {k: pd.Series(v) for k, v in dicts.items()}):
        draws = run(from_dict, data).get_samples()["b"]
        np.testing.assert_allclose(draws, expected, atol=1e-5)


def test_memory_maps_are_not_copied_on_the_way_in(run, tmp_path):
    np.save(tmp_path / "X.npy", X)
    mapped = np.load(tmp_path / "X.npy", mmap_mode="r")
    mcmc = run(models.plated, mapped, Y)
    assert mcmc._args[0] is mapped
    expected = run(models.plated, X, Y).get_samples()["b"]
    np.testing.assert_array_equal(mcmc.get_samples()["b"], expected)


def test_changed_frames_are_set_up_again(run):
    frame = FRAME.copy()
    mcmc = run(models.plated, frame, Y)
    plan, first = mcmc.plan, np.asarray(mcmc.get_samples()["b"])
    mcmc.run(KEY, frame.copy(), Y)  # another frame with the same numbers
    assert mcmc.plan is plan
    frame.loc[3, "age"] += 1.0
    mcmc.run(KEY, frame, Y)
    assert mcmc.plan is not plan and np.any(mcmc.get_samples()["b"] != first)


def test_truth_values_and_whole_numbers_are_columns_like_others(run):
    table = pd.DataFrame({"a": X[:, 0] > 0, "b": np.arange(203) % 7, "c": X[:, 2]})
    expected = run(models.plated, table.to_numpy(float), Y).get_samples()["b"]
    draws = run(models.plated, table, Y).get_samples()["b"]
    np.testing.assert_array_equal(draws, expected)
    labels = pd.Series(Y > 0)
    expected = run(logistic, X, Y > 0).get_samples()["b"]
    for values in (labels, labels.astype("boolean"), labels.tolist()):
        np.testing.assert_array_equal(run(logistic, X, values).get_samples()["b"], expected)


def test_names_of_columns_are_coordinates(run):
    posterior = run(models.plated, FRAME, COLUMN).to_arviz()["posterior"]
    assert posterior["b"].dims == ("chain", "draw", "X_column")
    assert posterior["X_column"].values.tolist() == NAMES
    given = {"dims": {"b": ["coefficient"]}, "coords": {"coefficient": [1, 2, 3]}}
    mine = run(models.plated, FRAME, COLUMN).to_arviz(**given)["posterior"]
    assert mine["coefficient"].values.tolist() == [1, 2, 3]
    labelled = run(logistic, FRAME, Y > 0).to_arviz()["posterior"]
    assert labelled["X_column"].values.tolist() == NAMES


def test_categories_are_codes_with_their_names_as_coordinates(run):
    codes = np.arange(203) % 3
    group = pd.Series(np.array(["north", "south", "west"])[codes], dtype="category")
    expected = run(intercepts, codes, Y).get_samples()["a"]
    for column in (group, nw.from_native(group, series_only=True)):
        mcmc = run(intercepts, column, Y)
        np.testing.assert_array_equal(mcmc.get_samples()["a"], expected)
        posterior = mcmc.to_arviz()["posterior"]
        assert posterior["group_category"].values.tolist() == ["north", "south", "west"]
    posterior = run(plate_of_categories, group, Y).to_arviz()["posterior"]
    assert posterior["country"].values.tolist() == ["north", "south", "west"]


def test_ambiguous_axes_get_no_names(run):
    def both(X, group, y):
        b = numpyro.sample("b", dist.Normal(0, 1).expand([3]))
        a = numpyro.sample("a", dist.Normal(0, 1).expand([3]))
        numpyro.sample("y", dist.Normal(X @ b + a[group], 1), obs=y)

    posterior = run(both, FRAME, np.arange(203) % 3, Y).to_arviz()["posterior"]
    assert posterior["b"].dims[-1] == "b_dim_0"
    assert run(models.plated, X, Y).to_arviz()["posterior"]["b"].dims[-1] == "b_dim_0"


def test_lists_that_are_settings_of_the_model_stay_lists(run):
    seen = []

    def model(X, y, scales, widths, pair):
        seen.append((scales, widths, pair))
        b = numpyro.sample("b", dist.Normal(0, jnp.array(scales)).to_event(1))
        numpyro.sample("y", dist.Normal(X @ b, 1), obs=y)

    # As many scales as rows are still no data: the model wants all of them.
    wide = np.random.default_rng(0).normal(size=(40, 40)).astype(np.float32)
    settings = ([1.0, 2.0] * 20, [16, 16], (1, 2))
    run(model, wide, np.ones(40, np.float32), *settings)
    assert all(s == settings for s in seen)


def test_a_plain_numpyro_mcmc_reads_frames_and_sparse_matrices():
    sampler = SGWORLD(models.plateless, **SETTINGS).sampler
    mcmc = MCMC(sampler, num_warmup=3, num_samples=30, progress_bar=False)
    mcmc.run(KEY, scipy.sparse.csr_array(X), COLUMN)
    sparse = np.asarray(mcmc.get_samples()["b"])
    mcmc.run(KEY, X, Y)
    np.testing.assert_allclose(mcmc.get_samples()["b"], sparse, atol=1e-4)


TIMES = pd.Series(pd.date_range("2020", periods=203, tz="Europe/Berlin"))
WORDS = pd.Series(np.where(Y > 0, "yes", "no"))
MISSING = pd.Series([1, None, *range(201)], dtype="Int64")


@pytest.mark.parametrize(
    ("args", "message"),
    [
        ((FRAME.assign(t=TIMES), Y), r"`X\['t'\]` holds time stamps .*Berlin.*days"),
        ((FRAME.assign(w=WORDS), Y), r"`X\['w'\]` holds strings .*category"),
        ((nw.from_native(FRAME.assign(w=WORDS)), Y), r"`X\['w'\]` holds strings .*category"),
        ((nw.from_native(FRAME.assign(t=TIMES)), Y), r"`X\['t'\]` holds time stamps"),
        ((FRAME.assign(w=WORDS.astype("category")), Y), "column 'w' of `X` holds categories"),
        ((FRAME.assign(o=[object()] * 203), Y), r"`X\['o'\]` holds Python objects"),
        ((FRAME.assign(m=MISSING), Y), r"`X\['m'\]` has 1 missing values .*row 1"),
        ((FRAME.assign(age=np.nan), Y), "in 203 of 203 rows .*in the columns 'age'"),
        ((X, WORDS), "`y` holds strings"),
        ((X, WORDS.to_numpy("U")), r"`y` is an array of strings .*numpy.unique"),
        ((X, Y.astype(object)), r"`y` is an array of Python objects .*astype\(float\)"),
        ((X, TIMES.to_numpy("M8[s]")), "`y` is an array of dates .*timedelta64"),
        ((X, np.ma.masked_array(Y, Y > 1)), "`y` is a masked array with 36 masked"),
        ((iter([X]), Y), "`X` is a list_iterator.*pass the arrays of all rows"),
        (((x for x in X), Y), "`X` is a generator"),
        ((X, Y[:-1]), "different numbers of rows: `X` has 203, `y` has 202"),
        ((X, Y[:, None]), r"every row against every other.*y\[:, 0\]"),
        ((X, None), "`y` is None"),
    ],
)
def test_what_cannot_be_read_is_named_with_the_cure(args, message):
    with pytest.raises((TypeError, ValueError), match=message):
        SGWORLD(models.plateless).run(KEY, *args)


def test_codes_of_groups_in_floating_point_are_named():
    def model(group, y):
        effect = numpyro.sample("effect", dist.Normal(0, 1).expand([3]).to_event(1))
        with numpyro.plate("rows", len(y)):
            numpyro.sample("y", dist.Normal(effect[group], 1), obs=y)

    codes = np.arange(203) % 3.0
    with pytest.raises(TypeError, match=r"are `group`, `y`: give codes .*\.astype\(int\)"):
        SGWORLD(model).run(KEY, codes, Y)


def test_a_loader_is_refused():
    class Loader:
        batch_size = 10

        def __iter__(self):
            return iter([X])

    with pytest.raises(TypeError, match="`X` is a Loader, which gives the data piece by piece"):
        SGWORLD(models.plateless).run(KEY, Loader(), Y)


def revenue(x, y):
    b = numpyro.sample("b", dist.Normal(0, 10).expand([2]).to_event(1))
    with numpyro.plate("rows", len(y)):
        numpyro.sample("y", dist.Normal(b[0] + b[1] * (x / 1e9 - 1), 1.0), obs=y)


@pytest.mark.parametrize("kind", ["array", "frame", "list"])
def test_integers_of_more_than_32_bits_are_not_wrapped(kind):
    rng = np.random.default_rng(0)
    x = rng.lognormal(21, 0.7, 400).astype(np.int64)
    assert (x > 2**31).mean() > 0.1
    y = x / 1e9 + rng.standard_normal(400)
    forms = {"array": x, "frame": pd.Series(x), "list": x.tolist()}
    centers = []
    for given in (forms[kind], x.astype(float)):
        mcmc = SGWORLD(revenue, progress_bar=False, num_samples=20)
        mcmc.run(jax.random.key(0), given, y if kind != "list" else y.tolist())
        centers.append(np.asarray(mcmc.get_samples()["b"]))
    np.testing.assert_allclose(*centers, rtol=1e-4)


def test_streamed_integers_of_more_than_32_bits_are_refused(tmp_path):
    x = np.arange(3000) + 10
    x[1234] = 2**31
    np.save(tmp_path / "x", x), np.save(tmp_path / "y", np.zeros(3000))
    mapped = (np.load(tmp_path / f"{name}.npy", mmap_mode="r") for name in "xy")
    with pytest.raises(SourceError, match=r"`x` has integers of more than 32 bits, in row 1234 "):
        SGWORLD(revenue, stream=True, progress_bar=False).set_up(jax.random.key(0), *mapped)
