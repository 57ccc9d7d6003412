"""A report as plain text for a terminal."""

from collections.abc import Sequence
from typing import Any

COLUMNS = ("attack", "norm", "eps", "robust accuracy", "95 % interval", "AAE", "95 % interval", "gradients")


def format_table(report: dict[str, Any]) -> str:
    """Protocol, objective, target and a row for each attack and worst case.

    Args:
        report: as :func:`ncen_tf.reports.report.build_report` makes it.
    """
    return "\n".join([*describe(report), "", *_aligned([COLUMNS, *rows(report)]), "", *NOTES])


NOTES = (
    "robust accuracy: right clean and under attack, of all examples.",
    "AAE: right under attack, of the examples that are right when clean (Luo et al.).",
    "gradients: backward passes for each image. worst case: each example under its strongest attack above.",
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


def rows(report: dict[str, Any]) -> list[tuple[str, ...]]:
    """Cells of :data:`COLUMNS`: attacks, then worst cases over more than one attack."""
    attacks = [
        (row["attack"], *_measured(row), f"{row['gradients_per_image']:.0f}") for row in report["attacks"]
    ]
    worst = [("worst case", *_measured(row), "") for row in report["worst_case"] if len(row["attacks"]) > 1]
    return attacks + worst


def percent(value: float | None) -> str:
    """``12.34 %``, or ``n/a`` where nothing was counted."""
    return "n/a" if value is None else f"{100 * value:.2f} %"


def interval(proportion: dict[str, Any]) -> str:
    """``[11.11, 13.57]``, in percent."""
    low, high = proportion["interval"]
    return f"[{100 * low:.2f}, {100 * high:.2f}]" if proportion["total"] else "n/a"


def _measured(row: dict[str, Any]) -> tuple[str, ...]:
    robust, aae = row["robust_accuracy"], row["aae"]
    return (
        row["norm"],
        f"{row['eps']:g}",
        percent(robust["value"]),
        interval(robust),
        percent(aae["value"]),
        interval(aae),
    )


def _aligned(lines: Sequence[Sequence[str]]) -> list[str]:
    widths = [max(len(line[column]) for line in lines) for column in range(len(lines[0]))]
    return [
        "  ".join(
            cell.ljust(w) if i < 2 else cell.rjust(w)
            for i, (cell, w) in enumerate(zip(line, widths, strict=True))
        ).rstrip()
        for line in lines
    ]
