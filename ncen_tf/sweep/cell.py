"""One cell of a sweep: its folder, and how it is trained, exported and attacked."""

import contextlib
import logging
import os
import shutil
import sys
import time
import traceback
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pydantic import Field

import ncen_tf
from ncen_tf.attack.suites import load_suite
from ncen_tf.base.errors import InputError
from ncen_tf.base.settings import Settings
from ncen_tf.export.manifest import MANIFEST, ONNX_FILE, Manifest
from ncen_tf.report.results import Report
from ncen_tf.sweep.grid import AttackSettings, GridCell
from ncen_tf.sweep.records import RECORD, CellRecord
from ncen_tf.train.run_directory import RunDirectory, RunSummary

Location = dict[str, Any]
"""Where datasets are: ``data_dir`` and ``archive_dir`` of :func:`ncen_tf.load_data`."""


class CellState(Settings):
    """What a cell's folder was last used for, and the seconds that each step has taken so far."""

    cell: GridCell
    seconds: dict[str, float] = Field(default={})


class CellDirectory:
    """Folder of a cell: ``run``, ``export``, ``reports/NAME``, ``log.txt``, ``cell.json``, ``record.json``.

    ``record.json`` is written last. The other files may then be deleted; what is needed of them is made again
    if an attack is added to the grid.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.log = path / "log.txt"
        self.record = path / RECORD
        self.run = path / "run"
        self.export = path / "export"
        self.state_file = path / "cell.json"

    def state(self) -> CellState | None:
        """Read what the folder was last used for; ``None`` of a folder that is not a cell's."""
        return CellState.read(self.state_file) if self.state_file.is_file() else None

    def progress(self, cell: GridCell) -> str:
        """Return ``finished``, ``started`` or ``new``."""
        state = self.state()
        if state is None:
            return "new"
        return "finished" if self.record.is_file() and state.cell.includes(cell) else "started"

    def begin(self, cell: GridCell) -> dict[str, float]:
        """Note what is to be done, delete the results of other settings, and return the seconds so far."""
        self.path.mkdir(parents=True, exist_ok=True)
        self.record.unlink(missing_ok=True)
        before = self.state() or CellState(cell=cell)
        seconds = dict(before.seconds)
        if before.cell.export != cell.export:
            self.delete_export(seconds)
        for attack in cell.attacks:
            if attack not in before.cell.attacks:
                shutil.rmtree(self.report(attack), ignore_errors=True)
                seconds.pop(attack.report_name, None)
        CellState(cell=cell, seconds=seconds).write(self.state_file)
        return seconds

    def delete_export(self, seconds: dict[str, float]) -> None:
        """Delete the export and all reports, which are made from it."""
        shutil.rmtree(self.export, ignore_errors=True)
        shutil.rmtree(self.path / "reports", ignore_errors=True)
        for step in set(seconds) - {"train"}:
            del seconds[step]

    def report(self, attack: AttackSettings) -> Path:
        """Return the folder of an attack's report."""
        return self.path / "reports" / attack.report_name


def run_logged(cell: GridCell, folder: Path, location: Location) -> str | None:
    """Run a cell in this process, whose output goes to the cell's log from now on.

    Returns:
        Why the cell failed, or ``None``.

    Raises:
        KeyboardInterrupt: Ctrl-C; the training is saved.
    """
    directory = CellDirectory(folder)
    folder.mkdir(parents=True, exist_ok=True)
    with directory.log.open("ab") as log:
        for stream in (sys.stdout, sys.stderr):
            stream.flush()
            os.dup2(log.fileno(), stream.fileno())
    logging.basicConfig(format="%(message)s")
    logging.getLogger("ncen_tf").setLevel(logging.INFO)
    try:
        run_cell(cell, directory, location)
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        return str(error)
    except Exception as error:  # Whatever one cell meets, the others go on.
        traceback.print_exc()
        return f"{type(error).__name__}: {error}"
    return None


def run_cell(cell: GridCell, directory: CellDirectory, location: Location) -> None:
    """Train, export, attack and write the record; what is done already is kept."""
    seconds = directory.begin(cell)

    @contextlib.contextmanager
    def step(name: str) -> Iterator[None]:
        print(f"--- {name}", flush=True)
        started, before = time.monotonic(), seconds.get(name, 0.0)
        try:
            yield
        finally:
            seconds[name] = round(before + time.monotonic() - started, 1)
            CellState(cell=cell, seconds=seconds).write(directory.state_file)

    config = cell.config
    if not RunDirectory(directory.run).is_complete:
        directory.delete_export(seconds)  # of an earlier training
    with step("train"):
        data = ncen_tf.load_data(
            **config.source_arguments(),
            train_examples=config.train_examples,
            test_examples=config.test_examples,
            **location,
        )
        run = ncen_tf.train_ensemble(config, data, directory.run)
    with step("export"):
        if (directory.export / MANIFEST).is_file():
            manifest = Manifest.read(directory.export)
        else:
            manifest = ncen_tf.export_ensemble(run, directory.export, data=data, **dict(cell.export))
    reports: dict[str, Report] = {}
    for attack in cell.attacks:
        with step(attack.report_name):
            reports[attack.report_name] = _report(cell, attack, directory, location)
    CellRecord(
        name=directory.path.name,
        config=run.config,
        run=RunSummary.read(RunDirectory(directory.run).summary_file),
        export=manifest.accuracy,
        onnx_sha256=manifest.files[ONNX_FILE].sha256,
        reports=reports,
        seconds=seconds,
    ).write(directory.record)


def _report(cell: GridCell, attack: AttackSettings, directory: CellDirectory, location: Location) -> Report:
    """Attack the cell's export, or read the report of an attack that is finished."""
    folder = directory.report(attack)
    if (folder / "report.json").is_file():
        return Report.read(folder / "report.json")
    # An export has no batch statistics: what needs them attacks the run.
    test = ncen_tf.load_data(**cell.config.source_arguments(), **location).test
    needs_run = load_suite(attack.suite, test.images.shape[1:]).batch_statistics
    report: Report = ncen_tf.evaluate(
        directory.run if needs_run else directory.export / ONNX_FILE,
        test,
        suite=attack.suite,
        examples=attack.examples,
        seed=attack.seed,
        out=folder,
        allow_low_accuracy=True,  # A training that failed is a result of the sweep.
        **attack.choices,
    )
    report.save(folder)
    return report
