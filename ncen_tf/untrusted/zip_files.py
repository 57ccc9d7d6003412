"""Zip archives that others wrote, looked at before anything in them is unpacked."""

import zipfile
from pathlib import Path, PurePosixPath, PureWindowsPath

from ncen_tf.base.errors import InputError

ROOM = 2**29
"""Bytes that any archive may unpack to."""
MOST_EXPANSION = 20
"""Times its own size that a larger one may."""


def check_zip(file: Path) -> dict[str, int]:
    """Refuse an archive that reaches outside or unpacks to far more than it is.

    Returns:
        Bytes of each member, unpacked.

    Raises:
        InputError: that, or a file that is missing or no zip archive.
    """
    try:
        with zipfile.ZipFile(file) as archive:
            members = archive.infolist()
        size = file.stat().st_size
    except Exception as error:  # zipfile has no base class for what damage leads to
        raise InputError(f"{file} cannot be read: {error}.") from error
    for member in members:
        for path in (PurePosixPath(member.filename), PureWindowsPath(member.filename)):
            if path.anchor or ".." in path.parts:
                raise InputError(
                    f"{file} has a member {member.filename!r}, which lies outside: do not trust it."
                )
    unpacked = sum(member.file_size for member in members)
    if unpacked > max(ROOM, MOST_EXPANSION * size):
        raise InputError(f"{file} has {size:,} bytes and would unpack to {unpacked:,}: do not trust it.")
    return {member.filename: member.file_size for member in members}
