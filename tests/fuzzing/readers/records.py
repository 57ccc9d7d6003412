"""What programs write and others read."""

import contextlib
from pathlib import Path

from ncen_tf.base.errors import InputError
from tests.fuzzing.case import MODEL


def manifest(folder: Path) -> None:
    """As ``ncen_tf.export --verify`` and ``ncen_tf.attack`` read it; the model is read elsewhere."""
    from ncen_tf.export.manifest import Manifest
    from ncen_tf.targets.opening import OpenedTarget, _verified_manifest

    Manifest.read(folder).check_files(folder)
    opened = OpenedTarget(folder / MODEL, None, _verified_manifest(folder / MODEL))  # type: ignore[arg-type]
    f"{opened.recorded_ace}".encode()


def metrics(folder: Path) -> None:
    """``ncen_tf.diagnose``, and what training goes on with."""
    from ncen_tf.diagnose import read_history
    from ncen_tf.train.diagnostics import diagnostics_table, draw_diagnostics

    histories = {"run": read_history(folder)}
    draw_diagnostics(histories)
    diagnostics_table(histories).encode()


def report(folder: Path) -> None:
    """A report for the terminal."""
    from ncen_tf.report.results import Report

    str(Report.read(folder / "report.json")).encode()


def transfer(folder: Path) -> None:
    """A transfer.json for the terminal."""
    from ncen_tf.transfer.record import Transfer

    str(Transfer.read(folder / "transfer.json")).encode()


def cell(folder: Path) -> None:
    """What a sweep finds in a cell's folder when it goes on."""
    from ncen_tf.sweep.cell_directory import CellDirectory
    from ncen_tf.sweep.stages import Stage

    directory = CellDirectory(folder)
    directory.config()
    stages = [
        Stage(name, program, ("--argument",), (), folder / output)
        for name, program, output in (
            ("train", "train", "run/summary.json"),
            ("export", "export", "export/manifest.json"),
            ("quick", "attack", "reports/quick/report.json"),
        )
    ]
    directory.begin(directory.pending(stages))
    for stage in stages:
        directory.book(stage.name, 1.0, finished=True)
    directory.write_record(stages)


def records(folder: Path) -> None:
    """Records of a sweep, to tables and maps in every format."""
    from ncen_tf.sweep.parameter_map import make_parameter_map
    from ncen_tf.sweep.record import read_records
    from ncen_tf.sweep.table import format_records
    from ncen_tf.tables.experiments import read_experiments
    from ncen_tf.tables.latex import to_latex
    from ncen_tf.tables.long_csv import to_csv
    from ncen_tf.tables.markdown import to_markdown
    from ncen_tf.tables.page import sections, to_page
    from ncen_tf.tables.terminal import to_terminal

    content = read_records(folder)
    format_records(content).encode()
    with contextlib.suppress(InputError):
        make_parameter_map(content, "lambda_cos", "lambda_norm", "paper")
    experiments = read_experiments(folder)
    tables = [table for section in sections(experiments).values() for table in section]
    texts = [
        to_csv(tables),
        *(write(table) for table in tables for write in (to_latex, to_markdown, to_terminal)),
    ]
    "".join([*texts, to_page(experiments, "")]).encode()
