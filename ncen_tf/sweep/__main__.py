"""Train, export and attack a grid of runs.

python -m ncen_tf.sweep --grid=configs/grids/smoke.cfg --out=sweeps/smoke

A grid file is a flagfile in which a flag of ncen_tf.train may have several values, separated by " | ":

    --dataset=fashion_mnist
    --seed=0 | 1
    [train]
    --regularizer=none | nce
    [train]
    --regularizer=nce
    --lambda_norm=-0.02
    [attack]
    --suite=paper
    --num_examples=200

Each [train] section is a product of its values and of the lines before the first section; a flag of the
section takes the place of the same flag there. [export] and [attack] hold flags of ncen_tf.export and
ncen_tf.attack; several [attack] sections attack with other settings each. Ctrl-C saves; the same command
goes on.
"""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import TYPE_CHECKING

from absl import flags

from ncen_tf import program
from ncen_tf.data import location_flags
from ncen_tf.base.errors import InputError

if TYPE_CHECKING:
    from ncen_tf.sweep.plan import Plan
    from ncen_tf.sweep.shares import Share

CELLS_FAILED = 1

GRID = flags.DEFINE_string("grid", None, "grid file, e.g. configs/grids/smoke.cfg")
OUT = flags.DEFINE_string("out", None, "folder of the sweep (default: sweeps/NAME of the grid)")
PROCESSES = flags.DEFINE_integer("processes", 1, "cells at a time, each on its own share of the cores")
DRY_RUN = flags.DEFINE_bool("dry_run", False, "list the cells and the commands that are left, and stop")
flags.adopt_module_key_flags(location_flags)


def main() -> int | None:
    if not GRID.value:
        raise InputError("--grid names a grid file, e.g. --grid=configs/grids/smoke.cfg.")
    grid = Path(GRID.value)
    out = Path(OUT.value) if OUT.value else Path("sweeps") / grid.stem
    places = (location_flags.DATA_DIR, location_flags.ARCHIVE_DIR)
    location = tuple(f"--{flag.name}={flag.value}" for flag in places if flag.value)

    from ncen_tf.sweep.execution import sole_user
    from ncen_tf.sweep.plan import make_plan, read_work
    from ncen_tf.sweep.shares import make_shares

    shares, work = make_shares(PROCESSES.value), read_work(grid)
    if DRY_RUN.value:
        print_commands(make_plan(work, out), location)
        return None
    with sole_user(out) as lock:
        return run(make_plan(work, out), shares, lock, location)


def print_commands(plan: Plan, location: tuple[str, ...]) -> None:
    """What would be run."""
    for cell in plan.cells:
        print(f"{cell.name} ({cell.state})")
        for stage in cell.pending:
            print(f"    {shlex.join(['python', *stage.command(location)[1:]])}")
    print(plan.describe())


def run(plan: Plan, shares: list[Share], lock: int, location: tuple[str, ...]) -> int | None:
    """Run what is left of a plan, print what came out, and return the exit code."""
    from ncen_tf.sweep.commands import Commands
    from ncen_tf.sweep.execution import Execution
    from ncen_tf.sweep.record import read_record
    from ncen_tf.sweep.table import format_records

    print(plan.describe(), flush=True)
    commands = Commands(held=[lock])
    execution = Execution(commands, location)
    if plan.unfinished:
        print(f"Logs: {plan.cells[0].directory.path.parent}/*/log.txt", flush=True)
        execution.run(plan.unfinished, shares)
    results = [cell.directory.result for cell in plan.cells if cell.directory.result.is_file()]
    if results:
        print("\n" + format_records([read_record(file) for file in results]))
    for name, reason in execution.failures.items():
        print(f"FAILED {name}: {reason}")
    if commands.stopped:
        print("Interrupted; what was running is saved. The same command goes on.")
        return program.INTERRUPTED
    return CELLS_FAILED if execution.failures else None


if __name__ == "__main__":
    program.run(main)
