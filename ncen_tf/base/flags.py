"""Settings as flat names and values: flags of a program, keys of a grid, columns of a table.

Values may be written as text: fractions such as 8/255, functions of a user's module as module:function.
"""

import importlib
import re
import sys
import types
import typing
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import annotated_types

from ncen_tf.base.errors import InputError
from ncen_tf.base.settings import LARGEST

_FUNCTION = re.compile(r"[A-Za-z_][\w.]*:[A-Za-z_]\w*")
_BOUNDS = {annotated_types.Ge: "at least", annotated_types.Gt: "above"}
_BOUNDS |= {annotated_types.Le: "at most", annotated_types.Lt: "below"}


class FlagField(NamedTuple):
    """A field of a settings class, or of one of its nested choices, as a flag."""

    name: str
    path: tuple[str, ...]
    """Names of the fields that lead to it; a choice such as ``regularizer`` adds the chosen name."""
    type: Any
    default: Any
    help: str
    bounds: str = ""
    """The numbers allowed, such as ``at least 1``; empty if there is no bound."""


def flags_of(settings: type[Any]) -> list[FlagField]:
    """List the flags that a settings class defines.

    A field whose type is a union of settings with a ``name`` (``NCE | GAL | None``) is a flag that chooses
    one of them (``--regularizer=nce``, or ``none``), followed by the fields of each. So is a field whose type
    is one settings class with several values of ``form``. A field's flag has its name, or
    ``json_schema_extra={"flag": ...}`` where that would not say what it belongs to; ``None`` there means no
    flag.
    """
    unique = {flag.name: flag for flag in _walk(settings, ())}
    return list(unique.values())


def flatten(settings: Any) -> dict[str, Any]:
    """Make a flat dictionary of flag names and values; of a choice, only the fields of the chosen class."""
    flat: dict[str, Any] = {}
    for name, field_name, _, kinds, _ in _fields(type(settings)):
        value = getattr(settings, field_name)
        if not _is_settings(kinds[0]):
            flat[name] = value
        elif value is None:
            flat[name] = "none"
        else:
            by = _chooser(type(value))
            flat[name] = getattr(value, by)
            flat |= {key: v for key, v in flatten(value).items() if key != by}
    return flat


def unflatten(settings: type[Any], flat: Mapping[str, Any]) -> dict[str, Any]:
    """Make the arguments of a settings class of a flat dictionary, the inverse of :func:`flatten`.

    ``None`` means not given. Values of choices that were not chosen are left out.

    Raises:
        InputError: A name that is no flag of the class.
    """
    known = {flag.name for flag in flags_of(settings)}
    for name in flat:
        if name not in known:
            raise InputError(f"`{name}` is not a setting.")
    return _nest(settings, {name: value for name, value in flat.items() if value is not None})


def parse_number(text: str | float) -> float:
    """Read a number, or a fraction such as 8/255.

    Raises:
        ValueError: The text is neither.
    """
    numerator, slash, denominator = str(text).partition("/")
    try:
        return float(numerator) / float(denominator) if slash else float(numerator)
    except ZeroDivisionError:
        raise ValueError("division by zero") from None


def is_function_name(name: str) -> bool:
    """Tell whether a name has the form ``module:function``."""
    return _FUNCTION.fullmatch(name) is not None


def require_target(path: Path) -> None:
    """Refuse a target that is neither a path nor a function's name: best before images are read.

    Raises:
        InputError: There is no such path.
    """
    if not path.exists() and not is_function_name(str(path)):
        raise InputError(
            f"{path} does not exist: `target` is a run, .keras file, SavedModel, .onnx file, export, or "
            "module:function."
        )


def import_function(name: str) -> Callable[..., Any]:
    """Import ``module:function``; the module may be a file of the working directory.

    Raises:
        InputError: The module cannot be imported, or has no such function.
    """
    module, _, function = name.partition(":")
    if "" not in sys.path:
        sys.path.insert(0, "")
    try:
        found = getattr(importlib.import_module(module), function)
    except Exception as error:  # whatever a user's module raises
        raise InputError(f"{name} cannot be imported: {type(error).__name__}: {error}") from error
    if not callable(found):
        raise InputError(f"{name} is a {type(found).__name__}, not a function.")
    return found


def _nest(settings: type[Any], flat: Mapping[str, Any]) -> dict[str, Any]:
    nested: dict[str, Any] = {}
    for name, field_name, field, kinds, _ in _fields(settings):
        if _is_settings(kinds[0]):
            choices = _choices(kinds)
            default = field.get_default(call_default_factory=True)
            chosen = flat.get(name, "none" if default is None else getattr(default, _chooser(type(default))))
            if chosen not in choices:
                if name in flat:
                    by = _chooser(kinds[0])
                    nested[field_name] = None if chosen == "none" else {by: chosen}
                continue
            kind = choices[chosen]
            inner = _nest(kind, flat)
            if name in flat or inner:
                nested[field_name] = inner | {_chooser(kind): chosen}
        elif name in flat:
            value = flat[name]
            is_fraction = kinds[0] is float and isinstance(value, str) and "/" in value
            nested[field_name] = parse_number(value) if is_fraction else value
    return nested


def _walk(settings: type[Any], path: tuple[str, ...]) -> Iterator[FlagField]:
    chooser = _chooser(settings) if path else None
    for name, field_name, field, kinds, optional in _fields(settings):
        if field_name == chooser:
            continue
        here = (*path, field_name)
        default = None if field.is_required() else field.get_default(call_default_factory=True)
        help_text = field.description or ""
        if _is_settings(kinds[0]):
            choices = _choices(kinds)
            chosen = "none" if default is None else getattr(default, _chooser(type(default)))
            names = tuple(["none", *choices] if optional else choices)
            yield FlagField(name, here, typing.Literal[names], chosen, help_text)
            for kind in kinds:
                union = (kind.__pydantic_fields__["name"].default,) if len(kinds) > 1 else ()
                yield from _walk(kind, (*here, *union))
        else:
            bounds = [
                f"{words} {getattr(bound, kind.__name__.lower()):.10g}"
                for kind, words in _BOUNDS.items()
                for bound in field.metadata
                if isinstance(bound, kind) and abs(getattr(bound, kind.__name__.lower())) < LARGEST
            ]
            yield FlagField(name, here, kinds[0], default, help_text, " and ".join(bounds))


def _fields(settings: type[Any]) -> Iterator[tuple[str, str, Any, list[Any], bool]]:
    """Yield flag, name, declaration and :func:`_kinds` of the fields that are flags."""
    for field_name, field in settings.__pydantic_fields__.items():
        name = (field.json_schema_extra or {}).get("flag", field_name)
        if name is not None:
            yield name, field_name, field, *_kinds(field.annotation)


def _is_settings(kind: Any) -> bool:
    return hasattr(kind, "__pydantic_fields__")


def _chooser(kind: type[Any]) -> str:
    return "name" if "name" in kind.__pydantic_fields__ else "form"


def _choices(kinds: list[Any]) -> dict[str, Any]:
    """Map the names that a flag chooses from to the classes they stand for."""
    return {
        choice: kind
        for kind in kinds
        for choice in typing.get_args(kind.__pydantic_fields__[_chooser(kind)].annotation)
    }


def _kinds(annotation: Any) -> tuple[list[Any], bool]:
    """List the members of a union without ``None``, and say whether ``None`` was among them."""
    if typing.get_origin(annotation) is typing.Annotated:
        return _kinds(typing.get_args(annotation)[0])
    if typing.get_origin(annotation) in (typing.Union, types.UnionType):
        parts = typing.get_args(annotation)
        kinds = [kind for part in parts if part is not types.NoneType for kind in _kinds(part)[0]]
        return kinds, types.NoneType in parts
    return [annotation], False
