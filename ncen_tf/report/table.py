"""A report as plain text for a terminal."""

from collections.abc import Sequence
from typing import Any

_ACCURACIES = ("robust accuracy", "95 % interval", "AAE", "95 % interval")
_NOTES = (
    "robust accuracy: right clean and under attack, of all examples.",
    "AAE: right under attack, of the examples that are right when clean (Luo et al.).",
)
_EACH_ALONE = "gradients: backward passes for each image."
_CUMULATIVE = (
    "An attack meets only the examples that are right when clean and under the attacks above it,",
    "at the same norm and eps: its accuracies are what still stands after it.",
    "gradients, queries: backward and forward passes of the attack, over all images that it met.",
)
_WORST_CASE = "worst case: each example under its strongest attack above."


def format_table(report: dict[str, Any]) -> str:
    """Protocol, objective, target and a row for each attack and worst case.

    Args:
        report: as :func:`ncen_tf.report.report.build_report` makes it.
    """
    return "\n".join(
        [
            *describe(report),
            "",
            *_aligned([columns(report), *rows(report)]),
            "",
            *notes(report),
            *verdict(report),
        ]
    )


def describe(report: dict[str, Any]) -> list[str]:
    """What was measured, on what: the lines above a table."""
    target = report["target"]
    providers = f" [{', '.join(target['providers'])}]" if target["providers"] else ""
    return [
        f"protocol {report['protocol']}, objective {report['objective']}, "
        f"{report['examples']} examples of {report['dataset']}, seed {report['seed']}",
        f"target {target['description']}{providers}, members {target['members']}, "
        f"sha256 {target['sha256'][:12]}",
        f"clean accuracy (ACE) {percent(report['ace']['value'])} {interval(report['ace'])}",
    ]


def columns(report: dict[str, Any]) -> tuple[str, ...]:
    """Titles of the cells that :func:`rows` gives."""
    if report["cumulative"]:
        return ("attack", "norm", "eps", "met", "broke", *_ACCURACIES, "gradients", "queries", "seconds")
    return ("attack", "norm", "eps", *_ACCURACIES, "gradients")


def rows(report: dict[str, Any]) -> list[tuple[str, ...]]:
    """Cells: attacks, then worst cases over more than one attack."""
    attacks = [_attack_row(row, report["cumulative"]) for row in report["attacks"]]
    gaps = (("", ""), ("", "", "")) if report["cumulative"] else ((), ("",))
    worst = [
        ("worst case", *_ball(row), *gaps[0], *_accuracies(row), *gaps[1])
        for row in report["worst_case"]
        if len(row["attacks"]) > 1
    ]
    return attacks + worst


def verdict(report: dict[str, Any]) -> list[str]:
    """What was found on masked gradients, a line each; nothing where nobody looked."""
    if "masked_gradients" not in report:
        return []
    found = report["masked_gradients"]
    failed = [check for check in found["checks"] if not check["passed"]]
    ball = "" if found["eps"] is None else f", Linf {found['eps']:g}"
    where = f"{found['examples']} examples{ball}; docs/masked_gradients.md explains"
    if not failed:
        return ["", f"masked gradients: no sign of them ({where})."]
    lines = [f"  {check['name']}: {check['finding']}" for check in failed]
    return ["", f"MASKED GRADIENTS SUSPECTED: do not trust these accuracies ({where}).", *lines]


def notes(report: dict[str, Any]) -> tuple[str, ...]:
    """What the columns mean: the lines below a table."""
    return (*_NOTES, *(_CUMULATIVE if report["cumulative"] else (_EACH_ALONE,)), _WORST_CASE)


def percent(value: float | None) -> str:
    """``12.34 %``, or ``n/a`` where nothing was counted."""
    return "n/a" if value is None else f"{100 * value:.2f} %"


def interval(proportion: dict[str, Any]) -> str:
    """``[11.11, 13.57]``, in percent."""
    low, high = proportion["interval"]
    return f"[{100 * low:.2f}, {100 * high:.2f}]" if proportion["total"] else "n/a"


def _attack_row(row: dict[str, Any], cumulative: bool) -> tuple[str, ...]:
    if not cumulative:
        return (row["attack"], *_ball(row), *_accuracies(row), f"{row['gradients_per_image']:.0f}")
    counts = (f"{row['attacked']}", f"{row['broken']}")
    cost = (f"{row['gradients']}", f"{row['queries']}", f"{row['seconds']:.0f}")
    return (row["attack"], *_ball(row), *counts, *_accuracies(row), *cost)


def _ball(row: dict[str, Any]) -> tuple[str, str]:
    return row["norm"], f"{row['eps']:.4g}"


def _accuracies(row: dict[str, Any]) -> tuple[str, ...]:
    robust, aae = row["robust_accuracy"], row["aae"]
    return percent(robust["value"]), interval(robust), percent(aae["value"]), interval(aae)


def _aligned(lines: Sequence[Sequence[str]]) -> list[str]:
    widths = [max(len(line[column]) for line in lines) for column in range(len(lines[0]))]
    return [
        "  ".join(
            cell.ljust(w) if i < 2 else cell.rjust(w)
            for i, (cell, w) in enumerate(zip(line, widths, strict=True))
        ).rstrip()
        for line in lines
    ]
