"""Tables as CSV in long form: a line for every cell."""

import csv
import io
from collections.abc import Iterable, Iterator

from ncen_tf.tables.methods import describe_settings
from ncen_tf.tables.table import Cell, Table

_CONTEXT = (
    "protocol",
    "objective",
    "attacked",
    "examples",
    "dataset",
    "train_examples",
    "epochs",
    "members",
    "hardware",
    "attack_settings",
)
_MEASURED = ("measure", "attack", "norm", "eps", "detail")
_FIGURES = ("n", "seeds", "mean", "std", "paper", "difference")
FIELDS = (*_CONTEXT, "structure", "method", "settings", *_MEASURED, *_FIGURES)
"""Columns of the file; a field without a value is empty."""


def to_csv(tables: Iterable[Table]) -> str:
    """All tables in one file, numbers in full precision."""
    stream = io.StringIO()
    writer = csv.DictWriter(stream, FIELDS, lineterminator="\n")
    writer.writeheader()
    writer.writerows(line for table in tables for line in _lines(table))
    return stream.getvalue()


def _lines(table: Table) -> Iterator[dict[str, object]]:
    for block in table.blocks:
        for row, cells in block.lines:
            for method, cell in zip(table.columns, cells, strict=True):
                if cell is not None:
                    yield {
                        **table.context,
                        "structure": block.structure,
                        "method": method.name,
                        "settings": describe_settings(method.differences),
                        **{name: getattr(row, name) for name in _MEASURED},
                        **_figures(cell),
                    }


def _figures(cell: Cell) -> dict[str, object]:
    seeds = [str(s) for s, value in zip(cell.seeds, cell.values, strict=True) if value is not None]
    return {
        "n": len(cell.measured),
        "seeds": " ".join(seeds),
        "mean": cell.mean,
        "std": cell.std,
        "paper": cell.paper,
        "difference": cell.difference,
    }
