"""Damage to TensorFlow's checkpoints whose checksums are right: what the index says of each tensor.

The index is a table of LevelDB's format: blocks of sorted keys, each block with a CRC, and a footer.
"""

import functools
import struct
from typing import Any

from hypothesis import strategies as st

from tests.fuzzing.byte_mutations import mutated_bytes
from tests.fuzzing.protobuf_mutations import mutated_message, read_varint, varint

_MAGIC = struct.pack("<Q", 0xDB4775248B80FB57)
_FOOTER = 48


@st.composite
def mutated_index(draw: Any, original: bytes) -> bytes:
    """The index with the entries of one or two tensors changed, dropped, exchanged or renamed."""
    if draw(st.integers(0, 4)) == 0:
        return draw(mutated_bytes(original))
    known = read_table(original)
    entries = dict(known)
    for _ in range(draw(st.integers(1, 2))):
        key = draw(st.sampled_from(sorted(entries)))
        kind = draw(st.sampled_from(("message", "message", "message", "drop", "exchange", "rename")))
        if kind == "message":
            # Not of what has been damaged: that need not be a message any more.
            entries[key] = draw(mutated_message(known.get(key, entries[key])))
        elif kind == "exchange":
            entries[key] = entries[draw(st.sampled_from(sorted(entries)))]
        elif len(entries) > 1:
            value = entries.pop(key)
            if kind == "rename":
                entries[draw(st.sampled_from((b"", b"x", b"\xff" * 9, key + b"/x")))] = value
    return write_table(entries)


def read_table(content: bytes) -> dict[bytes, bytes]:
    """Values by key."""
    footer = content[-_FOOTER:]
    _, at = _read_handle(footer, 0)
    index, _ = _read_handle(footer, at)
    entries: dict[bytes, bytes] = {}
    for _, handle in _read_block(content, *index):
        block, _ = _read_handle(handle, 0)
        entries |= dict(_read_block(content, *block))
    return entries


def write_table(entries: dict[bytes, bytes]) -> bytes:
    """A table of one block."""
    content = b""
    handles = []
    for block in (sorted(entries.items()), []):
        packed = _pack_block(block)
        handles.append(varint(len(content)) + varint(len(packed)))
        content += _sealed(packed)
    last = max(entries) + b"\xff"
    index = _pack_block([(last, handles[0])])
    footer = handles[1] + varint(len(content)) + varint(len(index))
    return content + _sealed(index) + footer.ljust(_FOOTER - len(_MAGIC), b"\0") + _MAGIC


def _read_handle(content: bytes, at: int) -> tuple[tuple[int, int], int]:
    offset, at = read_varint(content, at)
    size, at = read_varint(content, at)
    return (offset, size), at


def _read_block(content: bytes, offset: int, size: int) -> list[tuple[bytes, bytes]]:
    block = content[offset : offset + size]
    end = size - 4 - 4 * struct.unpack("<I", block[-4:])[0]
    entries: list[tuple[bytes, bytes]] = []
    key, at = b"", 0
    while at < end:
        shared, at = read_varint(block, at)
        own, at = read_varint(block, at)
        length, at = read_varint(block, at)
        key = key[:shared] + block[at : at + own]
        entries.append((key, block[at + own : at + own + length]))
        at += own + length
    return entries


def _pack_block(entries: list[tuple[bytes, bytes]]) -> bytes:
    """Without shared prefixes, so that each entry is a point of restart."""
    content, starts = b"", []
    for key, value in entries:
        starts.append(len(content))
        content += varint(0) + varint(len(key)) + varint(len(value)) + key + value
    starts = starts or [0]
    return content + struct.pack(f"<{len(starts)}I", *starts) + struct.pack("<I", len(starts))


def _sealed(block: bytes) -> bytes:
    """A block with its compression, none, and its masked CRC."""
    crc = crc32c(block + b"\0")
    masked = ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF
    return block + b"\0" + struct.pack("<I", masked)


def crc32c(content: bytes) -> int:
    """Castagnoli's checksum (RFC 3720, appendix B.4)."""
    table, crc = _crc_table(), 0xFFFFFFFF
    for byte in content:
        crc = table[(crc ^ byte) & 255] ^ crc >> 8
    return crc ^ 0xFFFFFFFF


@functools.cache
def _crc_table() -> list[int]:
    table = []
    for value in range(256):
        for _ in range(8):
            value = value >> 1 ^ (0x82F63B78 if value & 1 else 0)
        table.append(value)
    return table
