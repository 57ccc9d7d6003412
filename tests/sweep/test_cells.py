"""Folders of cells: what is found again, and what a changed grid makes of it; shares of the machine."""

import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import ncen_tf
from ncen_tf.base.errors import InputError
from ncen_tf.sweep.cell import CellDirectory, CellState, run_cell
from ncen_tf.sweep.execution import Sweep
from ncen_tf.sweep.grid import read_grid
from ncen_tf.sweep.local_processes import _part, _reason, _usable_cores, divide_machine
from ncen_tf.sweep.records import format_records, read_records
from tests.sweep.conftest import TINY, WriteGrid
from tests.tables.records import record, report, write

ATTACK = '[[attack]]\nsuite = "quick"\n[[attack]]\nsuite = "released"\n'


def progress(write_grid: WriteGrid, out: Path, text: str) -> dict[str, str]:
    lines = Sweep(write_grid(TINY + text), out).describe().splitlines()
    return dict(line.split(": ") for line in lines[:-1])


def finish(write_grid: WriteGrid, out: Path, text: str) -> list[CellDirectory]:
    """Pretend that the cells of a grid have been run."""
    sweep = Sweep(write_grid(TINY + text), out)
    directories = [CellDirectory(folder) for folder in sweep._folders]
    for cell, directory in zip(sweep.cells, directories, strict=True):
        directory.begin(cell)
        directory.record.write_text("{}")
        for attack in cell.attacks:
            directory.report(attack).mkdir(parents=True, exist_ok=True)
    return directories


def test_a_changed_grid_finds_its_cells(write_grid: WriteGrid, tmp_path: Path) -> None:
    first = ATTACK + "[train]\nseed = [0, 1]"
    assert progress(write_grid, tmp_path, first) == {"seed=0": "new", "seed=1": "new"}
    finish(write_grid, tmp_path, first)
    # The names of a grid's cells depend on what varies; their folders do not change.
    changed = ATTACK + "[[train]]\nseed = 1\nepochs = [1, 2]\ncheckpoint_every = 9\n[[train]]\nseed = 2\n"
    assert progress(write_grid, tmp_path, changed) == {
        "seed=1": "finished",
        "epochs=2__checkpoint_every=9__seed=1": "new",
        "epochs=1__checkpoint_every=1__seed=2": "new",
    }


def test_a_name_that_another_cell_has_is_made_longer(write_grid: WriteGrid, tmp_path: Path) -> None:
    finish(write_grid, tmp_path, "[train]\nseed = [0, 1]")
    other = "[train]\ntrain_examples = 60\nseed = [0, 1]"
    assert list(progress(write_grid, tmp_path, other)) == ["seed=0__2", "seed=1__2"]
    finish(write_grid, tmp_path, other)
    assert set(progress(write_grid, tmp_path, other).values()) == {"finished"}


@pytest.mark.parametrize(
    ("text", "state", "reports"),
    [
        (ATTACK, "finished", {"quick", "released"}),
        ('[[attack]]\nsuite = "quick"', "finished", {"quick", "released"}),
        (ATTACK + '[[attack]]\nsuite = "paper"', "started", {"quick", "released"}),
        (ATTACK.replace('"quick"', '"quick"\nseed = 3'), "started", {"released"}),
        (ATTACK + "[export]\nopset = 18", "started", set()),
    ],
)
def test_results_of_other_settings_are_deleted_and_the_rest_is_kept(
    text: str, state: str, reports: set[str], write_grid: WriteGrid, tmp_path: Path
) -> None:
    (directory,) = finish(write_grid, tmp_path, ATTACK)
    earlier = directory.state()
    assert earlier is not None
    seconds = {"train": 5.0, "export": 4.0, "quick": 3.0, "released": 2.0}
    CellState(cell=earlier.cell, seconds=seconds).write(directory.state_file)
    assert list(progress(write_grid, tmp_path, text).values()) == [state]
    (cell,) = Sweep(write_grid(TINY + text), tmp_path).cells
    if state == "started":
        left = directory.begin(cell)
        assert not directory.record.exists()
        assert set(left) - {"train", "export"} == reports
        assert ("export" in left) == bool(reports)
        assert {path.name for path in directory.path.glob("reports/*")} == reports


def test_images_of_another_size(write_grid: WriteGrid, tmp_path: Path) -> None:
    """Trained, exported and attacked with what is usual for small colour images."""
    rng = np.random.default_rng(0)
    for number in range(20):
        file = tmp_path / "photos" / "ab"[number % 2] / f"{number}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 128 + 127 * (number % 2), (48, 48, 3), np.uint8)).save(file)
    text = TINY.replace("fashion_mnist_sample", str(tmp_path / "photos")).replace("test_examples = 20\n", "")
    attack = '[[attack]]\nsuite = "quick"\nexamples = 4\n'
    (cell,) = read_grid(write_grid(text.replace("batch_size = 9\n", "batch_size = 32\n") + attack))
    directory = CellDirectory(tmp_path / "cell")
    run_cell(cell, directory, {})
    record = ncen_tf.CellRecord.read(directory.record)
    assert record.run.data.image_shape == (48, 48, 3)
    assert (record.config.noise_eps, record.config.crop_padding) == (0.09, 6)
    assert [worst.eps for worst in record.reports["quick"].worst_case] == [0.01]
    assert directory.progress(cell) == "finished"


def test_a_suite_whose_file_has_changed_runs_again(write_grid: WriteGrid, tmp_path: Path) -> None:
    file = tmp_path / "mine.toml"
    grid = f'[[attack]]\nsuite = "{file}"\n'
    states: list[str] = []
    for eps in (0.1, 0.1, 0.2):
        file.write_text(f'[[attack]]\nname = "FGSM"\neps = {eps}\n')
        states += progress(write_grid, tmp_path / "out", grid).values()
        finish(write_grid, tmp_path / "out", grid)
    assert states == ["new", "finished", "started"]


def test_records_are_found_below_a_folder_beside_other_json(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    records = [record(rng, name, [report(rng)]) for name in ("a", "b")]
    write(tmp_path, *records)
    records[0].reports["paper"].write(tmp_path / "a" / "report.json")
    (tmp_path / "list.json").write_text("[1]")
    assert read_records(tmp_path) == records
    with pytest.raises(InputError, match="is not a folder"):
        read_records(tmp_path / "list.json")
    with pytest.raises(InputError, match="`format` must be 2, got 3"):
        ncen_tf.CellRecord.read(tmp_path / "a" / "report.json")


def test_the_summary_shows_worst_cases_below_their_suite_norm_and_eps() -> None:
    rng = np.random.default_rng(0)
    one, other = record(rng, "one", [report(rng), report(rng, "strict")]), record(rng, "other")
    suites, bounds, _, first, second = format_records([one, other]).splitlines()
    assert suites.split() == ["cell", "clean", "seconds", *3 * ["paper"], *3 * ["strict"]]
    assert bounds.split() == 2 * ["Linf", "0.1", "Linf", "0.15", "Linf", "0.3"]
    worst = [f"{w.robust_accuracy.value:.3f}" for r in one.reports.values() for w in r.worst_case]
    assert first.split() == ["one", f"{one.run.clean_accuracy:.4f}", "110", *worst]
    assert second.split() == ["other", f"{other.run.clean_accuracy:.4f}", "110"]


def test_reasons_of_failures(tmp_path: Path) -> None:
    log = tmp_path / "log.txt"
    assert _reason(1, log) == "no output"
    log.write_text("10 %\r20 %\nerror: `seed` is missing.\n\n")
    assert _reason(2, log) == "`seed` is missing."
    assert _reason(-9, log) == "ended by SIGKILL"


@pytest.mark.parametrize(("count", "parts"), [(16, 4), (7, 3), (2, 2), (5, 1)])
def test_parts_cover_everything_once_and_evenly(count: int, parts: int) -> None:
    cut = [_part(list(range(count)), index, parts) for index in range(parts)]
    assert [item for piece in cut for item in piece] == list(range(count))
    assert {len(piece) for piece in cut} <= {count // parts, -(-count // parts)}


def test_shares_of_the_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    cores = set(_usable_cores())
    assert cores == os.sched_getaffinity(0)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", ",".join(f"GPU-{core}" for core in cores))
    shares = divide_machine(len(cores))
    if len(cores) > 1:
        assert set().union(*(share.cores or () for share in shares)) == cores
        assert {share.environment["CUDA_VISIBLE_DEVICES"] for share in shares} == {f"GPU-{c}" for c in cores}
    assert divide_machine(1)[0].cores is None
    for processes in (0, len(cores) + 1):
        with pytest.raises(InputError, match="`processes` must be between 1 and"):
            divide_machine(processes)
