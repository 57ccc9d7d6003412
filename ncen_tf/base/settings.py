"""Settings and results as pydantic models: typed, validated once, written to JSON and read back."""

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, Self, TypeVar, dataclass_transform

import pydantic
from pydantic import ConfigDict, Field, ValidationError

from ncen_tf.base.errors import InputError
from ncen_tf.base.files import read_toml, replacing

T = TypeVar("T")

LARGEST = 3.4028234e38
"""Largest finite number of float32, a bound for numbers that TensorFlow computes with."""


class Settings(pydantic.BaseModel):
    """Base of immutable settings and results that are given by keyword.

    Raises:
        InputError: A value is missing, unknown, of the wrong type or out of range.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, validate_default=True)

    def __init__(self, **values: Any) -> None:
        try:
            super().__init__(**values)
        except ValidationError as error:
            raise InputError(describe(error)) from None

    # Nested objects are then validated as part of the whole, so that an error names the path to the field.
    __init__.__pydantic_base_init__ = True  # type: ignore[attr-defined]

    @classmethod
    def from_json(cls, text: str | bytes, where: str, *, strict: bool = False) -> Self:
        """Read an object from a JSON text.

        Args:
            text: The JSON text.
            where: Name of the file, which starts the error message.
            strict: Whether values must have the very types of the fields.

        Raises:
            InputError: The text is not JSON, or not of this class.
        """
        try:
            return cls.model_validate_json(text, strict=strict or None)
        except ValidationError as error:
            raise InputError(f"{where}: {describe(error)}") from None

    @classmethod
    def from_toml(cls, file: Path | str) -> Self:
        """Read an object from a TOML file, whose values must have the very types of the fields.

        Raises:
            InputError: The file cannot be read, is not TOML, or is not of this class.
        """
        # As JSON, because a table's list may then fill a tuple although types are strict.
        return cls.from_json(json.dumps(read_toml(Path(file)), default=str), str(file), strict=True)

    @classmethod
    def read(cls, file: Path | str) -> Self:
        """Read an object from a JSON file.

        Raises:
            InputError: The file cannot be read, is not JSON, or is not of this class.
        """
        try:
            return cls.from_json(Path(file).read_bytes(), str(file))
        except OSError as error:
            raise InputError(f"{file} cannot be read: {error.strerror}.") from error

    def write(self, file: Path) -> None:
        """Write the object to a JSON file, which appears whole or not at all."""
        with replacing(file) as temporary:
            temporary.write_text(self.model_dump_json(indent=2) + "\n", encoding="utf-8")


def field(flag: str, default: Any, description: str, **bounds: float) -> Any:
    """Declare a field whose flag has another name, with bounds such as ``gt=0``."""
    return Field(default=default, description=description, json_schema_extra={"flag": flag}, **bounds)  # type: ignore[call-overload]


@dataclass_transform(frozen_default=True, field_specifiers=(Field, pydantic.Field))
def settings(cls: type[T]) -> type[T]:
    """Make a class of annotated fields a frozen, validated dataclass, whose fields may be given by position.

    Use it for settings with behaviour, such as regularizers and attacks; everything else is a
    :class:`Settings`. A field may be a ``pydantic.Field`` with bounds and a description.

    Raises (when the class is called):
        InputError: A value is missing, unknown, of the wrong type or out of range.
    """
    config = ConfigDict(extra="forbid", allow_inf_nan=False, validate_default=True)
    decorated: Any = pydantic.dataclasses.dataclass(frozen=True, config=config)(cls)
    initialize: Callable[..., None] = decorated.__init__
    names = [field.name for field in dataclasses.fields(decorated) if field.init and not field.kw_only]

    def __init__(self: Any, *args: Any, **values: Any) -> None:  # noqa: N807
        try:
            # By name, so that an error message can say which of them is wrong.
            initialize(self, *args[len(names) :], **dict(zip(names, args, strict=False)), **values)
        except ValidationError as error:
            raise InputError(describe(error)) from None

    __init__.__pydantic_base_init__ = True  # type: ignore[attr-defined]
    decorated.__init__ = __init__
    result: type[T] = decorated
    return result


def describe(error: ValidationError) -> str:
    """Write the first fault that pydantic found as a sentence: "`eps` must be greater than 0, got -1."."""
    fault = error.errors()[0]
    name = ".".join(str(part) for part in fault["loc"])
    message = fault["msg"]
    if fault["type"] in ("value_error", "assertion_error"):
        return str(fault["ctx"]["error"])
    if fault["type"] in ("missing", "missing_argument"):
        return f"`{name}` is missing."
    if fault["type"] in ("extra_forbidden", "unexpected_keyword_argument"):
        return f"`{name}` is not a setting."
    if fault["type"] == "union_tag_invalid":
        context = fault["ctx"]
        return f"`{name}` must be one of {context['expected_tags']}, got {context['tag']!r}."
    if any(isinstance(bound, float) and abs(bound) >= LARGEST for bound in fault.get("ctx", {}).values()):
        return f"`{name}` must be finite in float32, got {fault['input']!r}."
    if message.startswith("Input should"):
        return f"`{name}` must{message.removeprefix('Input should')}, got {fault['input']!r}."
    return f"`{name}`: {message}." if name else f"{message}."
