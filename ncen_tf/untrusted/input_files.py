"""Text, JSON and TOML that others wrote: read, and checked for what readers rely on, or refused."""

import json
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ncen_tf.base.errors import InputError

Kind = Any
"""What a value has to be: a type; ``{"name": kind}``, a table with these fields and maybe others;
``{str: kind}``, a table with any names; ``[kind]``, a list; ``[kind, kind]``, a list of just these; a tuple
of kinds, any of them."""

NUMBER: Kind = (int, float)


def read_text(file: Path) -> str:
    """A file of UTF-8 text.

    Raises:
        InputError: it is missing, cannot be read, or is no text.
    """
    try:
        return file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{file} cannot be read: {error}.") from error


def read_json(file: Path) -> Any:
    """The content of a JSON file.

    Raises:
        InputError: it is missing or no JSON.
    """
    return parse_json(str(file), read_text(file))


def parse_json(where: str, text: str) -> Any:
    """The content of a JSON text.

    Raises:
        InputError: it is no JSON; ``where`` begins the sentence.
    """
    try:
        content = json.loads(text)
        json.dumps(
            content, ensure_ascii=False
        ).encode()  # fails on half a surrogate pair, as later output would
    except (ValueError, RecursionError) as error:
        raise InputError(f"{where} cannot be read: {error}.") from error
    return content


def read_toml(file: Path) -> dict[str, Any]:
    """The content of a TOML file.

    Raises:
        InputError: it is missing or no TOML.
    """
    text = read_text(file)
    try:
        content = tomllib.loads(text)
    except (ValueError, RecursionError) as error:
        raise InputError(f"{file} cannot be read: {error}.") from error
    # TOML's own range; a larger one has no float, and Python refuses to print it.
    if not all(_has_64_bits(integer) for integer in _integers(content)):
        raise InputError(f"{file} cannot be read: it holds an integer of more than 64 bits.")
    return content


def check_flag_size(name: str, value: object) -> None:
    """Refuse an integer that is not of 64 bits: Python can read 0xfff... of any length, but not print it.

    Raises:
        InputError: the flag has such a value.
    """
    if isinstance(value, int) and not _has_64_bits(value):
        raise InputError(f"--{name} is a number of more than 64 bits.")


def _has_64_bits(integer: int) -> bool:
    return -(2**63) <= integer < 2**63


def _integers(value: object) -> Iterator[int]:
    if isinstance(value, int):
        yield value
    inside = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    for entry in inside:
        yield from _integers(entry)


def check_content(where: str, content: Any, kind: Kind) -> None:
    """Refuse content that is not of a kind.

    Args:
        where: what it is the content of; begins the sentence.
        content: of a JSON file.
        kind: what readers rely on.

    Raises:
        InputError: something is missing or wrong; it is named.
    """
    fault = _fault("", content, kind)
    if fault:
        raise InputError(f"{where}: {fault}.")


def _fault(path: str, value: Any, kind: Kind) -> str | None:
    if isinstance(kind, tuple):
        faults = [_fault(path, value, one) for one in kind]
        return None if None in faults else faults[0]
    if isinstance(kind, dict):
        return _fault_of_table(path, value, kind)
    if isinstance(kind, list):
        if not isinstance(value, list):
            return f"{path} has the wrong type, {type(value).__name__}"
        if len(kind) > 1 and len(value) != len(kind):
            return f"{path} has {len(value)} entries, not {len(kind)}"
        kinds = kind if len(kind) > 1 else kind * len(value)
        entries = enumerate(zip(value, kinds, strict=True))
        return next(filter(None, (_fault(f"{path}[{i}]", entry, of) for i, (entry, of) in entries)), None)
    # In Python, True is an int; in a file it is none.
    if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
        return f"{path or 'it'} has the wrong type, {type(value).__name__}"
    if isinstance(value, int) and abs(value) >= 2**63:
        return f"{path} is too large a number"
    return None


def _fault_of_table(path: str, value: Any, kind: dict[Any, Kind]) -> str | None:
    if not isinstance(value, dict):
        return f"{path or 'it'} is not a table"
    inside = f"{path}." if path else ""
    for name, of in kind.items():
        if name is str:
            entries = value.items()
        elif name in value:
            entries = {name: value[name]}.items()
        else:
            return f"{inside}{name} is missing"
        for key, entry in entries:
            if fault := _fault(f"{inside}{key}", entry, of):
                return fault
    return None
