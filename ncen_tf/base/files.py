"""Files that appear whole or not at all."""

import contextlib
import hashlib
import os
import re
import shutil
import tempfile
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ncen_tf.base.errors import InputError


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Give a temporary name beside ``path`` (same suffix), which is renamed to it if the block succeeds.

    Where ``path`` is a symbolic link, the file that it points to is replaced, and the link stays.
    """
    path = _target_of_link(path)
    _remove_abandoned(path)
    temporary = path.with_name(f".{os.getpid()}.{path.name}")
    try:
        yield temporary
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


@contextlib.contextmanager
def replacing_directory(path: Path) -> Iterator[Path]:
    """Make an empty folder beside ``path`` that takes its place, with all old content, if the block succeeds.

    Where ``path`` is a symbolic link, the folder that it points to is replaced, and the link stays.
    """
    path = _target_of_link(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    _remove_abandoned(path)
    temporary = path.with_name(f".{os.getpid()}.{path.name}")
    replaced = path.with_name(f"{temporary.name}.old")
    temporary.mkdir()
    try:
        yield temporary
        if path.exists():
            path.rename(replaced)
        temporary.rename(path)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
        shutil.rmtree(replaced, ignore_errors=True)


def _target_of_link(path: Path) -> Path:
    if not path.name:
        raise InputError(f"{path} has no name that something could be written under: choose another path.")
    return Path(os.path.realpath(path)) if path.is_symlink() else path


@contextlib.contextmanager
def without_patterns(folder: Path) -> Iterator[Path]:
    """Give a folder a path without the characters that TensorFlow takes for patterns: ``[ ] * ? \\``.

    It is the path of a temporary symbolic link to the folder, or the folder itself where it has none of them.
    """
    if not set("[]*?\\") & set(str(folder)):
        yield folder
        return
    with tempfile.TemporaryDirectory() as place:
        link = Path(place) / "link"
        link.symlink_to(folder.absolute(), target_is_directory=True)
        yield link


def read_toml(file: Path) -> dict[str, Any]:
    """Read a TOML file.

    Raises:
        InputError: The file cannot be read, or is not TOML.
    """
    try:
        content = tomllib.loads(file.read_text(encoding="utf-8"))
        str(content)  # Fails for integers of thousands of digits, which no error message could show either.
    except (OSError, ValueError, RecursionError) as error:
        raise InputError(f"{file} cannot be read: {error}.") from error
    return content


def remove_leftovers(folder: Path) -> None:
    """Remove temporary files and folders of processes that were killed; none may be at work there."""
    for entry in folder.glob(".[0-9]*.*"):
        _remove(entry)


def _remove_abandoned(path: Path) -> None:
    """Remove what killed processes left of their attempts at writing ``path``."""
    for entry in path.parent.glob(".[0-9]*.*"):
        match = re.fullmatch(rf"\.(\d+)\.{re.escape(path.name)}(\.old)?", entry.name)
        if match and not _is_another_process(int(match[1])):
            _remove(entry)


def _is_another_process(number: int) -> bool:
    try:
        os.kill(number, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:
        return True
    return number != os.getpid()  # in containers every process may have the same


def _remove(entry: Path) -> None:
    if entry.is_dir() and not entry.is_symlink():
        shutil.rmtree(entry)
    else:
        entry.unlink(missing_ok=True)


def sha256(path: Path) -> str:
    """Hex digest of a file."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
