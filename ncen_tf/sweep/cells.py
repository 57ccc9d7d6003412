"""Cells of a grid: what each one trains, checked before anything is trained."""

import dataclasses
import itertools
import re
from pathlib import Path

from absl import flags

from ncen_tf.base.errors import InputError
from ncen_tf.untrusted.input_files import check_flag_size
from ncen_tf.sweep.grid import Grid, Section
from ncen_tf.train.config import TrainingConfig

# The sweep decides where a cell's run goes, and never throws one away.
_RESERVED = ("run_dir", "overwrite")
SEPARATOR = "__"
"""Of the parts of a cell's name: no comma, which separates paths in flags."""


@dataclasses.dataclass(frozen=True)
class Cell:
    """One training run of a grid."""

    name: str
    """Made from the flags that vary over the grid, e.g. ``regularizer=nce__seed=0``."""
    arguments: tuple[str, ...]
    """The flags of ncen_tf.train that the grid gives, in the order in which train defines them."""
    config: TrainingConfig
    """What they resolve to."""


def make_cells(grid: Grid) -> list[Cell]:
    """All cells, in the file's order; of a section's flags the last one varies fastest.

    Raises:
        InputError: a flag or value that ncen_tf.train does not take, or two cells that are the same; the
            line is named.
    """
    found: dict[TrainingConfig, tuple[int, dict[str, str]]] = {}
    for section in grid.train:
        for chosen in _product(grid.file, section):
            arguments, config = _resolve(grid.file, section, chosen)
            if config in found:
                raise InputError(
                    f"{grid.file}, line {section.line}: the cell {' '.join(arguments.values())} "
                    f"is given twice; the first one is of the part at line {found[config][0]}."
                )
            found[config] = section.line, arguments
    given = [arguments for _, arguments in found.values()]
    varying = [name for name in _train_flags() if len({cell.get(name) for cell in given}) > 1]
    return [
        Cell(_name(arguments, varying, config), tuple(arguments.values()), config)
        for config, (_, arguments) in found.items()
    ]


def flag_as_name(argument: str) -> str:
    """``--flag=value`` as a part of a folder's name."""
    return re.sub(r"[^\w.+=-]", "_", argument.removeprefix("--").replace(",", "+"))


def _name(arguments: dict[str, str], varying: list[str], config: TrainingConfig) -> str:
    parts = [flag_as_name(arguments[name]) for name in varying if name in arguments]
    return SEPARATOR.join(parts or [config.dataset, config.regularizer, f"seed={config.seed}"])


def _product(file: Path, section: Section) -> list[dict[str, str]]:
    known = _train_flags()
    for name, setting in section.settings.items():
        if name not in known:
            raise InputError(
                f"{file}, line {setting.line}: --{name} is no flag of ncen_tf.train that a cell can have."
            )
    values = [setting.values for setting in section.settings.values()]
    return [dict(zip(section.settings, chosen, strict=True)) for chosen in itertools.product(*values)]


def _train_flags() -> dict[str, "flags.Flag[object]"]:
    """The flags that a cell can have, by name, in the order in which train defines them."""
    import ncen_tf.train.__main__

    defined = flags.FLAGS.get_flags_for_module(ncen_tf.train.__main__.__name__)
    return {flag.name: flag for flag in defined if flag.name not in _RESERVED}


def _resolve(file: Path, section: Section, chosen: dict[str, str]) -> tuple[dict[str, str], TrainingConfig]:
    """Each flag as absl writes it, by name, and the settings that train makes of them."""
    from ncen_tf.train.__main__ import config_from_flags

    given = {name: flag for name, flag in _train_flags().items() if name in chosen}
    try:
        for name, flag in given.items():
            flag.parse(chosen[name])
            check_flag_size(name, flag.value)
        return {name: flag.serialize() for name, flag in given.items()}, config_from_flags()
    except (flags.Error, InputError) as error:
        named = [name for name in re.findall(r"--(\w+)", str(error)) if name in chosen]
        line = section.settings[named[0]].line if named else section.line
        raise InputError(f"{file}, line {line}: {error}") from error
    finally:
        for flag in given.values():
            flag.unparse()
