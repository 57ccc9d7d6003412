"""Grid files: flagfiles in which a training flag may have several values.

`python -m ncen_tf.sweep --help` describes the format.
"""

import dataclasses
import re
from pathlib import Path

from ncen_tf.base.errors import InputError

SEPARATOR = "|"
SECTIONS = ("train", "export", "attack")


@dataclasses.dataclass(frozen=True)
class Setting:
    """The values that one line gives to a flag."""

    line: int
    values: tuple[str, ...]


@dataclasses.dataclass(frozen=True)
class Section:
    """Flags that belong together; ``line`` is where they begin."""

    line: int
    settings: dict[str, Setting]


@dataclasses.dataclass(frozen=True)
class Grid:
    """A grid file, its flags not yet checked."""

    file: Path
    train: tuple[Section, ...]
    export: Section
    attack: tuple[Section, ...]


def read_grid(file: Path) -> Grid:
    """Read a grid file.

    Raises:
        InputError: a file or line that cannot be read as a grid, or no cell in it; the line is named.
    """
    try:
        lines = file.read_text().splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"The grid file {file} cannot be read: {error}.") from error
    common = Section(1, {})
    sections: dict[str, list[Section]] = {name: [] for name in SECTIONS}
    current = common
    for number, line in enumerate(map(str.strip, lines), start=1):
        where = f"{file}, line {number}"
        if header := re.fullmatch(r"\[(.*)\]", line):
            if header[1] not in SECTIONS:
                raise InputError(f"{where}: {line} is no section; a grid has [{'], ['.join(SECTIONS)}].")
            current = Section(number, {})
            sections[header[1]].append(current)
        elif line and not line.startswith("#"):
            name, setting = _read_setting(where, number, line)
            if name in current.settings:
                earlier = current.settings[name].line
                raise InputError(f"{where}: --{name} is given on line {earlier} already; use one line.")
            current.settings[name] = setting
    if len(sections["export"]) > 1:
        raise InputError(f"{file}, line {sections['export'][1].line}: a grid has one [export] section.")
    if not common.settings and not sections["train"]:
        raise InputError(f"The grid file {file} holds no cell: give flags of ncen_tf.train.")
    train = [Section(part.line, common.settings | part.settings) for part in sections["train"]]
    export = sections["export"][0] if sections["export"] else Section(1, {})
    return Grid(file, tuple(train) or (common,), export, tuple(sections["attack"]))


def _read_setting(where: str, number: int, line: str) -> tuple[str, Setting]:
    match = re.fullmatch(r"--(\w+)\s*=(.*)", line)
    if match is None:
        raise InputError(f"{where}: {line!r} is not of the form --flag=value or --flag=value | value.")
    values = tuple(value.strip() for value in match[2].split(SEPARATOR))
    if not all(values):
        raise InputError(f"{where}: --{match[1]} has an empty value.")
    return match[1], Setting(number, values)
