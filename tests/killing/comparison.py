"""Whether two folders hold the same: the same files, with the same content but for times."""

import io
import json
import re
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import onnxruntime

_EVENTS = "events.out.tfevents"
_OWN_TO_A_START = ("log.txt", "report.html", "fingerprint.pb")
"""Names of files with times, with the output of all starts, or with a random number (SavedModel's)."""
_OWN_FIELDS = {"seconds", "key", "sha256", "size", "shared_object_id"}
"""Times; tf2onnx numbers a graph's names differently each time, so hashes of files differ too; Keras writes
where an object was in memory."""


def differences(one: Path, other: Path) -> list[str]:
    """What is only in one of two folders, or has another content.

    TensorBoard's event files count as one, since each start of a training adds a file.
    """
    first, second = _entries(one), _entries(other)
    found = [
        f"only in {folder}: {name}"
        for folder, mine, others in ((one, first, second), (other, second, first))
        for name in sorted(mine.keys() - others.keys())
    ]
    for name in sorted(first.keys() & second.keys()):
        if first[name].is_file() and not _same(first[name], second[name]):
            found.append(f"differs: {name}")
    return found


def _entries(folder: Path) -> dict[str, Path]:
    entries = {}
    for path in folder.rglob("*"):
        name = path.relative_to(folder)
        if path.name.startswith(_EVENTS):
            name = name.with_name(_EVENTS)
        if path.suffix == ".npz":  # the key of a finished attack has the hash of the attacked file
            name = name.with_name(re.sub(r"-[0-9a-f]{12}\.npz", ".npz", path.name))
        entries[str(name)] = path
    return entries


def _same(one: Path, other: Path) -> bool:
    if one.name.startswith((_EVENTS, *_OWN_TO_A_START)):
        return True
    read = _READERS.get(one.suffix, Path.read_bytes)
    return bool(read(one) == read(other))


def _comparable(content: Any) -> Any:
    if isinstance(content, dict):
        return {
            key: _comparable(value)
            for key, value in content.items()
            if key not in _OWN_FIELDS and "seconds_per_step" not in key
        }
    return [_comparable(value) for value in content] if isinstance(content, list) else content


def _read_lines(file: Path) -> Any:
    return [_comparable(json.loads(line)) for line in file.read_text().splitlines()]


def _read_npz(file: Path) -> dict[str, tuple[str, bytes]]:
    with np.load(file, allow_pickle=False) as arrays:
        return {
            name: (str(arrays[name].dtype), arrays[name].tobytes())
            for name in arrays
            if name not in _OWN_FIELDS
        }


def _read_keras(file: Path) -> dict[str, Any]:
    """Weights and configuration; the metadata have the time of saving."""
    with zipfile.ZipFile(file) as archive:
        weights = h5py.File(io.BytesIO(archive.read("model.weights.h5")))
        return {"config": _comparable(json.loads(archive.read("config.json")))} | dict(_datasets(weights))


def _datasets(group: h5py.Group) -> Iterator[tuple[str, bytes]]:
    for name, entry in group.items():
        if isinstance(entry, h5py.Group):
            yield from ((f"{name}/{inner}", content) for inner, content in _datasets(entry))
        else:
            yield name, entry[()].tobytes()


def _answers(file: Path) -> list[bytes]:
    """What an exported ensemble says about random images."""
    images = np.random.default_rng(0).uniform(size=(20, 28, 28, 1)).astype(np.float32)
    session = onnxruntime.InferenceSession(file, providers=["CPUExecutionProvider"])
    return [answer.tobytes() for answer in session.run(None, {"image": images})]


_READERS: dict[str, Callable[[Path], object]] = {
    ".json": lambda file: _comparable(json.loads(file.read_text())),
    ".jsonl": _read_lines,
    ".keras": _read_keras,
    ".npz": _read_npz,
    ".onnx": _answers,
}
