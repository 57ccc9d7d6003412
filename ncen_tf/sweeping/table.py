"""What came out of a sweep, as text for a terminal."""

from typing import Any

NOTE = "SUITE: robust accuracy, each example under its strongest attack, at each eps from small to large."


def format_records(records: list[dict[str, Any]]) -> str:
    """A row for each cell: ACE, worst robust accuracy of each suite at each eps, seconds.

    Args:
        records: of finished cells, as :func:`ncen_tf.sweeping.record.read_record` gives them.
    """
    suites = list(dict.fromkeys(suite for record in records for suite in record["reports"]))
    lines = [["cell", "ACE", *suites, "seconds"]]
    for record in records:
        worst = [_worst_cases(record["reports"].get(suite)) for suite in suites]
        seconds = sum(record.get("seconds", {}).values())
        lines.append([record["name"], f"{record['run']['test']['ace']:.4f}", *worst, f"{seconds:.0f}"])
    widths = [max(len(line[column]) for line in lines) for column in range(len(lines[0]))]
    rows = [
        "  ".join([name.ljust(widths[0]), *(c.rjust(w) for c, w in zip(cells, widths[1:], strict=True))])
        for name, *cells in lines
    ]
    return "\n".join([*rows, "", *([NOTE] if suites else [])]).rstrip()


def _worst_cases(report: dict[str, Any] | None) -> str:
    rows = sorted(report["worst_case"], key=lambda row: (row["norm"], row["eps"])) if report else []
    values = (row["robust_accuracy"]["value"] for row in rows)
    return " ".join("n/a" if value is None else f"{value:.3f}" for value in values) or "-"
