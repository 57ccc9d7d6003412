"""Check zip archives before anything in them is unpacked."""

import zipfile
from pathlib import Path, PurePosixPath, PureWindowsPath

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
