"""What a cell of a sweep leaves for tables and plots: one small JSON file."""

from pathlib import Path
from typing import Any

from ncen_tf.base.errors import InputError
from ncen_tf.base.files import write_json
from ncen_tf.untrusted.input_files import NUMBER, check_content, read_json

FORMAT = 1

_SHARE = {"value": (*NUMBER, type(None))}
_MEASURED = {"norm": str, "eps": NUMBER, "robust_accuracy": _SHARE, "aae": _SHARE}
_REPORT = {
    "protocol": str,
    "objective": str,
    "dataset": str,
    "examples": int,
    "attacks": [{"attack": str, "settings": dict, **_MEASURED}],
    "worst_case": [{"attacks": [str], **_MEASURED}],
}
_RECORD = {
    "name": str,
    "run": {
        "test": {"ace": NUMBER, "member_ace": [NUMBER]},
        "flags": {"dataset": str, "architecture": str, "regularizer": str, "seed": str, str: str},
        "dataset": {"name": str, "train_examples": int, "test_examples": int},
    },
    "export": {"ace": NUMBER, "test_examples": int},
    "reports": {str: _REPORT},
}


def write_record(file: Path, record: dict[str, Any]) -> None:
    """Write a record at once.

    Args:
        file: where to.
        record: ``name`` of the cell, ``run`` (a run's ``summary.json``), ``export`` (a manifest's
            ``accuracy`` and the ``sha256`` of ``ensemble.onnx``), ``reports`` (``report.json`` by suite);
            further keys are kept.

    Raises:
        InputError: a field is missing or has the wrong type.
    """
    content = {"format": FORMAT, **record}
    _check(file, content)
    write_json(file, content)


def read_record(file: Path) -> dict[str, Any]:
    """A record that :func:`write_record` wrote.

    Raises:
        InputError: a file that is missing, no record, or lacks a field that readers rely on.
    """
    content = read_json(file)
    if not _is_record(content):
        raise InputError(f"{file} is no record of a sweep: ncen_tf.sweep writes them as result.json.")
    _check(file, content)
    return content


def read_records(folder: Path) -> list[dict[str, Any]]:
    """All records below a folder, by path; other JSON files are passed over.

    Raises:
        InputError: no such folder, no record in it, or a damaged one.
    """
    if not folder.is_dir():
        raise InputError(f"{folder} is not a folder of records: ncen_tf.sweep writes them into its --out.")
    found = sorted(file for file in folder.rglob("*.json") if file.is_file())
    # Hidden ones are those that a process is writing, or was killed over.
    visible = [file for file in found if not any(p.startswith(".") for p in file.relative_to(folder).parts)]
    files = [file for file in visible if _is_record(read_json(file))]
    if not files:
        raise InputError(f"{folder} holds no record of a sweep (result.json of a finished cell).")
    return [read_record(file) for file in files]


def _is_record(content: Any) -> bool:
    return isinstance(content, dict) and {"name", "run", "reports"} <= content.keys()


def _check(file: Path, record: dict[str, Any]) -> None:
    if record.get("format") != FORMAT:
        raise InputError(f"{file} has format {record.get('format')}; this version reads {FORMAT}.")
    check_content(str(file), record, _RECORD)
    check_content(str(file), record.get("seconds", {}), {str: NUMBER})
