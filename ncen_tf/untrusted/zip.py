"""Check zip archives before anything in them is unpacked, and read arrays from them."""

import zipfile
from collections.abc import Iterable
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any

import numpy as np
import numpy.typing as npt

from ncen_tf.base.errors import InputError

SMALL = 2**29
"""Any archive may unpack to this many bytes."""
MAX_EXPANSION = 20
"""A larger archive may unpack to this many times its own size."""


def check_zip(file: Path) -> dict[str, int]:
    """Refuse an archive with a member outside the folder, or one that unpacks to far more than its size.

    Returns:
        Size of each member in bytes, unpacked.

    Raises:
        InputError: The archive is refused, missing, or not a zip archive.
    """
    try:
        with zipfile.ZipFile(file) as archive:
            members = archive.infolist()
        size = file.stat().st_size
    except Exception as error:  # zipfile raises many classes for damaged archives.
        raise InputError(f"{file} cannot be read: {error}.") from error
    for member in members:
        for path in (PurePosixPath(member.filename), PureWindowsPath(member.filename)):
            if path.anchor or ".." in path.parts:
                raise InputError(
                    f"{file} has a member outside its folder, {member.filename!r}: do not trust it."
                )
    unpacked = sum(member.file_size for member in members)
    if unpacked > max(SMALL, MAX_EXPANSION * size):
        raise InputError(f"{file} has {size:,} bytes and would unpack to {unpacked:,}: do not trust it.")
    return {member.filename: member.file_size for member in members}


def read_npz(file: Path, names: Iterable[str] | None = None) -> dict[str, npt.NDArray[Any]]:
    """Read the named arrays of an ``.npz`` file, or all, without unpickling anything.

    Raises:
        InputError: The file is refused by :func:`check_zip`, damaged, or has no such array.
    """
    check_zip(file)
    try:
        with np.load(file, allow_pickle=False) as stored:
            arrays = {name: stored[name] for name in names or stored.files}
        if not all(isinstance(array, np.ndarray) for array in arrays.values()):
            raise ValueError("it holds something else than arrays")
    except Exception as error:  # zipfile, zlib and NumPy have no common class for what damage leads to
        reason = "it holds pickled objects" if "pickle" in str(error) else " ".join(str(error).split())
        raise InputError(f"{file} cannot be read: {reason}.") from error
    return arrays
