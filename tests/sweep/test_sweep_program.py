"""The sweep program as a user runs it, on real and very small trainings."""

import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from ncen_tf.report.results import Report
from ncen_tf.sweep.records import CellRecord
from ncen_tf.train.run_directory import RunDirectory, RunSummary
from tests.conftest import ROOT, Completed, Program
from tests.sweep.conftest import TINY

# More images than there are: this cell gets as far as a real training and fails there.
GRID = f"""{TINY.replace("epochs = 1", "epochs = 3")}
train_examples = [60, 70000]
[[attack]]
suite = "SUITE"
examples = 10
"""
SUITE = '[[attack]]\nname = "FGSM"\neps = 0.1\n[[attack]]\nname = "FGSM"\neps = 0.2\n'
GOOD, BAD = "train_examples=60", "train_examples=70000"


@pytest.fixture(scope="module")
def arguments(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    folder = tmp_path_factory.mktemp("sweep")
    (folder / "fgsm.toml").write_text(SUITE)
    (folder / "grid.toml").write_text(GRID.replace("SUITE", str(folder / "fgsm.toml")))
    return [f"--grid={folder / 'grid.toml'}", f"--out={folder / 'out'}", "--processes=2"]


@pytest.fixture(scope="module")
def out(arguments: list[str]) -> Path:
    return Path(arguments[1].removeprefix("--out="))


@pytest.fixture(scope="module")
def interrupted(arguments: list[str], out: Path) -> Completed:
    """Ctrl-C while the good cell trains, and another sweep that finds the folder in use."""
    command = [sys.executable, "-m", "ncen_tf.sweep", *arguments]
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    checkpoints = RunDirectory(out / "cells" / GOOD / "run").checkpoints
    deadline = time.monotonic() + 400
    while not list(checkpoints.glob("*[0-9]*")):
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.01)
    for _ in range(2):  # as timeout does: to the program, then to its process group
        process.send_signal(signal.SIGINT)
    stdout, stderr = process.communicate(timeout=200)
    return subprocess.CompletedProcess(command, process.returncode, stdout, stderr)


@pytest.fixture(scope="module")
def resumed(interrupted: Completed) -> Completed:
    """The same command again."""
    return subprocess.run(
        interrupted.args, cwd=ROOT, capture_output=True, text=True, timeout=900, check=False
    )


def test_ctrl_c_saves(interrupted: Completed, out: Path) -> None:
    assert interrupted.returncode == 130, interrupted.stderr
    assert "The same command continues." in interrupted.stdout
    assert "Interrupted" in (out / "cells" / GOOD / "log.txt").read_text()
    assert not (out / "cells" / GOOD / "run" / "summary.json").exists()


def test_the_same_command_continues_after_a_failing_cell(resumed: Completed, out: Path) -> None:
    assert resumed.returncode == 1, resumed.stderr
    assert "Traceback" not in resumed.stderr
    failed = [line for line in resumed.stdout.splitlines() if line.startswith(f"FAILED {BAD}")]
    assert failed
    assert "from 1 to 6000" in failed[-1]
    log = (out / "cells" / GOOD / "log.txt").read_text()
    steps = [line for line in log.splitlines() if line.startswith("--- ")]
    assert steps == ["--- train", "--- train", "--- export", "--- fgsm"]
    assert "Going on after step" in log
    assert not (out / "cells" / BAD / "record.json").exists()


def test_a_finished_cell_leaves_a_record_of_its_files(resumed: Completed, out: Path) -> None:
    cell = out / "cells" / GOOD
    record = CellRecord.read(cell / "record.json")
    assert record.name == GOOD
    assert record.run == RunSummary.read(cell / "run" / "summary.json")
    assert record.reports == {"fgsm": Report.read(cell / "reports" / "fgsm" / "report.json")}
    assert record.reports["fgsm"].target.sha256 == record.onnx_sha256
    row = next(line for line in resumed.stdout.splitlines() if line.startswith(f"{GOOD} "))
    worst = [f"{case.robust_accuracy.value:.3f}" for case in record.reports["fgsm"].worst_case]
    assert row.split()[1:2] + row.split()[3:] == [f"{record.run.clean_accuracy:.4f}", *worst]
    assert set(record.seconds) == {"train", "export", "fgsm"}


@pytest.mark.usefixtures("resumed")
def test_a_changed_grid_runs_what_is_new(arguments: list[str], run_program: Program, out: Path) -> None:
    grid = Path(arguments[0].removeprefix("--grid="))
    grid.write_text(grid.read_text().replace("70000", "20"))
    before = (out / "cells" / GOOD / "log.txt").read_text()
    listed = run_program("sweep", *arguments, "--dry_run").stdout
    assert f"{GOOD}: finished" in listed
    assert "train_examples=20: new" in listed
    assert not (out / "cells" / "train_examples=20").exists()
    assert (out / "cells" / GOOD / "log.txt").read_text() == before


def test_help_and_refusals(
    run_program: Program, refuse: Callable[..., None], arguments: list[str], tmp_path: Path
) -> None:
    assert "[[train]]" in run_program("sweep", "--help").stdout
    refuse("sweep", says="--grid is missing")
    refuse("sweep", f"--grid={tmp_path / 'absent.toml'}", says="absent.toml cannot be read")
    refuse("sweep", *arguments, "--epochs=3", says="epochs")  # a flag of train belongs into the grid
    refuse("sweep", *arguments, "--processes=999", says="--processes must be between 1 and")
