"""Grids of training runs as TOML files; the help of ``ncen_tf.sweep`` describes the format."""

import contextlib
import itertools
import re
import typing
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, field_validator

from ncen_tf.attack.losses import ObjectiveName
from ncen_tf.attack.suites import load_suite
from ncen_tf.base.errors import InputError
from ncen_tf.base.files import read_toml, sha256
from ncen_tf.base.flags import flags_of
from ncen_tf.base.settings import Settings
from ncen_tf.export.manifest import ExportSettings
from ncen_tf.report.results import Norm
from ncen_tf.train.config import TrainConfig

SEPARATOR = "__"
"""Between the parts of a cell's name."""

_LISTS = {flag.name for flag in flags_of(TrainConfig) if typing.get_origin(flag.type) is tuple}


class CellExport(ExportSettings):
    """How each cell is exported."""

    formats: tuple[Literal["onnx", "saved_model"], ...] = ("onnx",)

    @field_validator("formats")
    @classmethod
    def _check_formats(cls, formats: tuple[str, ...]) -> tuple[str, ...]:
        if "onnx" not in formats:
            raise InputError("`formats` must include onnx, which is the format that is attacked.")
        return formats


class AttackSettings(Settings):
    """How each cell is attacked: arguments of ``ncen_tf.evaluate``."""

    suite: str
    """Name of a suite, or a TOML file."""
    name: str | None = None
    """Name of the report, where a grid attacks with one suite in several ways."""
    norm: Norm | None = None
    objective: ObjectiveName | None = None
    examples: int | None = Field(default=None, ge=0)
    batch_size: int | None = Field(default=None, ge=1)
    seed: int = Field(default=0, ge=0, lt=2**31)
    check_gradients: bool | None = None
    suite_sha256: str = ""
    """Digest of the suite's file; filled in when a grid is read."""

    @property
    def choices(self) -> dict[str, Any]:
        """What is chosen instead of the suite's own settings."""
        return {name: getattr(self, name) for name in ("norm", "objective", "batch_size", "check_gradients")}

    @property
    def report_name(self) -> str:
        """Name of the report's folder, and of its entry in records."""
        return self.name or _as_file_name(Path(self.suite).stem if _is_file(self.suite) else self.suite)


class GridCell(Settings):
    """One training run of a grid, and what is done with it."""

    name: str
    """Made of the settings that vary over the grid, such as ``regularizer=nce__seed=0``."""
    config: TrainConfig
    export: CellExport
    attacks: tuple[AttackSettings, ...]

    def trains_the_same(self, other: "GridCell") -> bool:
        """Return whether the training of another cell ends with the same weights."""
        return _weights_settings(self.config) == _weights_settings(other.config)

    def includes(self, other: "GridCell") -> bool:
        """Return whether this cell's work contains all the work of another cell."""
        return (
            self.trains_the_same(other)
            and self.export == other.export
            and all(attack in self.attacks for attack in other.attacks)
        )


def read_grid(file: str | Path) -> list[GridCell]:
    """Read a grid file and check all of it.

    Args:
        file: TOML file with tables ``[train]``, ``[export]`` and ``[[attack]]``.

    Returns:
        The cells, in the file's order; the last setting of a table varies fastest.

    Raises:
        InputError: The file cannot be read, or something in it cannot work; the cell is named.

    Examples:
        >>> import ncen_tf
        >>> [cell.name for cell in ncen_tf.read_grid("configs/grids/smoke.toml")]
        ['regularizer=none', 'regularizer=nce']
    """
    file = Path(file)
    content = read_toml(file)
    train, attack = (_tables(file, name, content.pop(name, [])) for name in ("train", "attack"))
    export = content.pop("export", {})
    if not isinstance(export, dict):
        raise InputError(f"{file}: `export` must be a table [export].")
    if not content and not train:
        raise InputError(f"{file} has no cell: write settings of ncen_tf.train into a table [train].")
    # What is left belongs to all [train] tables.
    given = [values for table in train or [{}] for values in _product(file, content | table)]
    names = _cell_names(given)
    configs = []
    for name, values in zip(names, given, strict=True):
        # A value such as resnet8,resnet8 is a list.
        split = {n: v.split(",") if n in _LISTS and isinstance(v, str) else v for n, v in values.items()}
        with _naming(f"{file}, cell {name}"):
            configs.append(TrainConfig.from_flags(split))
    with _naming(f"{file}, [export]"):
        exported = CellExport(**export)
    attacks = _attacks(file, attack)
    cells: list[GridCell] = []
    for name, config in zip(names, configs, strict=True):
        cell = GridCell(name=name, config=config, export=exported, attacks=attacks)
        same = next((other.name for other in cells if other.trains_the_same(cell)), None)
        if same:
            raise InputError(f"{file}: the cells {same} and {name} have the same settings; remove one.")
        cells.append(cell)
    return cells


def _tables(file: Path, name: str, value: Any) -> list[dict[str, Any]]:
    """Accept both [name] and [[name]]."""
    tables = value if isinstance(value, list) else [value]
    if not all(isinstance(table, dict) for table in tables):
        raise InputError(f"{file}: `{name}` must be a table [{name}], or several tables [[{name}]].")
    return tables


def _product(file: Path, table: dict[str, Any]) -> list[dict[str, Any]]:
    """Take one value for each setting, in all combinations."""
    for name, value in table.items():
        if value == []:
            raise InputError(f"{file}: `{name}` has an empty list of values.")
    values = [value if isinstance(value, list) else [value] for value in table.values()]
    return [dict(zip(table, chosen, strict=True)) for chosen in itertools.product(*values)]


def _cell_names(given: list[dict[str, Any]]) -> list[str]:
    """Name each cell by its settings that vary over the grid."""
    names = dict.fromkeys(name for values in given for name in values)
    varying = [name for name in names if any(values.get(name) != given[0].get(name) for values in given)]
    if not varying:
        varying = [name for name in ("dataset", "regularizer", "seed") if name in names]
    parts = [
        [_as_file_name(f"{name}={_text(values[name])}") for name in varying if name in values]
        for values in given
    ]
    return [SEPARATOR.join(of_cell) or "default" for of_cell in parts]


def _text(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def _as_file_name(text: str) -> str:
    return re.sub(r"[^\w.+=-]", "_", text.replace(",", "+"))


@contextlib.contextmanager
def _naming(where: str) -> Iterator[None]:
    """Say in errors where in the grid something is."""
    try:
        yield
    except InputError as error:
        raise InputError(f"{where}: {error}") from error


def _attacks(file: Path, tables: list[dict[str, Any]]) -> tuple[AttackSettings, ...]:
    attacks: dict[str, AttackSettings] = {}
    for number, table in enumerate(tables, start=1):
        with _naming(f"{file}, [[attack]] table {number}"):
            attack = AttackSettings(**table)
            # The size of the images, which are not read yet, decides the bounds only.
            load_suite(attack.suite, (32, 32, 3)).with_choices(**attack.choices)
            digest = sha256(Path(attack.suite)) if _is_file(attack.suite) else ""
            if attack.report_name in attacks:
                name = attack.report_name
                raise InputError(f"there is a report {name!r} already; give another `name`.")
        attacks[attack.report_name] = attack.model_copy(update={"suite_sha256": digest})
    return tuple(attacks.values())


def _is_file(suite: str) -> bool:
    return suite.endswith(".toml")


def _weights_settings(config: TrainConfig) -> dict[str, Any]:
    settings = config.flat() | {"by_images": config.by_images}
    return {name: value for name, value in settings.items() if name != "checkpoint_every"}
