"""Who may use a run directory, and what is deleted when a run begins."""

import os
import signal
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from ncen_tf.base.errors import InputError
from ncen_tf.train.config import TrainConfig
from ncen_tf.train.run_directory import DataRecord, RunDirectory, read_checkpoint
from ncen_tf.train.trained_run import open_run
from tests.conftest import ROOT

CONFIG = TrainConfig(members=("resnet8", "resnet8"), regularizer=None, epochs=1)
DATA = DataRecord(
    name="noise",
    source="none",
    image_shape=(28, 28, 1),
    class_names=("a", "b"),
    train_examples=2,
    test_examples=2,
    sha256="0" * 64,
)
LOCKER = """
import sys
import zipfile
from pathlib import Path
from tests.train.test_run_directory import CONFIG, DATA
from ncen_tf.train.run_directory import RunDirectory
run = RunDirectory(Path(sys.argv[1]))
with run.lock():
    run.begin(CONFIG, DATA)
    print("locked", flush=True)
    sys.stdin.readline()
"""


def locker(run: Path) -> subprocess.Popen[str]:
    """Start a process that locks the run and keeps it until it is told to end."""
    return subprocess.Popen(
        [sys.executable, "-c", LOCKER, str(run)],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def locked(process: subprocess.Popen[str]) -> bool:
    assert process.stdout is not None
    return process.stdout.readline() == "locked\n"


def test_a_second_process_is_refused_until_the_first_is_killed(tmp_path: Path) -> None:
    run = tmp_path / "run[1]"
    first = locker(run)
    assert locked(first)
    _, stderr = locker(run).communicate(timeout=120)
    assert f"InputError: Another process trains in {run}" in stderr
    first.send_signal(signal.SIGKILL)
    first.communicate()
    third = locker(run)
    assert locked(third)
    third.communicate("\n")
    assert third.returncode == 0


def test_what_killed_processes_left_is_removed_and_nothing_else(tmp_path: Path) -> None:
    run = RunDirectory(tmp_path / "run")
    with run.lock():
        run.begin(CONFIG, DATA)
    run.checkpoints.mkdir()
    for name in ("checkpoints/step-5.npz", "checkpoints/.123.step-6.npz", ".123.ensemble.keras", ".notes"):
        (run.path / name).write_text("half")
    with run.lock():
        pass
    assert sorted(path.name for path in run.path.rglob("*")) == [
        ".lock",
        ".notes",
        "checkpoints",
        "config.json",
        "data.json",
        "step-5.npz",
    ]


def test_a_process_killed_before_it_wrote_its_settings_leaves_a_folder_to_start_in(tmp_path: Path) -> None:
    for name in (".lock", ".123.config.json", "data.json"):
        (tmp_path / name).write_text("")
    run = RunDirectory(tmp_path)
    with run.lock():
        run.begin(CONFIG, DATA)
    assert run.read_config() == CONFIG


def test_beginning_deletes_what_an_earlier_run_wrote_and_nothing_else(tmp_path: Path) -> None:
    run = RunDirectory(tmp_path)
    run.begin(CONFIG, DATA)
    run.checkpoints.mkdir()
    run.tensorboard.mkdir()
    for file in (run.summary_file, run.metrics_file, run.model_file, run.plot_file, tmp_path / "notes.txt"):
        file.write_text("old")
    assert run.is_complete
    run.begin(TrainConfig(), DATA)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["config.json", "data.json", "notes.txt"]
    assert run.read_config() == TrainConfig()


def test_other_settings_and_other_data_are_refused_with_the_difference(tmp_path: Path) -> None:
    run = RunDirectory(tmp_path)
    run.begin(CONFIG, DATA)
    run.refuse_other(CONFIG.model_copy(update={"checkpoint_every": 7}), DATA)
    with pytest.raises(InputError, match=r"`schedule` was steps, is cosine; `seed` was 0, is 1\)"):
        run.refuse_other(CONFIG.model_copy(update={"seed": 1, "schedule": "cosine"}), DATA)
    with pytest.raises(InputError, match="other images or labels"):
        run.refuse_other(CONFIG, DATA.model_copy(update={"sha256": "1" * 64}))


def test_folders_that_hold_no_run_or_cannot_be_written_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="is not a run directory"):
        RunDirectory(tmp_path).read_config()
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(InputError, match="holds no run"):
        RunDirectory(tmp_path).lock()
    with pytest.raises(InputError, match="is a file"):
        RunDirectory(tmp_path / "notes.txt").lock()
    tmp_path.chmod(0o555)
    place = tmp_path if os.geteuid() else Path("/proc")  # permissions do not stop root
    with pytest.raises(InputError, match=r"cannot be written \(.*\): choose another"):
        RunDirectory(place / "run").lock()
    tmp_path.chmod(0o755)


def test_lines_that_are_no_epochs_are_refused(tmp_path: Path) -> None:
    run = RunDirectory(tmp_path)
    assert run.read_history() == []
    run.metrics_file.write_text('{"epoch": 1}\n')
    with pytest.raises(InputError, match=r"metrics.jsonl, line 1: `learning_rate` is missing"):
        run.read_history()


@pytest.mark.parametrize("shape", [(28, 28, -1), (28, 2**63, 1)])
def test_sizes_that_the_members_cannot_have_are_refused(shape: tuple[int, int, int], tmp_path: Path) -> None:
    run = RunDirectory(tmp_path / "run")
    with run.lock():
        run.begin(CONFIG, DATA.model_copy(update={"image_shape": shape}))
    (run.path / "ensemble.keras").write_bytes(b"no model")
    with pytest.raises(InputError, match=r"data\.json: `image_shape\.[12]` must be"):
        open_run(run.path)


def test_checkpoints_that_are_no_arrays_are_refused(tmp_path: Path) -> None:
    file = tmp_path / "damaged.npz"
    header = b"\x93NUMPY\x01\x00\x08\x00({'a':\n"
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("weights/0.npy", header)
    with pytest.raises(InputError, match=r"damaged\.npz cannot be read"):
        read_checkpoint(file)
