"""Damage to files: random mutations that mostly keep a format intact, so that readers get far."""

import contextlib
import copy
import io
import json
import struct
import zipfile
from collections.abc import Callable, Iterable, Iterator
from pathlib import PurePath
from random import Random
from typing import Any

import numpy as np
from google.protobuf.message import Message
from onnx import ModelProto
from tensorflow.core.protobuf.saved_model_pb2 import SavedModel

NUMBERS = (0, 1, -1, 127, 255, 2**15, 2**16, 2**31 - 1, -(2**31), 2**32 - 1, 2**40, 2**63 - 1, -(2**63))
"""Integers at the limits of common types."""
TEXTS = ("", "x", "\0", "\n", "\x1b[2J", "\ud800", "../outside/secret.bin", "x" * 9999, "1", "nan", "1e999")
VALUES: tuple[Any, ...] = (
    *(None, True, False, *NUMBERS, 10**400, 1.5, -0.0, 1e308, float("nan"), float("inf"), *TEXTS),
    *([], {}, [None], [[]], {"": None}, [1, 2, 3], [0.5, "a"], json.loads("[" * 100 + "]" * 100)),
)
"""Values that replace others in JSON."""
PIECES = (b"\0", b"\xff\xfe", b"\xed\xa0\x80", b"\xef\xbb\xbf", b"[" * 9999, b'{"a":' * 9999, b"9" * 5000)
"""Bytes that are inserted: no UTF-8, deep nesting, a very long number."""
SHAPES = ("()", "(0,)", "(-1,)", "(2, 2)", "(700000000,)", "'x'", "(1.5,)", "(2**62, 9)", "-" * 3000 + "1")
TYPES = ("'|O'", "'<f8'", "'>f4'", "'<i4'", "'<U100000000'", "'|V8'", "'<M8[s]'", "'<f1000'", "[('a', 'O')]")

Mutate = Callable[[Random, bytes], bytes]


def mutate(random: Random, name: str, content: bytes) -> bytes:
    """Damage the content of a file in a way that fits the suffix of its name."""
    change = _BY_SUFFIX.get(PurePath(name).suffix, mutate_bytes)
    return (mutate_bytes if random.randrange(5) == 0 else change)(random, content)


def mutate_bytes(random: Random, original: bytes) -> bytes:
    """Apply one to four changes to bytes of any format."""
    content = bytearray(original)
    for _ in range(random.randint(1, 4)):
        # Formats keep headers and directories near the ends.
        last = max(len(content) - 1, 0)
        at = random.choice((random.randint(0, last), random.randint(0, min(last, 64)), max(0, last - 32)))
        length = random.choice((1, 2, 4, 8, 64, 1000))
        match random.randrange(6):
            case 0 if content:
                content[at] ^= 1 << random.randrange(8)
            case 1:
                del content[at:]
            case 2:
                content[at:at] = random.choice((*PIECES, random.randbytes(16)))
            case 3:
                del content[at : at + length]
            case 4:
                size, order = random.choice((1, 2, 4, 8)), random.choice(("little", "big"))
                number = random.choice(NUMBERS) % 2 ** (8 * size)
                content[at : at + size] = number.to_bytes(size, order)
            case 5:
                content[at : at + length] = content[at : at + length] * random.randint(2, 100)
    return bytes(content)


def mutate_json(random: Random, original: bytes) -> bytes:
    """Replace, delete or rename one to three values of a JSON text."""
    content = json.loads(original)
    for _ in range(random.randint(1, 3)):
        places = list(_places(content))
        if not places:
            break
        parent, key = random.choice(places)
        match random.randrange(7):
            case 0:
                del parent[key]
            case 1:
                parent[key] = random.choice(([parent[key]] * 2, {"x": parent[key]}, str(parent[key])))
            case 2 if isinstance(parent, dict):
                parent[random.choice(("", "x", "format", "\ud800", "é\n"))] = parent.pop(key)
            case 3:
                parent[key] = copy.deepcopy(random.choice(VALUES))
            case _:
                alike = [value for value in VALUES if type(value) is type(parent[key])]
                parent[key] = copy.deepcopy(random.choice(alike))
    return json.dumps(content, indent=random.choice((None, 2))).encode()


def _places(content: Any, depth: int = 0) -> Iterator[tuple[Any, Any]]:
    """Yield every table or list with each of its keys, except those nested more than 50 deep."""
    if depth <= 50 and isinstance(content, dict | list):
        for key in content if isinstance(content, dict) else range(len(content)):
            yield content, key
            yield from _places(content[key], depth + 1)


def mutate_text(random: Random, original: bytes) -> bytes:
    """Change one to three lines or values of a flagfile or a TOML file."""
    lines = original.decode().splitlines()
    for _ in range(random.randint(1, 3)):
        at = random.randrange(len(lines))
        value = str(random.choice((*NUMBERS, *TEXTS, "[]", "[1, 2]", "0x" + "f" * 5000, "true", "1.5")))
        name, equals, _ = lines[at].partition("=")
        match random.randrange(6):
            case 0:
                lines.insert(at, random.choice(lines))
            case 1:
                lines[at] = ""
            case 2:
                lines.insert(at, random.choice(("x = 1", "[x]", "[[attack]]", "[train]", "--undefok=x")))
            case _ if equals:
                lines[at] = f"{name}={json.dumps(value) if random.randrange(2) else value}"
    return "\n".join(lines).encode(errors="replace") + b"\n"


def mutate_zip(random: Random, original: bytes) -> bytes:
    """Damage, rename, repeat or drop a member of a zip archive."""
    members = unpack(original)
    name = random.choice(sorted(members))
    match random.randrange(12):
        case 0:
            members[random.choice((*TEXTS[:4], *TEXTS[6:8], "/x"))] = members[name]
        case 1:
            del members[name]
        case _:
            members[name] = mutate(random, name, members[name])
    return pack(members, random.choice((zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2)))


def pack(members: dict[str, bytes], method: int = zipfile.ZIP_STORED) -> bytes:
    """Write a zip archive."""
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", method) as archive:
        for name, content in members.items():
            archive.writestr(zipfile.ZipInfo(name), content, method)
    return stream.getvalue()


def unpack(content: bytes) -> dict[str, bytes]:
    """Read the members of a zip archive."""
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def mutate_npy(random: Random, original: bytes) -> bytes:
    """Change type, shape or values of a NumPy array, or what its header says of them."""
    array = np.load(io.BytesIO(original))
    header = 10 + struct.unpack_from("<H", original, 8)[0]
    match random.randrange(5):
        case 0:
            return npy_header(f"'{array.dtype.str}'", random.choice(SHAPES)) + original[header:]
        case 1:
            return npy_header(random.choice(TYPES), str(array.shape)) + original[header:]
        case 2:
            array = random.choice((array.reshape(-1)[:-1], np.stack([array, array]), array.astype("U5")))
        case _ if array.dtype.kind == "f":
            array = np.full_like(array, random.choice((np.nan, np.inf, -1, 255, 1e30, 0.5)))
    stream = io.BytesIO()
    np.save(stream, array)
    return stream.getvalue()


def npy_header(dtype: str, shape: str) -> bytes:
    """Write the header of an array in NumPy's format."""
    text = f"{{'descr': {dtype}, 'fortran_order': False, 'shape': {shape}, }}\n".encode()
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(text)) + text


def mutate_protobuf(kind: type[Message]) -> Mutate:
    """Make a mutation that changes, drops or exchanges one to three fields of a message."""

    def change(random: Random, original: bytes) -> bytes:
        message = kind.FromString(original)
        for _ in range(random.randint(1, 3)):
            parts = list(_parts(message))
            if not parts:
                break
            part = random.choice(parts)
            field, value = random.choice(part.ListFields())
            other = random.choice([other for other in parts if type(other) is type(part)])
            match random.randrange(6):
                case 0:
                    part.ClearField(field.name)
                case 1:
                    part.CopyFrom(other)
                case _:
                    with contextlib.suppress(ValueError, TypeError, IndexError):  # out of range, or a message
                        # The name of another node makes a cycle, the size of another tensor a wrong shape.
                        if isinstance(value, str | bytes | int | float):
                            new = random.choice((getattr(other, field.name), _scalar(random, value)))
                            setattr(part, field.name, new)
                        else:
                            new = random.choice(getattr(other, field.name))
                            value[random.randrange(len(value))] = random.choice((new, _scalar(random, new)))
        content: bytes = message.SerializeToString()
        return content

    return change


def _parts(message: Message) -> Iterator[Message]:
    """Yield a message and all messages inside it, except empty ones."""
    if message.ListFields():
        yield message
    for _, value in message.ListFields():
        if isinstance(value, Message):
            inside: Iterable[Any] = [value]
        else:
            inside = value.values() if hasattr(value, "values") else value if hasattr(value, "add") else []
        for inner in inside:
            if isinstance(inner, Message):
                yield from _parts(inner)


def _scalar(random: Random, value: Any) -> Any:
    if isinstance(value, bytes):
        return mutate_bytes(random, value)
    return random.choice(TEXTS if isinstance(value, str) else (*NUMBERS, *range(20), 0.5, float("nan")))


_BY_SUFFIX: dict[str, Mutate] = {
    ".json": mutate_json,
    ".cfg": mutate_text,
    ".toml": mutate_text,
    ".npz": mutate_zip,
    ".keras": mutate_zip,
    ".npy": mutate_npy,
    ".onnx": mutate_protobuf(ModelProto),
    ".pb": mutate_protobuf(SavedModel),
}
