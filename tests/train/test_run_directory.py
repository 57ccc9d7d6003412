"""Who may use a run directory: one process at a time, until it ends in whatever way."""

import dataclasses
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from ncen_tf.base.errors import InputError
from ncen_tf.train.config import TrainingConfig
from ncen_tf.train.run_directory import RunDirectory
from tests.conftest import ROOT

CONFIG = TrainingConfig("fashion_mnist_sample", ("resnet8", "resnet8"), "none", 0.0, 0.0, 1, 0.3)
OPENER = """
import sys
from pathlib import Path
from tests.train.test_run_directory import CONFIG
from ncen_tf.train.run_directory import RunDirectory
run = RunDirectory(Path(sys.argv[1]))
run.open(CONFIG, overwrite="overwrite" in sys.argv)
run.begin(CONFIG)
print("open", flush=True)
sys.stdin.readline()
"""


def opener(run: Path, *arguments: str) -> subprocess.Popen[str]:
    """A process that opens the run and keeps it until it is told to end."""
    return subprocess.Popen(
        [sys.executable, "-c", OPENER, str(run), *arguments],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def opened(process: subprocess.Popen[str]) -> bool:
    assert process.stdout is not None
    return process.stdout.readline() == "open\n"


def test_a_second_process_is_refused_until_the_first_is_killed(tmp_path: Path) -> None:
    run = tmp_path / "run"
    first = opener(run)
    assert opened(first)
    for arguments in ((), ("overwrite",)):
        _, stderr = opener(run, *arguments).communicate(timeout=60)
        assert f"InputError: Another process trains in {run}" in stderr
    assert (run / "flags.cfg").exists()
    first.send_signal(signal.SIGKILL)
    first.communicate()
    third = opener(run)
    assert opened(third)
    third.communicate("\n")
    assert third.returncode == 0


def test_what_killed_processes_left_is_removed_and_nothing_else(tmp_path: Path) -> None:
    run = RunDirectory(tmp_path / "run")
    run.open(CONFIG)
    run.begin(CONFIG)
    run.checkpoints.mkdir()
    (run.checkpoints / "step-5").mkdir()
    (run.checkpoints / ".123.step-6").mkdir()
    (run.checkpoints / ".123.step-6" / "state.index").write_text("half")
    (run.path / ".123.ensemble.keras").write_text("half")
    (run.path / ".notes").write_text("mine")
    RunDirectory(run.path).open(CONFIG)
    assert sorted(path.name for path in run.path.rglob("*")) == [
        ".lock",
        ".notes",
        "checkpoints",
        "flags.cfg",
        "step-5",
    ]


def test_a_process_killed_before_it_wrote_its_flags_leaves_a_folder_to_start_in(tmp_path: Path) -> None:
    (tmp_path / ".lock").touch()
    (tmp_path / ".123.flags.cfg").write_text("--se")
    run = RunDirectory(tmp_path)
    run.open(CONFIG)
    run.begin(CONFIG)
    assert run.read_flags()["seed"] == "0"


def test_nothing_is_written_or_deleted_before_a_run_begins(tmp_path: Path) -> None:
    other = dataclasses.replace(CONFIG, seed=1)
    for config in (other, CONFIG):  # the first comes to nothing, say for want of images
        RunDirectory(tmp_path).open(config)
    run = RunDirectory(tmp_path)
    run.open(CONFIG)
    run.begin(CONFIG)
    run.summary_file.write_text("{}")
    RunDirectory(tmp_path).open(other, overwrite=True)
    again = RunDirectory(tmp_path)
    again.open(CONFIG)
    assert again.is_complete
    again.open(other, overwrite=True)
    assert not again.is_complete
    assert not again.state_files(), "other workers begin anew too"
    again.begin(other)
    assert again.read_flags()["seed"] == "1"
    assert not run.summary_file.exists()


def test_overwriting_deletes_what_a_run_wrote_and_nothing_else(tmp_path: Path) -> None:
    (tmp_path / ".git").mkdir()
    run = RunDirectory(tmp_path)
    run.open(CONFIG, overwrite=True)
    run.begin(CONFIG)
    (run.checkpoints / "step-5").mkdir(parents=True)
    run.tensorboard.mkdir()
    for file in (run.summary_file, run.metrics_file, run.model_file, run.plot_file):
        file.write_text("old")
    (tmp_path / "notes.txt").write_text("mine")
    run.open(CONFIG, overwrite=True)
    run.begin(CONFIG)
    assert sorted(path.name for path in tmp_path.iterdir()) == [".git", ".lock", "flags.cfg", "notes.txt"]


def test_overwriting_keeps_the_lock(tmp_path: Path) -> None:
    run = RunDirectory(tmp_path / "run")
    run.open(CONFIG)
    run.begin(CONFIG)
    run.checkpoints.mkdir()
    run.metrics_file.write_text("{}\n")
    run.open(CONFIG, overwrite=True)
    run.begin(CONFIG)
    assert sorted(path.name for path in run.path.iterdir()) == [".lock", "flags.cfg"]
    _, stderr = opener(run.path).communicate(timeout=60)
    assert "Another process trains in" in stderr


def test_a_folder_that_cannot_be_written_is_refused(tmp_path: Path) -> None:
    """Permissions do not stop root, /proc does."""
    tmp_path.chmod(0o555)
    place = tmp_path if os.geteuid() else Path("/proc")
    with pytest.raises(InputError, match=r"cannot be written \(.*\): choose another"):
        RunDirectory(place / "run").open(CONFIG)
    tmp_path.chmod(0o755)
