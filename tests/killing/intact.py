"""What must hold at every moment: whatever bears its own name is whole."""

import json
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np

from ncen_tf.base.errors import InputError
from ncen_tf.export.manifest import Manifest
from ncen_tf.train.checkpoint import checkpoint_steps, newest_intact
from tests.killing.processes import unfinished


def faults(out: Path) -> list[str]:
    """What is damaged below a folder, half written, or not what its name says.

    Temporary files do not count; event files and logs may end anywhere.
    """
    found = []
    half_written = set(unfinished(out))
    for path in sorted(out.rglob("*")):
        if half_written.isdisjoint((path, *path.parents)):
            try:
                _check(path)
            except Exception as error:  # each reader has its own
                found.append(f"{path.relative_to(out)}: {type(error).__name__}: {error}")
    return found


def _check(path: Path) -> None:
    if path.name == "checkpoints":
        steps = checkpoint_steps(path)
        if newest_intact(path) != (steps[-1] if steps else None):
            raise InputError("the newest checkpoint is damaged")
    elif path.name == "ensemble.onnx":
        Manifest.read(path.parent).check_files(path.parent)
    elif path.suffix in _READERS:
        _READERS[path.suffix](path)


def _read_lines(file: Path) -> None:
    for line in file.read_text().splitlines():
        json.loads(line)


def _read_zip(file: Path) -> None:
    with zipfile.ZipFile(file) as archive:
        if archive.testzip():
            raise InputError("a member is damaged")


def _read_npz(file: Path) -> None:
    with np.load(file, allow_pickle=False) as arrays:
        for name in arrays:
            arrays[name]


def _read_page(file: Path) -> None:
    if not file.read_text().rstrip().endswith("</html>"):
        raise InputError("the page has no end")


_READERS: dict[str, Callable[[Path], object]] = {
    ".json": lambda file: json.loads(file.read_text()),
    ".jsonl": _read_lines,
    ".keras": _read_zip,
    ".npz": _read_npz,
    ".html": _read_page,
}
