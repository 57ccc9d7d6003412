"""manifest.json: what an export holds, byte for byte."""

from pathlib import Path
from typing import Any

from ncen_tf.base.errors import InputError
from ncen_tf.base.files import sha256
from ncen_tf.untrusted.input_files import NUMBER, check_content, read_json

MANIFEST = "manifest.json"
FORMAT = 1
ONNX_FILE, SAVED_MODEL, MEMBERS = "ensemble.onnx", "saved_model", "members"
"""What an export calls the whole ensemble, and the folder of its members."""

_MANIFEST = {
    "training_flags": {str: str},
    "accuracy": {"ace": NUMBER, "test_examples": int, "predictions_sha256": str},
    "reduced_precision": {str: {"ace": NUMBER, "agreement_with_float32": NUMBER}},
    "files": {str: {"size": int, "sha256": str}},
}


def describe_files(folder: Path) -> dict[str, dict[str, Any]]:
    """Size in bytes and sha256 of every file below a folder, by relative path."""
    files = sorted(path for path in folder.rglob("*") if path.is_file() and path.name != MANIFEST)
    return {
        path.relative_to(folder).as_posix(): {"size": path.stat().st_size, "sha256": sha256(path)}
        for path in files
    }


def read_manifest(folder: Path) -> dict[str, Any]:
    """Read an export's manifest.

    Raises:
        InputError: no manifest, or not one of this format.
    """
    file = folder / MANIFEST
    if not file.is_file():
        raise InputError(f"{folder} is not an export: it has no {MANIFEST}.")
    manifest: dict[str, Any] = read_json(file)
    if not isinstance(manifest, dict) or manifest.get("format") != FORMAT:
        raise InputError(f"{file} is not a manifest of format {FORMAT}.")
    check_content(str(file), manifest, _MANIFEST)
    unlisted = [name for name in manifest["reduced_precision"] if name not in manifest["files"]]
    if unlisted or not manifest["files"]:
        raise InputError(f"{file} does not list {unlisted[0] if unlisted else 'any file'}.")
    return manifest


def check_files(folder: Path, manifest: dict[str, Any]) -> None:
    """Compare every file with the manifest.

    Raises:
        InputError: a file is missing, changed, or not listed; it is named.
    """
    listed, found = manifest["files"], describe_files(folder)
    for name, entry in listed.items():
        if name not in found:
            raise InputError(f"{folder / name} is missing.")
        if found[name] != {"size": entry["size"], "sha256": entry["sha256"]}:
            raise InputError(f"{folder / name} is not the file that was exported: its sha256 differs.")
    extra = sorted(set(found) - set(listed))
    if extra:
        raise InputError(f"{folder / extra[0]} is not part of the export.")
