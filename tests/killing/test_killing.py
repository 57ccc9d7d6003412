"""The kill test sees what it has to see, and an attack survives it."""

import json
import shutil
import sys
import time
import zipfile
from pathlib import Path

import numpy as np
import pytest

from tests.killing.campaign import Campaign
from tests.killing.comparison import differences
from tests.killing.intact import faults
from tests.killing.processes import kill_session, start
from tests.killing.tasks import Task

CHILD_IN_ITS_OWN_GROUP = """
import subprocess, sys
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"], process_group=0)
print(child.pid, flush=True)
child.wait()
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A little of what programs write."""
    folder = tmp_path / "one"
    folder.mkdir()
    (folder / "report.json").write_text(json.dumps({"ace": 0.5, "seconds": 1.0, "rows": [{"seconds": 2}]}))
    (folder / "metrics.jsonl").write_text('{"epoch": 1, "seconds_per_step": 1}\n')
    np.savez(folder / "state.npz", predictions=np.arange(3), seconds=1.0)
    (folder / "flags.cfg").write_text("--seed=0\n")
    return folder


def test_times_may_differ_and_nothing_else(folder: Path) -> None:
    other = folder.with_name("other")
    shutil.copytree(folder, other)
    (other / "report.json").write_text(json.dumps({"ace": 0.5, "seconds": 9.0, "rows": [{"seconds": 8}]}))
    (other / "metrics.jsonl").write_text('{"epoch": 1, "seconds_per_step": 7}\n')
    np.savez(other / "state.npz", predictions=np.arange(3), seconds=9.0)
    assert differences(folder, other) == []
    (other / "report.json").write_text(json.dumps({"ace": 0.6, "seconds": 1.0, "rows": [{"seconds": 2}]}))
    (other / "metrics.jsonl").write_text('{"epoch": 2, "seconds_per_step": 1}\n')
    np.savez(other / "state.npz", predictions=np.arange(3).astype(float), seconds=1.0)
    (other / "flags.cfg").write_text("--seed=1\n")
    (other / ".5.flags.cfg").write_text("--se")
    assert differences(folder, other) == [
        f"only in {other}: .5.flags.cfg",
        *(f"differs: {name}" for name in ("flags.cfg", "metrics.jsonl", "report.json", "state.npz")),
    ]


def test_half_written_files_are_faults_unless_their_names_say_so(folder: Path) -> None:
    with zipfile.ZipFile(folder / "ensemble.keras", "w") as archive:
        archive.writestr("config.json", "{}" * 100)
    assert faults(folder) == []
    files = sorted(folder.iterdir())
    for file in files:
        half = file.read_bytes()[: file.stat().st_size // 2]
        file.with_name(f".5.{file.name}").write_bytes(half)
        if file.suffix != ".cfg":
            file.write_bytes(half)
    (folder / "ensemble.onnx").write_bytes(b"")
    found = [fault.partition(":")[0] for fault in faults(folder)]
    assert found == ["ensemble.keras", "ensemble.onnx", "metrics.jsonl", "report.json", "state.npz"]


def test_children_in_groups_of_their_own_are_killed_too(tmp_path: Path) -> None:
    log = tmp_path / "log"
    process = start([sys.executable, "-c", CHILD_IN_ITS_OWN_GROUP], log, tmp_path)
    while not log.read_text().endswith("\n"):
        time.sleep(0.01)
    child = Path("/proc", log.read_text().strip(), "stat")
    assert child.exists()
    kill_session(process)
    assert process.returncode == -9
    assert not child.exists() or child.read_text().rpartition(")")[2].split()[0] in "ZX"


def test_an_attack_that_is_killed_ends_like_one_that_is_not(tiny_export: Path, tmp_path: Path) -> None:
    arguments = (
        f"--target={tiny_export / 'ensemble.onnx'}",
        f"--out={tmp_path / 'attack' / 'out' / 'report'}",
        "--dataset=fashion_mnist_sample",
        "--suite=quick",
        "--num_examples=10",
        "--save_adversarials",
    )
    task = Task("attack", arguments, tmp_path / "attack" / "out")
    kills: list[None] = []
    campaign = Campaign(0, lambda: kills.append(None))
    tally = campaign.run(task, campaign.run_undisturbed(task), 1)
    assert tally.faults == []
    assert (len(kills), tally.resumes) == (1, 1)
