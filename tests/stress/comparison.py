"""Compare what two runs of a program wrote, and find files that are damaged or half written."""

import io
import json
import os
import re
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import onnxruntime

_TEMPORARY = re.compile(r"\.\d+\..*")
_EVENTS = "events.out.tfevents"
_ANY_CONTENT = (_EVENTS, "log.txt", "report.html", "fingerprint.pb", "diagnostics.png", ".lock")
"""Beginnings of names of files with times or, in SavedModel's fingerprint, a random number."""
_ANY_VALUE = {"seconds", "key", "sha256", "onnx_sha256", "size", "shared_object_id"}
"""Times; hashes, since tf2onnx numbers the names in a graph differently each time; addresses of objects."""


def unfinished(folder: Path) -> Iterator[Path]:
    """Yield temporary files and folders, by the names that `ncen_tf.base.files` gives them."""
    for parent, folders, files in os.walk(folder):
        yield from (Path(parent, name) for name in (*folders, *files) if _TEMPORARY.fullmatch(name))


def damages(folder: Path) -> list[str]:
    """List files that are incomplete although they have their final name."""
    found, temporary = [], set(unfinished(folder))
    for path in sorted(folder.rglob("*")):
        if path.is_file() and temporary.isdisjoint((path, *path.parents)):
            try:
                _READERS.get(path.suffix, Path.read_bytes)(path)
            except Exception as error:  # every reader has its own
                found.append(f"damaged: {path.relative_to(folder)}: {type(error).__name__}: {error}")
    return found


def differences(one: Path, other: Path) -> list[str]:
    """List files that are only in one of two folders, or differ; TensorBoard's files count as one."""
    first, second = _files(one), _files(other)
    found = [f"only in one run: {name}" for name in sorted(first.keys() ^ second.keys())]
    for name in sorted(first.keys() & second.keys()):
        read = _READERS.get(Path(name).suffix, Path.read_bytes)
        if not Path(name).name.startswith(_ANY_CONTENT) and read(first[name]) != read(second[name]):
            found.append(f"differs: {name}")
    return found


def _files(folder: Path) -> dict[str, Path]:
    files = {}
    for path in folder.rglob("*"):
        name = re.sub(rf"{re.escape(_EVENTS)}.*", _EVENTS, str(path.relative_to(folder)))
        # The key of a finished attack contains the hash of the attacked file.
        files[re.sub(r"-[0-9a-f]{12}\.npz", ".npz", name)] = path
    return {name: path for name, path in files.items() if path.is_file()}


def _without_times(content: Any) -> Any:
    if isinstance(content, dict):
        kept = {name for name in content if name not in _ANY_VALUE and "seconds_per_step" not in name}
        return {name: _without_times(content[name]) for name in kept}
    return [_without_times(value) for value in content] if isinstance(content, list) else content


def _json(file: Path) -> Any:
    texts = file.read_text().splitlines() if file.suffix == ".jsonl" else [file.read_text()]
    return [_without_times(json.loads(text)) for text in texts]


def _npz(file: Path) -> dict[str, Any]:
    with np.load(file) as arrays:
        texts = {n: _without_times(json.loads(str(a))) for n, a in arrays.items() if a.dtype.kind == "U"}
        return {n: (str(a.dtype), a.tobytes()) for n, a in arrays.items()} | texts


def _keras(file: Path) -> dict[str, Any]:
    """Read weights and configuration; the metadata contain the time of saving."""
    tensors: dict[str, Any] = {}

    def add(path: str, entry: Any) -> None:
        if isinstance(entry, h5py.Dataset):
            tensors[path] = entry[()].tobytes()

    with zipfile.ZipFile(file) as archive:
        with h5py.File(io.BytesIO(archive.read("model.weights.h5"))) as weights:
            weights.visititems(add)
        return tensors | {"config": _without_times(json.loads(archive.read("config.json")))}


def _onnx(file: Path) -> list[bytes]:
    """Compute the outputs for random images."""
    session = onnxruntime.InferenceSession(file, providers=["CPUExecutionProvider"])
    image = session.get_inputs()[0]
    images = np.random.default_rng(0).uniform(size=(20, *image.shape[1:])).astype(np.float32)
    return [answer.tobytes() for answer in session.run(None, {image.name: images})]


_READERS: dict[str, Callable[[Path], object]] = {
    ".json": _json,
    ".jsonl": _json,
    ".keras": _keras,
    ".npz": _npz,
    ".onnx": _onnx,
    ".html": lambda file: file.read_text().index("</html>"),
}
