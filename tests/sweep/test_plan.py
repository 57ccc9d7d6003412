"""Folders of cells: what is found again, what is left to do, what a changed grid changes."""

import json
from pathlib import Path
from typing import Any

import pytest

from ncen_tf.base.files import write_json
from ncen_tf.sweep.plan import Plan, PlannedCell, make_plan, read_work
from ncen_tf.train.config import TrainingConfig
from ncen_tf.train.run_directory import RunDirectory
from tests.sweep.conftest import TINY, WriteGrid

ATTACK = "[attack]\n--suite=quick | released\n"


class Sweep:
    """Plans in always the same folder, and cells that are finished without their work."""

    def __init__(self, write_grid: WriteGrid, out: Path) -> None:
        self._write_grid, self._out = write_grid, out
        self._configs: dict[str, TrainingConfig] = {}

    def plan(self, text: str) -> Plan:
        work = read_work(self._write_grid(text))
        plan = make_plan(work, self._out)
        self._configs |= {cell.name: c.config for cell, c in zip(plan.cells, work.cells, strict=True)}
        return plan

    def finish(self, cell: PlannedCell) -> None:
        config = self._configs[cell.name]
        run = RunDirectory(cell.directory.path / "run")
        run.open(config)
        run.begin(config)
        cell.directory.begin(cell.pending)
        outputs: dict[str, dict[str, Any]] = {
            "train": {
                "test": {"ace": 0.5, "member_ace": [0.5, 0.5]},
                "flags": config.to_flags(),
                "dataset": {"name": config.dataset, "train_examples": 1, "test_examples": 2},
            },
            "export": {
                "format": 1,
                "training_flags": config.to_flags(),
                "accuracy": {"ace": 0.5, "test_examples": 2, "predictions_sha256": "cd"},
                "reduced_precision": {},
                "files": {"ensemble.onnx": {"size": 1, "sha256": "ab"}},
            },
        }
        report = {"objective": "ensemble", "dataset": config.dataset, "examples": 2, "ace": {"value": 0.5}}
        for stage in cell.pending:
            stage.output.parent.mkdir(parents=True, exist_ok=True)
            suite = {"protocol": stage.name, **report, "attacks": [], "worst_case": []}
            write_json(stage.output, outputs.get(stage.name, suite))
            cell.directory.book(stage.name, 2.0, finished=True)
        cell.directory.write_record(cell.stages)


@pytest.fixture
def sweep(write_grid: WriteGrid, tmp_path: Path) -> Sweep:
    return Sweep(write_grid, tmp_path / "out")


def test_targets_of_the_suites(sweep: Sweep) -> None:
    """Batch statistics are only in the run; what is deployed is attacked otherwise."""
    (cell,) = sweep.plan(TINY + ATTACK).cells
    places = {stage.name: stage.places[0] for stage in cell.stages}
    assert places["quick"] == f"--target={cell.directory.path / 'export'}"
    assert places["released"] == f"--target={cell.directory.path / 'run'}"


def test_a_changed_grid_finds_its_cells_and_runs_new_ones_only(sweep: Sweep) -> None:
    for cell in sweep.plan(TINY + ATTACK + "[train]\n--seed=0 | 1").cells:
        assert cell.state == "new"
        sweep.finish(cell)
    changed = sweep.plan(
        TINY.replace("epochs=1", "epochs=1 | 2") + ATTACK + "[train]\n--seed=1\n[train]\n--seed=2\n"
    )
    states = {cell.name: cell.state for cell in changed.cells}
    assert states == {
        "seed=1": "finished",
        "epochs=2__seed=1": "new",
        "epochs=1__seed=2": "new",
        "epochs=2__seed=2": "new",
    }
    assert changed.others == ("seed=0",)
    assert "4 cells: 1 finished, 0 started, 3 new; 12 stages to run." in changed.describe()
    assert "left alone: seed=0" in changed.describe()


def test_a_name_that_another_cell_has_is_made_longer(sweep: Sweep) -> None:
    first = sweep.plan(TINY + "[train]\n--seed=0 | 1").cells
    for cell in first:
        sweep.finish(cell)
    second = sweep.plan(
        TINY.replace("epochs=1", "epochs=3") + "[train]\n--seed=0 | 1\n--train_examples=60"
    ).cells
    for cell in second:
        sweep.finish(cell)
    assert [cell.name for cell in first] == ["seed=0", "seed=1"]
    assert [cell.name for cell in second] == [f"seed={s}__epochs=3__train_examples=60" for s in (0, 1)]
    third = sweep.plan(TINY.replace("epochs=1", "epochs=3") + "[train]\n--seed=0 | 1").cells
    assert third[0].name == "seed=0__epochs=3"


def test_stages_with_other_arguments_and_what_follows_from_them_run_again(
    sweep: Sweep,
) -> None:
    def pending(text: str) -> list[str]:
        (cell,) = sweep.plan(TINY + text).cells
        return [stage.name for stage in cell.pending]

    (cell,) = sweep.plan(TINY + ATTACK).cells
    sweep.finish(cell)
    assert pending(ATTACK) == []
    assert pending(ATTACK.replace("quick | ", "")) == []
    assert pending("[train]\n--checkpoint_every=7\n" + ATTACK) == []  # the weights are the same
    assert pending("[attack]\n--suite=quick\n--seed=3\n[attack]\n--suite=released") == ["quick"]
    assert pending(ATTACK + "[attack]\n--suite=paper") == ["paper"]
    assert pending(ATTACK + "[export]\n--formats=onnx") == ["export", "quick", "released"]


def test_a_stage_that_began_is_not_finished_by_what_an_earlier_one_left(sweep: Sweep) -> None:
    (cell,) = sweep.plan(TINY + ATTACK).cells
    sweep.finish(cell)
    cell.directory.begin(cell.stages[1:])
    assert not cell.directory.result.exists()
    cell.directory.book("export", 3.0, finished=True)
    cell.directory.book("quick", 4.0, finished=False)  # interrupted
    (again,) = sweep.plan(TINY + ATTACK).cells
    assert again.state == "started"
    assert [stage.name for stage in again.pending] == ["quick", "released"]
    sweep.finish(again)
    seconds = json.loads(again.directory.result.read_text())["seconds"]
    assert seconds == {"train": 2.0, "export": 5.0, "quick": 8.0, "released": 4.0}


def test_what_a_record_was_made_from_may_be_deleted(sweep: Sweep) -> None:
    (cell,) = sweep.plan(TINY + ATTACK).cells
    sweep.finish(cell)
    for stage in cell.stages:
        stage.output.unlink()
    assert sweep.plan(TINY + ATTACK).cells[0].state == "finished"
    (grown,) = sweep.plan(TINY + ATTACK + "[attack]\n--suite=paper").cells
    assert len(grown.pending) == 5, "a further suite needs the files that are gone"
    cell.directory.result.unlink()
    assert len(sweep.plan(TINY + ATTACK).cells[0].pending) == 4


def test_reports_of_an_earlier_export_are_not_taken_up_again(sweep: Sweep) -> None:
    """Though a grid between had other suites, and so did not run these again."""
    grids = [
        TINY + ATTACK,
        TINY + "[export]\n--opset=18\n[attack]\n--suite=paper",
        TINY + "[export]\n--opset=18\n[attack]\n--suite=quick | released | paper",
    ]
    pending = []
    for grid in grids:
        (cell,) = sweep.plan(grid).cells
        pending.append([stage.name for stage in cell.pending])
        sweep.finish(cell)
    assert pending[1:] == [["export", "paper"], ["quick", "released"]]


def test_a_record_without_a_suite_is_not_finished(sweep: Sweep) -> None:
    for suites in ("quick | released", "quick | paper"):
        (cell,) = sweep.plan(f"{TINY}[attack]\n--suite={suites}").cells
        sweep.finish(cell)
    (cell,) = sweep.plan(f"{TINY}[attack]\n--suite=quick | paper | released").cells
    assert [stage.name for stage in cell.pending] == ["released"]


def test_a_gate_that_has_changed_is_checked_again(sweep: Sweep, tmp_path: Path) -> None:
    gate = tmp_path / "gate.toml"
    grid = f"{TINY}[attack]\n--suite=quick\n--gate={gate}\n"
    for minimum in (0.1, 0.2):
        gate.write_text(f"clean_accuracy = {minimum}\n")
        (cell,) = sweep.plan(grid).cells
        assert cell.pending[-1].name == "quick"
        sweep.finish(cell)


def test_a_suite_whose_file_has_changed_runs_again(sweep: Sweep, tmp_path: Path) -> None:
    file = tmp_path / "mine.toml"
    grid = f"{TINY}[attack]\n--suite=quick | {file}\n"

    def pending(steps: int) -> list[str]:
        file.write_text(f"[[attack]]\nname = 'PGD'\neps = 0.1\nstep_size = 0.01\nsteps = {steps}\n")
        (cell,) = sweep.plan(grid).cells
        names = [stage.name for stage in cell.pending]
        if cell.state != "finished":
            sweep.finish(cell)
        return names

    assert pending(steps=1) == ["train", "export", "quick", "mine"]
    assert pending(steps=1) == []
    assert pending(steps=2) == ["mine"]
