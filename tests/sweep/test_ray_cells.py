"""A sweep on a Ray cluster of two nodes here, one of which is killed, and a worker without shared storage."""

import re
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import ncen_tf
from ncen_tf.base.errors import InputError
from ncen_tf.sweep.records import CellRecord
from tests.ray_cluster import nodes
from tests.sweep.conftest import TINY, WriteGrid

ray = pytest.importorskip("ray")

from ncen_tf.sweep import ray_cells  # noqa: E402 # it imports Ray

SUITE = '[[attack]]\nname = "FGSM"\neps = 0.1\n'
GRID = f"""{TINY.replace("epochs = 1", "epochs = 2")}
train_examples = [30, 31, 70000]
[[attack]]
suite = "SUITE"
examples = 10
"""


@pytest.fixture(scope="module")
def cluster() -> Iterator[Any]:
    with nodes(1, 1) as cluster:
        yield cluster


def steps(cell: Path) -> list[str]:
    """Read which steps were begun; a killed process leaves a line without an end in the log."""
    return re.findall("--- (.*)", (cell / "log.txt").read_text())


def test_a_lost_node_loses_no_cell_and_a_failing_cell_is_passed_over(
    cluster: Any, write_grid: WriteGrid, tmp_path: Path
) -> None:
    (tmp_path / "fgsm.toml").write_text(SUITE)
    out = tmp_path / "out"
    sweep = ncen_tf.Sweep(write_grid(GRID.replace("SUITE", str(tmp_path / "fgsm.toml"))), out)
    good = [out / "cells" / f"train_examples={count}" for count in (30, 31)]

    def kill_a_node() -> None:
        """Wait until both nodes train, so that the one that is killed is at work, and kill it."""
        while not all(list(cell.glob("run/checkpoints/step-[1-9]*.npz")) for cell in good):
            time.sleep(0.02)
        cluster.remove_node(next(iter(cluster.worker_nodes)), allow_graceful=False)

    killer = threading.Thread(target=kill_a_node, daemon=True)
    killer.start()
    records = sweep.run(ray="auto")
    killer.join()
    assert [record.name for record in records] == [cell.name for cell in good]
    assert sweep.failures.keys() == {"train_examples=70000"}
    assert "from 1 to 6000" in sweep.failures["train_examples=70000"]
    once, twice = sorted(good, key=lambda cell: len(steps(cell)))
    assert steps(once) == ["train", "export", "fgsm"]
    assert steps(twice) == ["train", "train", "export", "fgsm"]
    assert "Going on after step" in (twice / "log.txt").read_text()


def test_an_interrupted_sweep_saves(cluster: Any, write_grid: WriteGrid, tmp_path: Path) -> None:
    out = tmp_path / "out"
    sweep = ncen_tf.Sweep(write_grid(f"{TINY}train_examples = 90\n"), out)

    def interrupt() -> None:
        while not list(out.glob("cells/*/run/checkpoints/step-[1-9]*.npz")):
            time.sleep(0.02)
        sweep.interrupt()

    threading.Thread(target=interrupt, daemon=True).start()
    assert sweep.run(ray="auto") == []
    assert sweep.interrupted
    assert not sweep.failures
    (log,) = out.glob("cells/*/log.txt")
    assert "the run is saved" in log.read_text()
    assert not list(out.glob("cells/*/run/summary.json"))


def test_a_worker_that_does_not_see_the_folder_sends_its_files_back(
    cluster: Any, write_grid: WriteGrid, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("fgsm.toml").write_text(SUITE)
    (cell,) = ncen_tf.read_grid(write_grid(f'{TINY}train_examples = 20\n[[attack]]\nsuite = "fgsm.toml"\n'))
    folder = tmp_path / "cell"
    elsewhere = ray_cells._Storage(tmp_path, tmp_path / "absent", "token")
    task = ray.remote(num_cpus=1, max_calls=1)(ray_cells._run_here)
    location = {"data_dir": None, "archive_dir": None}
    reference = task.remote(cell, folder, {}, ray_cells._suites(cell), location, elsewhere)
    ray.wait([reference])
    assert not folder.exists()
    assert ray_cells._receive(reference, folder) == (folder, None)
    assert CellRecord.read(folder / "record.json").reports.keys() == {"fgsm"}
    assert ncen_tf.open_run(folder / "run").epochs_trained == 1


def test_a_cell_that_there_is_no_room_for(cluster: Any, write_grid: WriteGrid, tmp_path: Path) -> None:
    sweep = ncen_tf.Sweep(write_grid(TINY), tmp_path / "out")
    with pytest.raises(InputError, match="No node of the Ray cluster has 1 CPUs and 1 GPUs"):
        sweep.run(ray="auto", ray_gpus=1)
