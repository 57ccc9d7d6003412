"""Surgery on protocol buffers, whose lengths stay right so that readers get far; no schema is needed."""

import functools
import struct
from typing import Any

from hypothesis import strategies as st

from tests.fuzzing.byte_mutations import EDGES, mutated_bytes

Message = tuple["Field", ...]
Field = tuple[int, int, Any]
"""Number, wire type, and the value: an integer, bytes, or what bytes are when they are a message."""
Path = tuple[int, ...]

_VARINT, _FIXED64, _LENGTH, _FIXED32 = 0, 1, 2, 5
TEXTS = (b"", b"x", b"\xff", b"\0", b"../outside/secret.bin", b"x" * 5000, b"\xff" * 64, bytes(64))
DEPTHS = (50, 101, 5000)


@st.composite
def mutated_message(draw: Any, original: bytes) -> bytes:
    """The original with one to three fields changed, dropped, repeated, exchanged or nested."""
    message = parse(original)
    for _ in range(draw(st.integers(1, 3))):
        places = paths(message)
        if not places:
            break
        path = draw(st.sampled_from(places))
        number, wire, value = _at(message, path)
        kind = draw(
            st.sampled_from(("value", "value", "value", "copy", "copy", "drop", "repeat", "number", "nest"))
        )
        fields: Message
        match kind:
            case "drop":
                fields = ()
            case "repeat":
                fields = ((number, wire, value),) * draw(st.sampled_from((2, 2, 3, 1000)))
            case "number":
                fields = ((draw(st.integers(1, 30)), wire, value),)
            case "copy":  # a name for another makes cycles, a size for another wrong shapes
                like = [p for p in places if _kind(_at(message, p)) == _kind((number, wire, value))]
                fields = ((number, wire, _at(message, draw(st.sampled_from(like)))[2]),)
            case "nest":
                fields = ((number, wire, value),)
                for _ in range(draw(st.sampled_from(DEPTHS)) if wire == _LENGTH else 0):
                    fields = ((number, wire, fields),)
            case _:
                fields = ((number, wire, draw(_values(wire))),)
        message = _replaced(message, path, fields)
        if kind == "nest":  # too deep for Python to compare with others
            break
    content = pack(message)
    return draw(mutated_bytes(content)) if draw(st.integers(0, 9)) == 0 else content


@functools.lru_cache(maxsize=64)
def parse(content: bytes, depth: int = 0) -> Message:
    """The fields of a message.

    Raises:
        ValueError: the bytes are no message.
    """
    fields, at = [], 0
    while at < len(content):
        key, at = read_varint(content, at)
        number, wire = key >> 3, key & 7
        if not 0 < number < 2**29:
            raise ValueError(number)
        value: Any
        if wire == _VARINT:
            value, at = read_varint(content, at)
        elif wire in (_FIXED64, _FIXED32):
            size = 8 if wire == _FIXED64 else 4
            value, at = content[at : at + size], at + size
        elif wire == _LENGTH:
            size, at = read_varint(content, at)
            value, at = content[at : at + size], at + size
            value = _inside(value, depth)
        else:
            raise ValueError(wire)
        if at > len(content):
            raise ValueError(at)
        fields.append((number, wire, value))
    return tuple(fields)


def _inside(content: bytes, depth: int) -> Any:
    """Bytes, or the message that they probably are."""
    if depth > 40 or len(content) < 2 or (content.isascii() and content.decode().isprintable()):
        return content
    try:
        return parse(content, depth + 1)
    except ValueError:
        return content


def pack(message: Message) -> bytes:
    """A message as bytes."""
    parts = []
    for number, wire, value in message:
        if wire == _LENGTH and isinstance(value, tuple):
            depth, inner = 0, value  # without recursion, for messages may be nested deeply
            while len(inner) == 1 and inner[0][1] == _LENGTH and isinstance(inner[0][2], tuple):
                depth, inner = depth + 1, inner[0][2]
            content, chain = pack(inner), value
            numbers = []
            for _ in range(depth):
                numbers.append(chain[0][0])
                chain = chain[0][2]
            for one in reversed(numbers):
                content = varint(one << 3 | _LENGTH) + varint(len(content)) + content
            value = content
        body = varint(value) if wire == _VARINT else value
        parts += [varint(number << 3 | wire), varint(len(body)) if wire == _LENGTH else b"", body]
    return b"".join(parts)


@functools.lru_cache(maxsize=64)
def paths(message: Message, depth: int = 0) -> list[Path]:
    """Of all fields but the deepest, as indices from the outside in."""
    found: list[Path] = []
    for index, (_, _, value) in enumerate(message):
        found.append((index,))
        if isinstance(value, tuple) and depth < 60:
            found += [(index, *inner) for inner in paths(value, depth + 1)]
    return found


def _at(message: Message, path: Path) -> Field:
    field = message[path[0]]
    return field if len(path) == 1 else _at(field[2], path[1:])


def _replaced(message: Message, path: Path, fields: Message) -> Message:
    index = path[0]
    if len(path) > 1:
        number, wire, value = message[index]
        fields = ((number, wire, _replaced(value, path[1:], fields)),)
    return (*message[:index], *fields, *message[index + 1 :])


def _kind(field: Field) -> tuple[int, type]:
    return field[1], type(field[2])


def _values(wire: int) -> st.SearchStrategy[Any]:
    if wire == _VARINT:
        return st.one_of(st.integers(0, 40), st.sampled_from([edge % 2**64 for edge in EDGES]))
    if wire == _LENGTH:
        return st.one_of(st.sampled_from(TEXTS), st.binary(max_size=16))
    size, number = (8, "<d") if wire == _FIXED64 else (4, "<f")
    floats = [struct.pack(number, value) for value in (0.0, -1.0, float("nan"), float("inf"), 1e-30)]
    return st.one_of(st.sampled_from(floats), st.binary(min_size=size, max_size=size))


def read_varint(content: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        if at >= len(content) or shift > 63:
            raise ValueError(at)
        byte = content[at]
        value |= (byte & 127) << shift
        at, shift = at + 1, shift + 7
        if byte < 128:
            return value, at


def varint(value: int) -> bytes:
    parts = bytearray()
    while value > 127:
        parts.append(value & 127 | 128)
        value >>= 7
    parts.append(value)
    return bytes(parts)
