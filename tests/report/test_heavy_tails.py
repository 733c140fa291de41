"""The note on standard deviations that a few draws make up."""

import numpy as np

from sgworld_mcmc.report.heavy_tails import heavy_tails

RNG = np.random.default_rng(0)


def test_a_heavy_tail_is_named_with_its_uncertainty():
    samples = {
        "beta": RNG.normal(size=(4, 1000, 2)),
        "df": np.exp(2.0 * RNG.normal(size=(4, 1000))),
        "scale": np.stack([RNG.normal(size=(4, 1000)), RNG.standard_t(1.5, (4, 1000))], -1),
    }
    (note,) = heavy_tails(samples, ("beta", "df", "scale", "left out"))
    assert "df (± " in note and "scale[1] (± " in note and "beta" not in note
    assert "num_samples" in note


def test_nothing_is_said_of_light_tails_few_draws_or_constants():
    light = RNG.gamma(2.0, size=(4, 1000))  # kurtosis 6
    constant = np.ones((4, 1000))
    few = np.exp(2.0 * RNG.normal(size=(4, 50)))
    assert heavy_tails({"a": light, "b": constant, "c": few}, "abc") == []
    assert heavy_tails({"a": np.full((4, 1000), np.nan)}, "a") == []


def test_uncertainty_is_the_scatter_of_repeated_runs():
    """The sd of 4000 independent lognormal draws, over 300 repetitions."""
    draws = np.exp(1.2 * RNG.normal(size=(300, 4, 1000)))
    sds = draws.std((1, 2))
    told = [heavy_tails({"x": x}, "x") for x in draws[:60]]
    numbers = [float(note[0].split("± ")[1].split("%")[0]) / 100 for note in told if note]
    assert len(numbers) > 40
    spread = np.std(np.log(sds))
    assert 0.3 * spread < np.median(numbers) < 2 * spread
