"""What a finished cell of a sweep leaves for tables and plots: one small JSON file."""

import json
from pathlib import Path
from typing import Literal

from tabulate import tabulate

from ncen_tf.base.errors import InputError
from ncen_tf.base.settings import Settings
from ncen_tf.export.manifest import Accuracy
from ncen_tf.report.results import Report
from ncen_tf.train.config import TrainConfig
from ncen_tf.train.run_directory import RunSummary

RECORD = "record.json"


class CellRecord(Settings):
    """Results of one cell: its training, its export, and a report for each attack suite.

    Examples:
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


def read_records(folder: Path) -> list[CellRecord]:
    """Read all records below a folder, in the order of their paths; other JSON files are skipped.

    Raises:
        InputError: The folder does not exist, holds no record, or holds a damaged one.
    """
    if not folder.is_dir():
        raise InputError(f"{folder} is not a folder of records: ncen_tf.sweep writes them into its `out`.")
    files = [file for file in sorted(folder.rglob("*.json")) if _is_record(folder, file)]
    if not files:
        raise InputError(f"{folder} holds no record of a sweep ({RECORD} of a finished cell).")
    return [CellRecord.read(file) for file in files]


def format_records(records: list[CellRecord]) -> str:
    """Write a row for each cell: clean accuracy, seconds, and robust accuracy under each suite.

    The robust accuracy is that of each example under the strongest attack at the given norm and eps.
    """
    rows = []
    for record in records:
        seconds = f"{sum(record.seconds.values()):.0f}"
        row = {"cell": record.name, "clean": f"{record.run.clean_accuracy:.4f}", "seconds": seconds}
        for name, report in record.reports.items():
            for worst in report.worst_case:
                accuracy = worst.robust_accuracy.value
                heading = f"{name}\n{worst.norm} {worst.eps:.4g}"
                row[heading] = "n/a" if accuracy is None else f"{accuracy:.3f}"
        rows.append(row)
    return tabulate(rows, headers="keys", disable_numparse=True)


def _is_record(folder: Path, file: Path) -> bool:
    if not file.is_file() or any(part.startswith(".") for part in file.relative_to(folder).parts):
        return False  # Hidden files are those that a process is writing, or was killed over.
    try:
        content = json.loads(file.read_bytes())
    except (ValueError, RecursionError) as error:
        raise InputError(f"{file} is not a JSON file: {error}.") from error
    return isinstance(content, dict) and {"name", "run", "reports"} <= content.keys()
