"""What reads each format, as the programs do: from a folder to the end of what depends on its files alone.

Each raises InputError, or returns.
"""

import contextlib
import io
from collections.abc import Callable
from pathlib import Path

from absl import flags

from ncen_tf.errors import InputError

MODEL = "ensemble.onnx"


def onnx(folder: Path) -> None:
    """White-box, and as a file that is only queried; the gradient of one batch."""
    import tensorflow as tf

    from ncen_tf.targets.opening import open_target

    refused = None
    for differentiable in (True, False):
        try:
            target = open_target(folder / MODEL, differentiable=differentiable).target
        except InputError as error:
            refused = error
            continue
        images = tf.zeros((3, *target.image_shape))
        with tf.GradientTape() as tape:
            tape.watch(images)
            logits = target.member_logits(images)
        if differentiable:
            tape.gradient(logits, images)
    if refused:
        raise refused


def onnx_parity(folder: Path) -> None:
    """As ``ncen_tf.export --verify`` opens files."""
    from ncen_tf.exporting.parity import file_predictor

    file_predictor(folder / MODEL)


def manifest(folder: Path) -> None:
    """As ``ncen_tf.export --verify`` and ``ncen_tf.attack`` read it; the model is read elsewhere."""
    from ncen_tf.exporting.manifest import check_files, read_manifest
    from ncen_tf.targets.opening import OpenedTarget, _verified_manifest
    from ncen_tf.training.config import TrainingConfig

    content = read_manifest(folder)
    TrainingConfig.from_flags(content["training_flags"])
    [str(content["accuracy"]["predictions_sha256"]), *content["reduced_precision"]]
    check_files(folder, content)
    opened = OpenedTarget(None, _verified_manifest(folder / MODEL))  # type: ignore[arg-type]
    f"{opened.recorded_ace}".encode()


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
    from ncen_tf.training.config import TrainingConfig
    from ncen_tf.training.run_directory import RunDirectory

    run = RunDirectory(folder)
    TrainingConfig.from_flags(run.read_flags()).to_flags()


def metrics(folder: Path) -> None:
    """``ncen_tf.diagnose``, and what training goes on with."""
    from ncen_tf.diagnose import read_history
    from ncen_tf.reports.diagnostics import diagnostics_figure, diagnostics_table

    histories = {"run": read_history(folder)}
    diagnostics_figure(histories)
    diagnostics_table(histories).encode()


def gate(folder: Path) -> None:
    """A gate that a report is compared with."""
    from ncen_tf.reports.gate import check_gate, read_gate
    from ncen_tf.reports.junit import write_junit
    from ncen_tf.reports.report import read_report

    checks = check_gate(read_gate(folder / "gate.toml"), read_report(folder / "report.json"), 0.5)
    write_junit(folder / "junit.xml", checks)


def suite(folder: Path) -> None:
    """A custom suite."""
    from ncen_tf.attacks.suites import load_suite

    for attack in load_suite(str(folder / "suite.toml"), "fashion_mnist").attacks:
        f"{attack.label} {attack.settings()}".encode()


def report(folder: Path) -> None:
    """A report for the terminal."""
    from ncen_tf.reports.report import read_report
    from ncen_tf.reports.table import format_table

    format_table(read_report(folder / "report.json")).encode()


def transfer(folder: Path) -> None:
    """A transfer.json for the terminal."""
    from ncen_tf.transferability.record import read_transfer
    from ncen_tf.transferability.table import format_transfer

    format_transfer(read_transfer(folder / "transfer.json")).encode()


def archives(folder: Path) -> None:
    """A dataset from local archives."""
    from ncen_tf.data.loading import load_dataset

    load_dataset("fashion_mnist", data_dir=folder / "tfds", archive_dir=folder)


def prepared(folder: Path) -> None:
    """A dataset that tensorflow-datasets has prepared."""
    from ncen_tf.data.loading import load_dataset

    load_dataset("fashion_mnist", data_dir=folder, archive_dir=folder)


def adversarials(folder: Path) -> None:
    """Saved adversarial examples, to the point where a target is shown them."""
    from ncen_tf.attacks.results import read_adversarials

    saved = read_adversarials(folder / "adversarials.npz")
    f"{saved.settings['attack']} {saved.settings['norm']} {saved.settings['eps']:g}".encode()
    assert len(saved.images) == len(saved.adversarials) == len(saved.labels)
    assert saved.images.dtype == saved.adversarials.dtype == "float32"


def attack_result(folder: Path) -> None:
    """A finished attack of an earlier run; damage is as good as none."""
    from ncen_tf.attacks.results import read_result

    result = read_result(folder / "result.npz", "the key")
    if result is not None:
        assert len(result.attacked) == len(result.predictions) == len(result.l2) == len(result.linf)
        f"{result.settings['attack']} {result.settings['norm']} {result.settings['eps']:g}".encode()


def keras(folder: Path) -> None:
    """An ensemble in a ``.keras`` file."""
    from ncen_tf.targets.keras_target import open_keras_file

    open_keras_file(folder / "ensemble.keras")


def saved_model(folder: Path) -> None:
    """A SavedModel, to the answer for a batch."""
    import numpy as np

    from ncen_tf.targets.opening import open_target

    target = open_target(folder).target
    target.member_logits(np.zeros((2, *target.image_shape), np.float32))


def run(folder: Path) -> None:
    """The ensemble of a run."""
    from ncen_tf.targets.keras_target import open_run

    open_run(folder)


def checkpoint(folder: Path) -> None:
    """The ensemble of a run that is not finished."""
    run(folder)


def grid(folder: Path) -> None:
    """A sweep's grid file, to the cells that it asks for."""
    from ncen_tf.sweeping.cells import make_cells
    from ncen_tf.sweeping.grid import read_grid

    flags.FLAGS.mark_as_parsed()
    make_cells(read_grid(folder / "grid.cfg"))


def cell(folder: Path) -> None:
    """What a sweep finds in a cell's folder when it goes on."""
    from ncen_tf.sweeping.cell_directory import CellDirectory
    from ncen_tf.sweeping.stages import Stage

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
    from ncen_tf.sweeping.parameter_map import make_parameter_map
    from ncen_tf.sweeping.record import read_records
    from ncen_tf.sweeping.table import format_records
    from ncen_tf.tabulation.experiments import read_experiments
    from ncen_tf.tabulation.latex import to_latex
    from ncen_tf.tabulation.long_csv import to_csv
    from ncen_tf.tabulation.markdown import to_markdown
    from ncen_tf.tabulation.page import sections, to_page
    from ncen_tf.tabulation.terminal import to_terminal

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


READERS: dict[str, Callable[[Path], None]] = {
    function.__name__: function
    for function in (
        onnx,
        onnx_parity,
        manifest,
        flagfile,
        run_flags,
        metrics,
        gate,
        suite,
        report,
        transfer,
        archives,
        prepared,
        adversarials,
        attack_result,
        keras,
        saved_model,
        run,
        checkpoint,
        grid,
        cell,
        records,
    )
}
