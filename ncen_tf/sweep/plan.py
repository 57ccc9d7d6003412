"""Where a grid's cells are in a folder, and what is left to do for each."""

import collections
import dataclasses
from pathlib import Path

from ncen_tf.sweep.cell_directory import CellDirectory
from ncen_tf.sweep.cells import SEPARATOR, Cell, flag_as_name, make_cells
from ncen_tf.sweep.grid import read_grid
from ncen_tf.sweep.stages import Stage, make_stages
from ncen_tf.sweep.suites import SuitePlan, export_arguments, suite_plans
from ncen_tf.train.config import TrainingConfig


@dataclasses.dataclass(frozen=True)
class PlannedCell:
    """A cell, its folder, and its stages."""

    directory: CellDirectory
    stages: tuple[Stage, ...]
    pending: tuple[Stage, ...]
    """The stages that are left to run, in order."""

    @property
    def name(self) -> str:
        return self.directory.path.name

    @property
    def state(self) -> str:
        """``finished``, ``new`` or ``started``."""
        if not self.pending and self.directory.result.is_file():
            return "finished"
        return "started" if self.directory.config() else "new"


@dataclasses.dataclass(frozen=True)
class Plan:
    """All cells of a grid in a folder."""

    cells: tuple[PlannedCell, ...]
    others: tuple[str, ...]
    """Names of folders that hold cells of another grid, an earlier version for example."""

    @property
    def unfinished(self) -> list[PlannedCell]:
        return [cell for cell in self.cells if cell.state != "finished"]

    def describe(self) -> str:
        """How many cells there are, how far they are, and what is passed over."""
        states = collections.Counter(cell.state for cell in self.cells)
        counts = ", ".join(f"{states[state]} {state}" for state in ("finished", "started", "new"))
        stages = sum(len(cell.pending) for cell in self.cells)
        line = f"{len(self.cells)} cells: {counts}; {stages} stages to run."
        return line + (
            f"\n{len(self.others)} cells in the folder are not in this grid and left alone: "
            f"{', '.join(self.others)}."
            if self.others
            else ""
        )


@dataclasses.dataclass(frozen=True)
class Work:
    """What a grid asks for, checked."""

    cells: list[Cell]
    export: tuple[str, ...]
    """Flags of ncen_tf.export."""
    suites: list[SuitePlan]


def read_work(grid_file: Path) -> Work:
    """Read a grid file and check all of it.

    Raises:
        InputError: something that cannot work; the line is named.
    """
    grid = read_grid(grid_file)
    cells = make_cells(grid)
    datasets = dict.fromkeys(cell.config.dataset for cell in cells)
    return Work(cells, export_arguments(grid), suite_plans(grid, datasets))


def make_plan(work: Work, out: Path) -> Plan:
    """Find each cell's folder below ``out/cells``, the one with its settings or a new one, and what is left.

    Raises:
        InputError: a folder whose run cannot be read.
    """
    holding = {path.name: CellDirectory(path).config() for path in sorted((out / "cells").glob("*/"))}
    taken = {name: config for name, config in holding.items() if config}
    existing = {config: name for name, config in taken.items()}
    planned = []
    for cell in work.cells:
        name = existing.get(cell.config) or _free_name(cell, taken)
        taken[name] = cell.config
        directory = CellDirectory(out / "cells" / name)
        stages = make_stages(cell, directory.path, work.export, work.suites)
        planned.append(PlannedCell(directory, tuple(stages), tuple(directory.pending(stages))))
    used = {cell.name for cell in planned}
    return Plan(tuple(planned), tuple(name for name in taken if name not in used))


def _free_name(cell: Cell, taken: dict[str, TrainingConfig]) -> str:
    """The cell's name, with what tells it from the cells of an earlier grid that have it already."""
    name = cell.name
    while name in taken:
        mine, other = cell.config.to_flags(), taken[name].to_flags()
        differing = [flag for flag in sorted({*mine, *other}) if mine.get(flag) != other.get(flag)]
        texts = [f"--{flag}={mine.get(flag, 'unset')}" for flag in differing]
        name = SEPARATOR.join([name, *map(flag_as_name, texts)])
    return name
