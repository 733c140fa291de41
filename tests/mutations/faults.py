"""Deliberate faults, each a small change of one line, and the fast tests that see them.

Each is a slip that somebody could make, and that leaves a program that runs.
"""

from typing import NamedTuple

__all__ = ["FAULTS", "Fault"]


class Fault(NamedTuple):
    """One fault.

    Attributes
    ----------
    name
        What is wrong, in words.
    file
        The file, below ``sgworld_mcmc/``.
    old, new
        The text that is replaced, which occurs once, and its replacement.
    tests
        The files or tests that are to notice, below ``tests/``.
    """

    name: str
    file: str
    old: str
    new: str
    tests: tuple[str, ...]


STEPS = "contract/test_contract.py::test_a_step_of_an_integrator_is_the_affine_map_that_it_says"
GRADIENTS = "contract/test_contract.py::test_gradients_are_unbiased_and_need_what_they_say"
RESIDUALS = (
    "contract/test_contract.py::test_the_residual_of_a_gradient_is_what_differs_from_batch_to_batch"
)
PRODUCT = "contract/test_contract.py::test_a_draw_is_the_product_of_its_parts"
WEIGHTS = "contract/test_contract.py::test_weights_make_batches_of_any_size_add_up"
FREE = "kernels/test_ubu.py::test_a_step_has_the_covariances_of_free_motion"
VISITS = "contract/test_contract.py::test_an_order_visits_batches_as_it_says"
COORDINATES = "contract/test_contract.py::test_coordinates_are_one_linear_map"
ORDERS = "properties/test_orders_and_feeds.py::test_orders"
FRESH = "data/test_batches.py::test_orders"
ANEW = "properties/test_orders_and_feeds.py::test_rows_are_dealt_anew"
MODEL = "model/test_numpyro_model.py::test_mean_over_batches_is_numpyros_full_gradient"
NOISE = "hygiene/test_public_paths.py::test_noise_of_different_segments_is_independent"
KEYS = "sampling/test_draws.py::test_the_keys_of_a_new_state_are_all_different"
RENEWED = "sampling/test_draws.py::test_every_epoch_of_a_chain_has_its_own_order"
TEMPERED = "hygiene/test_public_paths.py::test_the_stein_check_knows_the_temperature"
DIVERGED = "sampling/test_draws.py::test_a_chain_that_diverges_stays_at_its_last_draw"
POINTS = "kernels/test_ubu.py::test_three_points_of_different_leaves_and_keys_are_independent"
WORDS = "kernels/test_ubu.py::test_all_bits_of_the_words_are_fair_and_depend_on_all_bits"
SQUARES = "data/test_permutation.py::test_sizes_beside_squares"
SHARED = "sampling/test_share_batches.py::test_all_chains_have_one_order_which_is_new_each_epoch"
APART = "sampling/test_by_site.py::test_cut_and_joined_are_inverse"
MOMENTUM = "contract/test_contract.py::test_a_step_with_momentum_is_the_affine_map_that_it_says"

FAULTS = (
    Fault(
        "sign of the injected noise",
        "integrators/euler.py",
        "x + step_size * g + scale * xi",
        "x + step_size * g - scale * xi",
        (STEPS,),
    ),
    Fault(
        "noise of half the variance",
        "integrators/euler.py",
        "jnp.sqrt(2 * step_size * temperature)",
        "jnp.sqrt(step_size * temperature)",
        (STEPS,),
    ),
    Fault(
        "averaged noise forgets the last step",
        "integrators/averaged.py",
        "lambda a, b: (a + b) / 2",
        "lambda a, b: b",
        (STEPS,),
    ),
    Fault(
        "N/B is missing before the likelihood of a batch",
        "model/numpyro_model.py",
        "return prior + factor * sum(",
        "return prior + sum(",
        (MODEL,),
    ),
    Fault(
        "the row that some batches have more is dropped",
        "gradients/weighting.py",
        "scale * (length * g + more * e)",
        "scale * (length * g)",
        (WEIGHTS,),
    ),
    Fault(
        "ragged batches get the weight one",
        "gradients/weighting.py",
        "scale = feed.num_batches / feed.size",
        "scale = 1 / (length + batch.has_extra)",
        (WEIGHTS,),
    ),
    Fault(
        "the batches of an epoch begin one place too late",
        "sampling/chain.py",
        "jax.lax.dynamic_slice(order, (now % count,), (length,))",
        "jnp.roll(order, -1)[now % count + jnp.arange(length)]",
        (PRODUCT,),
    ),
    Fault(
        "a new order comes one step late",
        "sampling/chain.py",
        "begins = (now % count == 0) & (now > 0)",
        "begins = (now % count == 1) & (now > 0)",
        (RENEWED,),
    ),
    Fault(
        "the symmetric order turns back in the wrong epochs",
        "data/orders/symmetric.py",
        "epoch % 2 == 1",
        "epoch % 2 == 0",
        (ORDERS,),
    ),
    Fault(
        "fresh orders are not fresh",
        "data/orders/fresh.py",
        "return random_permutation(rng_key, order.shape[0])",
        "return order",
        (FRESH,),
    ),
    Fault(
        "batches drawn with replacement are drawn without",
        "data/orders/replacement.py",
        "jax.random.randint(rng_key, (count,), 0, count, dtype=jnp.int32)",
        "jax.random.permutation(rng_key, count).astype(jnp.int32)",
        (VISITS,),
    ),
    Fault(
        "rows that should be dealt anew stay where they are",
        "data/dealt_rows.py",
        "return deal_rows(rng_key, self.size, self.num_batches)",
        "return dealing",
        (ANEW,),
    ),
    Fault(
        "the Jacobian of constrained parameters is dropped",
        "model/numpyro_model.py",
        "log_dets[name] = sum_rightmost(log_det, surplus)",
        "log_dets[name] = 0 * sum_rightmost(log_det, surplus)",
        (MODEL,),
    ),
    Fault(
        "the key of a segment is used again in the next one",
        "sampling/chain.py",
        "    return _Walk(\n        rng_key,",
        "    return _Walk(\n        walk.rng_key,",
        (NOISE,),
    ),
    Fault(
        "noise and the chain's later numbers share a key",
        "sampling/chain.py",
        "rng_key=chain_key,",
        "rng_key=noise_key,",
        (KEYS,),
    ),
    Fault(
        "U without its covariance",
        "integrators/ubu.py",
        "(x + lead * (v + new) + root * spread * xi)",
        "(x + 2 * lead * v + root * spread * xi)",
        (STEPS,),
    ),
    Fault(
        "U keeps too much velocity",
        "integrators/ubu.py",
        "xp.exp(-y),",
        "xp.exp(-y / 2),",
        (FREE,),
    ),
    Fault(
        "sign of the control variates",
        "gradients/control_variate.py",
        "return each.mean(0) - each",
        "return each - each.mean(0)",
        (RESIDUALS,),
    ),
    Fault(
        "Taylor gradients forget the slope at the origin",
        "gradients/taylor.py",
        "return value - turned - at_origin",
        "return value - turned",
        (GRADIENTS,),
    ),
    Fault(
        "Taylor gradients forget the Hessian of all rows",
        "gradients/taylor.py",
        "return noisy + controls.gradient + turned",
        "return noisy + controls.gradient",
        (GRADIENTS,),
    ),
    Fault(
        "a gradient is pulled back by the transposed matrix",
        "coordinates/dense.py",
        "return gradient @ self.scale\n",
        "return gradient @ self.scale.T\n",
        (COORDINATES,),
    ),
    Fault(
        "momentum of the wrong sign",
        "integrators/momentum.py",
        "self.momentum * v - g",
        "-self.momentum * v - g",
        (MOMENTUM,),
    ),
    Fault(
        "the bridge factor of half the time",
        "theory/time_functions.py",
        "coth_excess(np.asarray(time, dtype=float) / 2)",
        "coth_excess(np.asarray(time, dtype=float) / 4)",
        ("theory/test_variance_bias.py",),
    ),
    Fault(
        "draws are written one place late",
        "sampling/program.py",
        "return state, keep(state, buffers, slot + number)",
        "return state, keep(state, buffers, slot + number + 1)",
        ("sampling/test_loop.py",),
    ),
    Fault(
        "a diverged chain goes on",
        "sampling/chain.py",
        "position = jnp.where(diverging, state.position, dynamics",
        "position = jnp.where(False, state.position, dynamics",
        (DIVERGED,),
    ),
    Fault(
        "the audit takes width for precision",
        "auditing/identities.py",
        "width = -0.5 * np.log(spread)",
        "width = 0.5 * np.log(spread)",
        ("auditing/test_audit.py::test_exact_draws_pass_and_errors_are_measured",),
    ),
    Fault(
        "the Stein check forgets the temperature",
        "report/stein_check.py",
        "(chosen.shape)) / np.sqrt(tau)",
        "(chosen.shape))",
        (TEMPERED,),
    ),
    Fault(
        "leaves of a position have the same three points",
        "integrators/normals.py",
        "random_words(seeds, int(start), size)",
        "random_words(seeds, 0, size)",
        (POINTS,),
    ),
    Fault(
        "words know one of their two seeds only",
        "hashing.py",
        "mixed(mixed(counter ^ seeds[0]) + seeds[1])",
        "mixed(mixed(counter ^ seeds[0]))",
        (WORDS,),
    ),
    Fault(
        "numbers outside of a permutation are cut off",
        "data/permutation.py",
        "jnp.where(outside(numbers), turn(numbers), numbers)",
        "jnp.minimum(numbers, np.uint32(size - 1))",
        (SQUARES,),
    ),
    Fault(
        "shared orders are the same in each epoch",
        "sampling/chain.py",
        "_shared_keys(clock.shared, now)",
        "_shared_keys(clock.shared, 0)",
        (SHARED,),
    ),
    Fault(
        "sites of a cut position change places",
        "sampling/by_site.py",
        "tuple(jax.lax.split(x, sizes))",
        "tuple(jax.lax.split(x, sizes[::-1]))",
        (APART,),
    ),
)
