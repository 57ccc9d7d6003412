"""What a finished cell of a sweep leaves for tables and plots: one small JSON file."""

import json
from pathlib import Path
from typing import Literal

from tabulate import tabulate

from ncen_tf.base.errors import InputError
from ncen_tf.base.settings import Settings
from ncen_tf.export.manifest import Accuracy
from ncen_tf.report.results import Report
from ncen_tf.sweep.run_summary import RunSummary
from ncen_tf.train.config import TrainConfig

RECORD = "record.json"


class CellRecord(Settings):
    """Results of one cell: its training, its export, and a report for each attack suite.

    Example:
        >>> import ncen_tf
        >>> record = ncen_tf.CellRecord.read("docs/results/records/fashion_mnist-nce-s0.json")
        >>> record.config.seed, list(record.reports)
        (0, ['paper', 'released', 'strict'])
    """

    format: Literal[2] = 2
    name: str
    config: TrainConfig
    run: RunSummary
    export: Accuracy
    """Accuracy of the export."""
    onnx_sha256: str
    """Digest of the exported ``ensemble.onnx``."""
    reports: dict[str, Report]
    seconds: dict[str, float]
    """Seconds of training, export and each attack, interrupted attempts included."""

    def report(self, protocol: str) -> Report:
        """Return the report of a protocol.

        Raises:
            InputError: The cell was not attacked under the protocol.
        """
        for report in self.reports.values():
            if report.protocol == protocol:
                return report
        known = ", ".join(report.protocol for report in self.reports.values()) or "none"
        raise InputError(f"The record {self.name!r} has no report of protocol {protocol!r}; it has {known}.")


def read_records(folder: Path) -> list[CellRecord]:
    """Read all records below a folder, in the order of their paths; other JSON files are skipped.

    Raises:
        InputError: The folder does not exist, holds no record, or holds a damaged one.
    """
    if not folder.is_dir():
        raise InputError(f"{folder} is not a folder of records: ncen_tf.sweep writes them into its `out`.")
    files = sorted(file for file in folder.rglob("*.json") if file.is_file() and _is_record(file))
    if not files:
        raise InputError(f"{folder} holds no record of a sweep ({RECORD} of a finished cell).")
    return [CellRecord.read(file) for file in files]


def format_records(records: list[CellRecord]) -> str:
    """Write a row for each cell: clean accuracy, robust accuracy under each suite, seconds."""
    # Linf first, and eps from small to large, under each suite.
    columns = sorted(
        {
            (number, suite, worst.norm, worst.eps)
            for record in records
            for number, (suite, report) in enumerate(record.reports.items())
            for worst in report.worst_case
        },
        key=lambda column: (column[0], column[1], column[2] != "Linf", column[3]),
    )
    header = ["cell", "clean", *(f"{suite}\n{norm} {eps:.4g}" for _, suite, norm, eps in columns), "seconds"]
    rows = []
    for record in records:
        values = {
            (suite, worst.norm, worst.eps): worst.robust_accuracy.value
            for suite, report in record.reports.items()
            for worst in report.worst_case
        }
        robust = [_shown(values.get(column[1:])) for column in columns]
        seconds = f"{sum(record.seconds.values()):.0f}"
        rows.append([record.name, f"{record.run.clean_accuracy:.4f}", *robust, seconds])
    align = ["left"] + ["right"] * (len(header) - 1)
    table = tabulate(rows, header, disable_numparse=True, colalign=align)
    note = "Robust accuracy: each example under the strongest attack of a suite, at the given norm and eps."
    return f"{table}\n\n{note}" if columns else table


def _shown(accuracy: float | None) -> str:
    return "-" if accuracy is None else f"{accuracy:.3f}"


def _is_record(file: Path) -> bool:
    if any(part.startswith(".") for part in file.parts if part not in ("..", ".")):
        return False  # a temporary file of a process that is writing, or was killed
    try:
        content = json.loads(file.read_bytes())
    except ValueError as error:
        raise InputError(f"{file} is not a JSON file: {error}.") from error
    return isinstance(content, dict) and {"name", "run", "reports"} <= content.keys()
