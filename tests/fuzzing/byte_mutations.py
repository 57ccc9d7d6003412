"""Damage to a file of whatever format: bits, lengths, pieces."""

import struct
from typing import Any

from hypothesis import strategies as st

EDGES = (0, 1, -1, 127, 255, 2**15, 2**16, 2**31 - 1, -(2**31), 2**32 - 1, 2**40, 2**63 - 1, -(2**63))
"""Numbers at which readers go wrong."""
TEXTS = (
    b"",
    b"\0",
    b"\xff\xfe",
    b"\xed\xa0\x80",
    b"\xef\xbb\xbf",
    b"[" * 100_000,
    b'{"a":' * 100_000,
    b"9" * 5000,
)
"""Nothing, an end, no UTF-8, half a character, a mark of byte order, depth, a number without end."""


@st.composite
def mutated_bytes(draw: Any, original: bytes) -> bytes:
    """The original after one to four mutations."""
    content = bytearray(original)
    for _ in range(draw(st.integers(1, 4))):
        kind = draw(
            st.sampled_from(("flip", "set", "truncate", "insert", "delete", "splice", "number", "repeat"))
        )
        at = draw(_positions(len(content)))
        length = draw(st.sampled_from((1, 2, 4, 8, 64, 1000)))
        match kind:
            case "flip" if content:
                content[at] ^= 1 << draw(st.integers(0, 7))
            case "set" if content:
                content[at] = draw(st.integers(0, 255))
            case "truncate":
                del content[at:]
            case "insert":
                content[at:at] = draw(st.one_of(st.binary(max_size=16), st.sampled_from(TEXTS)))
            case "delete":
                del content[at : at + length]
            case "splice":
                start = draw(_positions(len(content)))
                content[at:at] = content[start : start + length]
            case "number":
                packed = draw(numbers())
                content[at : at + len(packed)] = packed
            case "repeat":
                content[at : at + length] = content[at : at + length] * draw(st.integers(2, 100))
    return bytes(content)


@st.composite
def numbers(draw: Any) -> bytes:
    """A number at an edge, as binary formats write them."""
    order, (size, code) = (
        draw(st.sampled_from("<>")),
        draw(st.sampled_from(((1, "B"), (2, "H"), (4, "I"), (8, "Q")))),
    )
    return struct.pack(f"{order}{code}", draw(st.sampled_from(EDGES)) % 2 ** (8 * size))


def _positions(length: int) -> st.SearchStrategy[int]:
    """Any position, and more often one near the ends, where formats keep their headers and directories."""
    last = max(length - 1, 0)
    near = min(last, 64)
    return st.one_of(st.integers(0, last), st.integers(0, near), st.integers(last - near, last))
