"""A Bayesian network on digits that knows what it does not know: calibration, unseen classes.

python examples/network_digits.py [--hidden 32] [--out out/network_digits]

The network learns the digits 0 to 7 of scikit-learn's digits (pip install scikit-learn), from a few
hundred images. It is then asked about other images of these, and about 8 and 9, which it has never
seen. Posterior predictions, means over networks, are compared with those of one network, trained as
usual. Pictures: whether stated confidence is right (calibration), whether the entropy of the
predictions tells unseen digits from seen ones, and a page on the posterior's predictions alone.

The posterior is right a little more often and knows unseen digits better. It is also too modest on
the clean images that it knows (its line is above the diagonal), so that the log probability of
their labels is lower: this prior allows for images that are more ambiguous than these.
"""

import argparse
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import optax

from sgworld_mcmc import SGWORLD
from sgworld_mcmc.diagnostics import (
    out_of_distribution_auc,
    plot_predictive,
    predictive_entropy,
    predictive_score,
)

CLASSES = 8


def logits_of(weights, images):
    """Return the outputs of a network with one hidden layer, (rows, CLASSES)."""
    hidden = jnp.tanh(images @ weights["w1"] + weights["b1"])
    return hidden @ weights["w2"] + weights["b2"]


def make_model(hidden):
    """Return the model of a network with so many hidden units."""
    shapes = {"w1": (64, hidden), "b1": (hidden,), "w2": (hidden, CLASSES), "b2": (CLASSES,)}

    def model(images, labels=None):
        weights = {}
        for name, shape in shapes.items():
            sd = {"w1": 0.5, "w2": 2.0}.get(name, 1.0)
            prior = dist.Normal(0, sd).expand(shape).to_event(len(shape))
            weights[name] = numpyro.sample(name, prior)
        with numpyro.plate("images", len(images)):
            outcome = dist.Categorical(logits=logits_of(weights, images))
            numpyro.sample("labels", outcome, obs=labels)

    return model, shapes


def load(seed, num_train):
    """Return the training rows, the test rows of the same classes, and the unseen images."""
    try:
        from sklearn.datasets import load_digits
    except ImportError:
        raise SystemExit(
            "This example takes its data from scikit-learn, which is not installed: "
            "pip install scikit-learn"
        ) from None
    images, labels = load_digits(return_X_y=True)
    images = (images / 16 - 0.3).astype(np.float32)
    seen = np.random.default_rng(seed).permutation(np.flatnonzero(labels < CLASSES))
    train, test = seen[:num_train], seen[num_train:]
    unseen = images[labels >= CLASSES]
    return (images[train], labels[train]), (images[test], labels[test]), unseen


def train_one(rng_key, shapes, images, labels, steps=2000):
    """Return the weights of one network, trained by Adam as usual, on the likelihood alone."""
    keys = jax.random.split(rng_key, len(shapes))
    pairs = zip(shapes.items(), keys, strict=True)
    weights = {name: 0.1 * jax.random.normal(key, shape) for (name, shape), key in pairs}
    optimiser = optax.adam(0.01)

    def loss(weights):
        outputs = logits_of(weights, images)
        return optax.softmax_cross_entropy_with_integer_labels(outputs, labels).mean()

    def step(carry, _):
        weights, state = carry
        update, state = optimiser.update(jax.grad(loss)(weights), state)
        return (optax.apply_updates(weights, update), state), None

    (weights, _), _ = jax.lax.scan(step, (weights, optimiser.init(weights)), None, steps)
    return weights


def scores(probabilities, labels, unseen):
    """Return accuracy, mean log probability of the labels, and how well unseen images are told.

    The last is how often an unseen image has the larger entropy than a seen one.
    """
    score = predictive_score(probabilities, labels)
    apart = out_of_distribution_auc(predictive_entropy(probabilities), predictive_entropy(unseen))
    return score.accuracy, score.log_likelihood, apart


def draw_calibration(axis, found, labels):
    """Show how often predictions are right against how sure they are."""
    edges = np.array([0, 0.5, 0.7, 0.85, 0.95, 1.0001])
    for color, (name, (seen, _)) in zip(("tab:red", "tab:blue"), found.items(), strict=True):
        sure, right = seen.max(1), seen.argmax(1) == labels
        bins = np.digitize(sure, edges)
        kept = [b for b in np.unique(bins) if np.sum(bins == b) >= 5]
        x = np.array([sure[bins == b].mean() for b in kept])
        y = np.array([right[bins == b].mean() for b in kept])
        number = np.array([np.sum(bins == b) for b in kept])
        # The interval is that of Agresti and Coull, which does not vanish at one.
        middle = (y * number + 2) / (number + 4)
        half = 1.64 * np.sqrt(middle * (1 - middle) / (number + 4))
        axis.vlines(x, np.maximum(middle - half, 0), np.minimum(middle + half, 1), color=color)
        axis.plot(x, y, "o-", color=color, label=name)
    axis.plot([0.3, 1], [0.3, 1], "k:", lw=1)
    axis.set(xlabel="stated confidence", ylabel="part of correct answers", ylim=(0, 1.02))
    axis.set_title("Calibration on the test images (90 % intervals)", fontsize=10)
    axis.legend(frameon=False, loc="upper left")


def draw_unseen(axis, name, seen, unseen):
    """Show the entropies of predictions for seen and unseen digits."""
    bins = np.linspace(0, np.log(CLASSES), 30)
    kinds = ((seen, "digits 0 to 7", "0.6"), (unseen, "8 and 9, never seen", "tab:orange"))
    for values, label, color in kinds:
        axis.hist(
            predictive_entropy(values), bins, density=True, alpha=0.6, color=color, label=label
        )
    apart = out_of_distribution_auc(predictive_entropy(seen), predictive_entropy(unseen))
    axis.set(xlabel="entropy of the prediction (nats)", yticks=[], yscale="log")
    axis.set_title(f"{name}: unseen is less sure in {100 * apart:.1f} % of pairs", fontsize=10)
    axis.legend(frameon=False)


def draw_pictures(folder, found, labels):
    """Write the pictures of both methods and return their paths."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    folder.mkdir(parents=True, exist_ok=True)
    paths = [folder / "calibration.png", folder / "unseen.png"]
    figure, axis = plt.subplots(figsize=(5.5, 4.5), layout="constrained")
    draw_calibration(axis, found, labels)
    axis.spines[["top", "right"]].set_visible(False)
    figure.savefig(paths[0], dpi=150)
    plt.close(figure)
    figure, axes = plt.subplots(1, 2, figsize=(11, 3.8), layout="constrained", sharey=True)
    for axis, (name, (seen, unseen)) in zip(axes, found.items(), strict=True):
        draw_unseen(axis, name, seen, unseen)
        axis.spines[["top", "right", "left"]].set_visible(False)
    figure.savefig(paths[1], dpi=150)
    plt.close(figure)
    return paths


def main(argv=None):
    """Sample, predict, print scores, draw; return the scores by method, and the paths."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--hidden", type=int, default=32, help="hidden units")
    parser.add_argument("--num-train", type=int, default=300, help="images to learn from")
    parser.add_argument("--num-samples", type=int, default=200, help="draws of each of 4 chains")
    parser.add_argument("--seed", type=int, default=0, help="seed of split and sampler")
    parser.add_argument("--out", type=Path, default=Path("out/network_digits"), help="for pictures")
    options = parser.parse_args(argv)

    model, shapes = make_model(options.hidden)
    train, (images, labels), unseen = load(options.seed, options.num_train)
    one_key, run_key = jax.random.split(jax.random.key(options.seed))

    def predict(sites):  # probabilities are kept instead of weights
        return {
            "seen": jax.nn.softmax(logits_of(sites, images)),
            "unseen": jax.nn.softmax(logits_of(sites, unseen)),
        }

    one = predict(train_one(one_key, shapes, *train))
    some = lambda sites: predict(sites)["seen"][:20]  # noqa: E731
    mcmc = SGWORLD(model, keep=predict, quantities=some, num_samples=options.num_samples)
    mcmc.run(run_key, *train)
    print(mcmc.bias_report())
    kept = mcmc.get_samples()
    found = {
        "one trained network": tuple(np.asarray(one[k]) for k in ("seen", "unseen")),
        "posterior": tuple(np.asarray(kept[k]).mean(0) for k in ("seen", "unseen")),
    }
    print(f"{'':20} accuracy   log probability   unseen told from seen")
    result = {}
    for name, (probabilities, others) in found.items():
        result[name] = scores(probabilities, labels, others)
        accuracy, log_probability, apart = result[name]
        print(f"{name:20} {accuracy:8.3f}   {log_probability:15.3f}   {apart:21.3f}")
    paths = [*draw_pictures(options.out, found, labels), options.out / "predictions.png"]
    chains = {k: np.asarray(x) for k, x in mcmc.get_samples(group_by_chain=True).items()}
    plot_predictive(
        chains["seen"], labels, out_of_distribution=chains["unseen"], bins=8, path=paths[-1]
    )
    print("\n".join(f"wrote {path}" for path in paths))
    return result, paths


if __name__ == "__main__":
    main()
