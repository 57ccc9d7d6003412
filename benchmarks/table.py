"""Tables of measurements, of named columns."""

import dataclasses
from collections.abc import Mapping, Sequence

from benchmarks.timing import Failure, Outcome

Row = dict[str, str | float | None]
"""Column -> text or number; a column that other rows have may be missing."""


@dataclasses.dataclass(frozen=True)
class Table:
    """Rows of measurements; the first column of each names it."""

    title: str
    rows: Sequence[Row]


def timing_rows(
    outcomes: Mapping[str, Outcome], items: float | None = None, unit: str = "images"
) -> list[Row]:
    """Median and quartiles in milliseconds of each side, and what it does a second.

    Args:
        outcomes: name -> timing.
        items: done by one call; ``None`` where there is nothing to count.
        unit: of the items.
    """
    rows: list[Row] = []
    for name, outcome in outcomes.items():
        row: Row = {"": name}
        if isinstance(outcome, Failure):
            row["failed"] = outcome.reason
        else:
            lower, median, upper = outcome.quartiles
            row |= {"median ms": 1e3 * median, "25 % ms": 1e3 * lower, "75 % ms": 1e3 * upper}
            if items is not None:
                row[f"{unit}/s"] = items / median
        rows.append(row)
    return rows


def cells(rows: Sequence[Row]) -> list[list[str]]:
    """Text of a header line and of every row."""
    columns = list(dict.fromkeys(column for row in rows for column in row))
    return [columns, *([_text(row.get(column)) for column in columns] for row in rows)]


def _text(value: str | float | None) -> str:
    if value is None or isinstance(value, str):
        return value or ""
    return f"{value:,.0f}" if abs(value) >= 100 or value == int(value) else f"{value:.3g}"
