"""What came out of a sweep, as text for a terminal."""

from typing import Any

NOTE = "Below a suite's norm and eps: robust accuracy there, each example under its strongest attack."

Column = tuple[str, str, float]
"""Suite, norm and eps."""


def format_records(records: list[dict[str, Any]]) -> str:
    """A row for each cell: ACE, worst robust accuracy of each suite at each norm and eps, seconds.

    Args:
        records: of finished cells, as :func:`ncen_tf.sweep.record.read_record` gives them.
    """
    worst = [_worst_cases(record["reports"]) for record in records]
    columns = _columns(records, worst)
    lines = [["cell", "ACE", *(suite for suite, _, _ in columns), "seconds"]]
    if columns:
        lines.append(["", "", *(f"{norm} {eps:.4g}" for _, norm, eps in columns), ""])
    for record, values in zip(records, worst, strict=True):
        cells = (values.get(column, "-") for column in columns)
        seconds = sum(record.get("seconds", {}).values())
        lines.append([record["name"], f"{record['run']['test']['ace']:.4f}", *cells, f"{seconds:.0f}"])
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    rows = [
        "  ".join([name.ljust(widths[0]), *(c.rjust(w) for c, w in zip(cells, widths[1:], strict=True))])
        for name, *cells in lines
    ]
    return "\n".join([*rows, "", *([NOTE] if columns else [])]).rstrip()


def _columns(records: list[dict[str, Any]], worst: list[dict[Column, str]]) -> list[Column]:
    """All that any record has: suites as they come, in each Linf first and radii from small to large."""
    suites = list(dict.fromkeys(suite for record in records for suite in record["reports"]))
    found = {column for values in worst for column in values}
    return sorted(found, key=lambda c: (suites.index(c[0]), c[1] != "Linf", c[1], c[2]))


def _worst_cases(reports: dict[str, Any]) -> dict[Column, str]:
    return {
        (suite, row["norm"], row["eps"]): _shown(row["robust_accuracy"]["value"])
        for suite, report in reports.items()
        for row in report["worst_case"]
    }


def _shown(share: float | None) -> str:
    return "n/a" if share is None else f"{share:.3f}"
