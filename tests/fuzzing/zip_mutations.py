"""Damage to zip archives: names, methods, lengths, and members that expand without end."""

import io
import struct
import zipfile
import zlib
from collections.abc import Callable
from typing import Any

from hypothesis import strategies as st

from tests.fuzzing.byte_mutations import mutated_bytes

Mutation = Callable[[bytes], st.SearchStrategy[bytes]]
NAMES = (
    "../outside/secret.bin",
    "/secret.bin",
    "a/../../b",
    "..\\b",
    "C:\\b",
    "",
    "a" * 5000,
    "\x00",
    "é",
    "assets/x",
)
BOMB_BYTES = 3 << 30
_CENTRAL, _LOCAL = b"PK\x01\x02", b"PK\x03\x04"


def pack(members: dict[str, bytes], method: int = zipfile.ZIP_STORED) -> bytes:
    """A zip archive."""
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", method) as archive:
        for name, content in members.items():
            archive.writestr(zipfile.ZipInfo(name), content, method)
    return stream.getvalue()


def unpack(content: bytes) -> dict[str, bytes]:
    """The members of a zip archive."""
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def bomb(members: dict[str, bytes], name: str) -> bytes:
    """The archive with a member that begins as it did and goes on with zeros to :data:`BOMB_BYTES`."""
    start, megabyte = members[name], 1 << 20
    packer = zlib.compressobj(9, zlib.DEFLATED, -15)
    head = packer.compress(start + bytes(megabyte)) + packer.flush(zlib.Z_FULL_FLUSH)
    chunk = packer.compress(bytes(megabyte)) + packer.flush(zlib.Z_FULL_FLUSH)
    packed = head + chunk * (BOMB_BYTES // megabyte) + packer.flush()
    size = len(start) + (BOMB_BYTES // megabyte + 1) * megabyte
    mark = b"the place of the bomb"
    archive = bytearray(pack(members | {name: mark}))
    at = archive.index(mark)
    archive[at : at + len(mark)] = packed
    # Method and sizes, before the content and again in the directory at the end; the checksum stays wrong.
    for signature, method, sizes in ((_LOCAL, 8, 18), (_CENTRAL, 10, 20)):
        header = _headers(archive, signature)[list(members).index(name)]
        struct.pack_into("<H", archive, header + method, zipfile.ZIP_DEFLATED)
        struct.pack_into("<II", archive, header + sizes, len(packed), size)
    grown = len(packed) - len(mark)
    for number, header in enumerate(_headers(archive, _CENTRAL)):
        if number > list(members).index(name):
            (offset,) = struct.unpack_from("<I", archive, header + 42)
            struct.pack_into("<I", archive, header + 42, offset + grown)
    end = archive.rindex(b"PK\x05\x06")
    (directory,) = struct.unpack_from("<I", archive, end + 16)
    struct.pack_into("<I", archive, end + 16, directory + grown)
    return bytes(archive)


@st.composite
def mutated_zip(draw: Any, original: bytes, mutations: dict[str, Mutation]) -> bytes:
    """The original with a member changed, or the archive around the members.

    Args:
        draw: of hypothesis.
        original: a zip archive.
        mutations: how members are changed, by what their name ends in; others as bytes.
    """
    members = unpack(original)
    name = draw(st.sampled_from(sorted(members)))
    kind = draw(
        st.sampled_from(("content",) * 6 + ("rename", "add", "drop", "header", "header", "bytes", "bomb"))
    )
    method = draw(
        st.sampled_from((zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA))
    )
    match kind:
        case "content":
            mutate = next((m for end, m in mutations.items() if name.endswith(end)), mutated_bytes)
            return pack(members | {name: draw(mutate(members[name]))}, method)
        case "rename":
            members[draw(st.sampled_from(NAMES))] = members.pop(name)
        case "add":
            members[draw(st.sampled_from(NAMES))] = draw(st.binary(max_size=20))
        case "drop":
            del members[name]
        case "header":
            return _with_changed_header(draw, bytearray(pack(members, method)))
        case "bytes":
            return draw(mutated_bytes(pack(members, method)))
        case "bomb":
            return bomb(members, name)
    return pack(members, method)


def _with_changed_header(draw: Any, archive: bytearray) -> bytes:
    """Encryption, compression method, checksum, sizes, name length or offset of one member."""
    headers = _headers(archive, draw(st.sampled_from((_LOCAL, _CENTRAL))))
    at = draw(st.sampled_from(headers)) + draw(st.integers(4, 29))
    archive[at : at + 2] = struct.pack(
        "<H", draw(st.sampled_from((0, 1, 2, 9, 12, 14, 99, 2**15, 2**16 - 1)))
    )
    return bytes(archive)


def _headers(archive: bytearray, signature: bytes) -> list[int]:
    found, at = [], archive.find(signature)
    while at >= 0:
        found.append(at)
        at = archive.find(signature, at + 4)
    return found
