"""The bias report as tables and sentences, of a run with a mode or of kinetic dynamics."""

from typing import Any, NamedTuple

import numpy as np

from sgworld_mcmc.report import bias_report, kinetic_report
from sgworld_mcmc.report.bias_report import BiasReport
from sgworld_mcmc.report.kinetic_report import KineticReport, expected, measured
from sgworld_mcmc.report_page.elements import items, paragraph, table

__all__ = ["Errors", "errors_of"]

# Chains with fewer draws are not judged.
FEWEST = 4
_EXPLAINED = (
    "The parameters are the unconstrained ones in which the chains move: the logarithm of a "
    "positive one. The error of the variance is relative, and the shift of the mean is in "
    "posterior standard deviations (sd). Predictions come from the theory, with the gradients' "
    "noise measured by pilot chains. The check measures the same errors at draws of the run, by "
    "Stein's identity, with its standard error after ±."
)
_KINETIC_EXPLAINED = (
    "This run follows kinetic dynamics without a mode: errors are told by the temperatures of the "
    "sites, which are one for the posterior, and by quantities computed from the draws. The "
    "expected error of a quantity is in its posterior standard deviations (sd)."
)


class Errors(NamedTuple):
    """What is known of the errors of a run.

    Attributes
    ----------
    html
        The tables and sentences.
    warnings
        Sentences that call for action.
    verdict
        A sentence that sums up, if nothing calls for action.
    time_per_epoch
        The time that an epoch spans, or None.
    """

    html: str
    warnings: tuple[str, ...]
    verdict: str
    time_per_epoch: float | None = None


def errors_of(mcmc: Any, control: bool) -> Errors:
    """Make the bias report of a run; if this is impossible, the result says why."""
    draws = np.shape(mcmc.draws().positions)[1]
    if draws < FEWEST:
        return _missing(
            f"There {'is 1 draw' if draws == 1 else f'are {draws} draws'} in a chain, too few to "
            f"tell how biased they are: {FEWEST} or more are needed, and hundreds are better."
        )
    try:
        report = mcmc.bias_report(control=control)
    except (ValueError, ArithmeticError, np.linalg.LinAlgError) as error:
        if control:  # the user has asked for what is impossible
            raise
        return _missing(f"The bias report could not be made: {error}")
    if isinstance(report, KineticReport):
        tables, explained = _kinetic_tables(report), _KINETIC_EXPLAINED
    else:
        tables, explained = _bias_table(report), _EXPLAINED
    lines = report.footnotes()
    warnings = tuple(line.removeprefix("! ") for line in lines if line.startswith("! "))
    plain = [line for line in lines if not line.startswith("! ")]
    good = [line for line in plain if line.startswith("Nothing to do")]
    said = [line for line in plain if line not in good]
    if isinstance(report, KineticReport):
        said.append(
            "Detailed balance: not tested, because the velocities of kinetic dynamics change sign "
            "when time is reversed."
        )
    html = "\n".join([paragraph(explained), tables, items(said), items(warnings, "warnings")])
    return Errors(html, warnings, " ".join(good), float(report.time_per_epoch))


def _missing(sentence: str) -> Errors:
    return Errors(paragraph(sentence), (sentence,), "")


def _bias_table(report: BiasReport) -> str:
    headings = ["parameter", "predicted variance error", "predicted mean shift (sd)", "mostly from"]
    stein = report.stein
    if stein is not None:
        headings += ["measured variance error", "measured mean shift (sd)"]
    causes, rows = report.dominant(), []
    order = np.argsort(-np.abs(report.predicted_variance_error), kind="stable")
    for i in order[: bias_report.SHOWN]:
        row = [
            report.names[i],
            f"{report.predicted_variance_error[i]:+.2%}",
            f"{report.predicted_mean_shift[i]:+.3f}",
            causes[i],
        ]
        if stein is not None:
            row += [
                f"{stein.variance_error[i]:+.1%} ± {stein.variance_error_se[i]:.1%}",
                f"{stein.mean_shift[i]:+.3f} ± {stein.mean_shift_se[i]:.3f}",
            ]
        rows.append([row[0], *map(_signed, row[1:])])
    return table("Errors of the draws, predicted and measured", headings, rows)


def _kinetic_tables(report: KineticReport) -> str:
    shown, t = kinetic_report.SHOWN, report.temperatures
    sites = [
        [name, measured(kinetic, kinetic_se), measured(position, position_se)]
        for name, kinetic, kinetic_se, position, position_se in zip(
            report.sites, *t[:4], strict=True
        )
    ][:shown]
    caption = "Temperatures of the sites"
    if len(report.sites) > shown:
        caption += f" (the first {shown} of {len(report.sites)})"
    worst = np.argsort(-np.nan_to_num(report.r_hat, nan=np.inf), kind="stable")[:shown]
    quantities = [
        [
            report.names[i],
            f"{report.r_hat[i]:.3f}",
            f"{report.ess[i]:.0f}",
            _signed(expected(report.expected_error[i])),
        ]
        for i in worst
    ]
    second = "Quantities computed from the draws"
    if len(report.names) > shown:
        second += f" (the {shown} of {len(report.names)} with the largest R-hat)"
    return "\n".join(
        [
            table(caption, ["site", "kinetic temperature", "configurational temperature"], sites),
            table(
                second, ["quantity", "R-hat", "effective draws", "expected error (sd)"], quantities
            ),
        ]
    )


def _signed(text: str) -> str:
    """Return a text with true minus signs in front of its numbers."""
    return text.replace("-", "−") if text[:1] in "+-" else text
