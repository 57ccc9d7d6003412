"""What people write: flags, gates, suites, grids."""

import contextlib
import io
from pathlib import Path

from absl import flags

from ncen_tf.base.errors import InputError


def flagfile(folder: Path) -> None:
    """``ncen_tf.train --flagfile=...``, up to the run's settings."""
    from ncen_tf import program, train

    said = io.StringIO()
    try:
        with contextlib.redirect_stderr(said):
            program._parse_flags(["train", f"--flagfile={folder / 'flags.cfg'}"])
    except SystemExit as error:
        if error.code != program.COULD_NOT_RUN:
            raise
        raise InputError(said.getvalue().removeprefix("error: ").removesuffix("\n")) from error
    else:
        train.default_run_dir(train.config_from_flags())
    finally:
        for flag in [flags.FLAGS[name] for name in flags.FLAGS]:
            flag.unparse()


def run_flags(folder: Path) -> None:
    """A run directory's flags, as everything reads them that takes a run."""
    from ncen_tf.train.config import TrainingConfig
    from ncen_tf.train.run_directory import RunDirectory

    run = RunDirectory(folder)
    TrainingConfig.from_flags(run.read_flags()).to_flags()


def gate(folder: Path) -> None:
    """A gate that a report is compared with."""
    from ncen_tf.report.results import Report

    Report.read(folder / "report.json").check(folder / "gate.toml").write_junit(folder / "junit.xml")


def suite(folder: Path) -> None:
    """A custom suite."""
    from ncen_tf.attack.suites import load_suite

    for attack in load_suite(str(folder / "suite.toml"), "fashion_mnist").attacks:
        f"{attack.label} {attack.settings()}".encode()


def grid(folder: Path) -> None:
    """A sweep's grid file, to the cells that it asks for."""
    from ncen_tf.sweep.cells import make_cells
    from ncen_tf.sweep.grid import read_grid

    flags.FLAGS.mark_as_parsed()
    make_cells(read_grid(folder / "grid.cfg"))
