"""A report as a table for the terminal, and the texts that the page shares with it."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from tabulate import tabulate

if TYPE_CHECKING:
    from ncen_tf.report.curve import CurveAttack
    from ncen_tf.report.results import AttackRow, Proportion, Report, WorstCase

_ACCURACIES = ("robust accuracy", "95 % interval", "AAE", "95 % interval")
_NOTES = (
    "robust accuracy: classified correctly clean and under attack, of all examples.",
    "AAE: classified correctly under attack, of the examples that are so when clean (Luo et al.).",
)
_INDEPENDENT = ("gradients: backward passes for each image.",)
_CUMULATIVE = (
    "An attack is run only on the examples that are still classified correctly after the attacks above it,",
    "at the same norm and eps, or on some of them, as the suite says; its accuracies are those after it.",
    "attacked, broken: examples that the attack was run on, and how many of them it broke.",
    "gradients, queries: backward and forward passes of the attack, over all images that it was run on.",
)
_WORST_CASE = "worst case: each example under the strongest of the attacks above."
_CURVE = "every eps: attacks of the curves, which look for the smallest change."


def format_report(report: Report) -> str:
    """Format protocol, target, a row for each attack and worst case, notes and the verdict on gradients."""
    lines = [columns(report), *rows(report)]
    alignment = ["left", "left", *["right"] * (len(lines[0]) - 2)]
    body = tabulate(lines, tablefmt="plain", colalign=alignment, disable_numparse=True)
    verdict = verdict_lines(report)
    return "\n".join([*describe(report), "", body, "", *notes(report), *([""] if verdict else []), *verdict])


def describe(report: Report) -> list[str]:
    """Say in a few lines what was measured, and on what."""
    target = report.target
    providers = f" [{', '.join(target.providers)}]" if target.providers else ""
    return [
        f"protocol {report.protocol}, objective {report.objective}, "
        f"{report.examples} examples of {report.dataset}, seed {report.seed}",
        f"target {target.description}{providers}, members {target.members}"
        + (f", sha256 {target.sha256[:12]}" if target.sha256 else ""),
        *(line for signature in target.signatures for line in str(signature).splitlines()),
        f"clean accuracy {percent(report.clean_accuracy)} {interval(report.clean_accuracy)}",
    ]


def columns(report: Report) -> tuple[str, ...]:
    """Return the titles of the cells that :func:`rows` gives."""
    if report.cumulative:
        titles = ("attack", "norm", "eps", "attacked", "broken", *_ACCURACIES, "gradients", "queries")
        return (*titles, "seconds")
    return ("attack", "norm", "eps", *_ACCURACIES, "gradients")


def rows(report: Report) -> list[tuple[str, ...]]:
    """Return the cells of the attacks, of the worst cases over more than one, and of the curves' attacks."""
    counts, costs = (2, 3) if report.cumulative else (0, 1)
    worst = [
        ("worst case", *_threat(row), *[""] * counts, *_accuracies(row), *[""] * costs)
        for row in report.worst_case
        if len(row.attacks) > 1
    ]
    of_curves = [
        _cells(report.cumulative, row, (curve.norm, "every"), row.found, [""] * len(_ACCURACIES))
        for curve in report.curves
        for row in curve.attacks
    ]
    of_suite = [
        _cells(report.cumulative, row, _threat(row), row.broken, _accuracies(row)) for row in report.attacks
    ]
    return of_suite + worst + of_curves


def notes(report: Report) -> tuple[str, ...]:
    """Explain the columns, a line each."""
    curve = (_CURVE,) if report.curves else ()
    return (*_NOTES, *(_CUMULATIVE if report.cumulative else _INDEPENDENT), _WORST_CASE, *curve)


def verdict_lines(report: Report) -> list[str]:
    """Say what the checks for masked gradients found; no line where gradients were not examined."""
    found = report.masked_gradients
    if found is None:
        return []
    failed = [check for check in found.checks if not check.passed]
    radius = "" if found.eps is None else f", Linf {found.eps:g}"
    where = f"{found.examples} examples{radius}; docs/masked_gradients.md explains"
    if not failed:
        return [f"masked gradients: no sign of them ({where})."]
    lines = [f"  {check.name}: {check.finding}" for check in failed]
    return [f"MASKED GRADIENTS SUSPECTED: do not trust these accuracies ({where}).", *lines]


def percent(proportion: Proportion) -> str:
    """Format the value as ``12.34 %``, or ``n/a`` of no examples."""
    return "n/a" if proportion.value is None else f"{100 * proportion.value:.2f} %"


def interval(proportion: Proportion) -> str:
    """Format the interval as ``[11.11, 13.57]``, in percent."""
    low, high = proportion.interval
    return f"[{100 * low:.2f}, {100 * high:.2f}]" if proportion.total else "n/a"


def _cells(
    cumulative: bool,
    row: AttackRow | CurveAttack,
    threat: tuple[str, str],
    broken: int,
    shares: Iterable[str],
) -> tuple[str, ...]:
    if not cumulative:
        return (row.attack, *threat, *shares, f"{row.gradients / max(1, row.attacked):.0f}")
    cost = (f"{row.gradients}", f"{row.queries}", f"{row.seconds:.0f}")
    return (row.attack, *threat, f"{row.attacked}", f"{broken}", *shares, *cost)


def _threat(row: AttackRow | WorstCase) -> tuple[str, str]:
    return row.norm, f"{row.eps:.4g}"


def _accuracies(row: AttackRow | WorstCase) -> tuple[str, ...]:
    robust, aae = row.robust_accuracy, row.aae
    return percent(robust), interval(robust), percent(aae), interval(aae)
