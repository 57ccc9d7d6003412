"""The kinds of files that the package reads: valid examples, and the program or function that reads them."""

import io
import re
import shutil
import sys
from collections.abc import Callable, Sequence
from contextlib import redirect_stderr
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import tensorflow_datasets  # noqa: F401  # like all others, before processes are forked

import ncen_tf
from ncen_tf import program
from ncen_tf.attack.suites import read_suite
from ncen_tf.base.errors import InputError
from ncen_tf.train import __main__ as train
from tests.conftest import ROOT
from tests.stress.hostile import write_hostile
from tests.stress.kills import SUITE
from tests.stress.pool import Case

Reader = Callable[[Path], Any]
IMAGES = ncen_tf.load_data("fashion_mnist_sample").test
for public in ncen_tf.__all__:
    getattr(ncen_tf, public)


class Kind(NamedTuple):
    """A kind of files: its share of the inputs, its reader, and the places of its valid files by name."""

    weight: int
    reader: Reader
    files: dict[str, str]


def attack(name: str, verified: bool = False) -> Reader:
    """Make a reader that attacks the model in a file of the case."""
    settings: Any = {"suite": SUITE, "examples": 20, "allow_unverified": not verified}
    return lambda folder: str(ncen_tf.evaluate(folder / name, IMAGES, out=folder / "out", **settings))


def reading(function: Callable[[Path], Any], name: str = "") -> Reader:
    """Make a reader that calls a function with a file of the case."""
    return lambda folder: function(folder / name)


def _data(folder: Path) -> None:
    ncen_tf.load_data("cifar10", data_dir=folder / "out", archive_dir=folder)


def _flagfile(folder: Path) -> None:
    """Start a program up to its settings, in this process, which is used up."""
    sys.argv = ["train", f"--flagfile={folder}/flags.cfg"]
    with redirect_stderr(io.StringIO()) as said, pytest.raises(SystemExit) as end:
        program.run(train.Flags, lambda flags: print(train.default_run_dir(flags.config())))
    if end.value.code == 2 and re.fullmatch(r"error: .*\n", said.getvalue()):
        raise InputError(said.getvalue().strip())
    assert not end.value.code, f"{end.value.code}: {said.getvalue()[-300:]}"


def _replay(folder: Path) -> None:
    str(ncen_tf.evaluate_saved(folder / "ensemble.onnx", folder / "saved.npz"))


def _gate(folder: Path) -> None:
    result = ncen_tf.Report.read(folder / "report.json").check(folder / "gate.toml")
    result.write_junit(folder / "junit.xml")
    str(result).encode()


def _report(folder: Path) -> None:
    report = ncen_tf.Report.read(folder / "report.json")
    str(report).encode()
    report.write(folder / "again.json")


def _records(folder: Path) -> None:
    results = ncen_tf.read_results(folder)
    for name in ("terminal", "markdown", "latex", "csv"):
        ncen_tf.format_tables(results, name).encode()


RUN, EXPORT, REPORT = "train/expected/run", "export/expected/export", "attack/expected/report"
ONNX = {"ensemble.onnx": f"{EXPORT}/ensemble.onnx"}
RECORDS = {name: f"{RUN}/{name}" for name in ("config.json", "data.json", "metrics.jsonl", "summary.json")}
KINDS: dict[str, Kind] = {
    "onnx": Kind(20, attack("ensemble.onnx"), ONNX),
    "keras": Kind(5, attack("ensemble.keras"), {"ensemble.keras": f"{RUN}/ensemble.keras"}),
    "saved_model": Kind(5, attack(""), {"": f"{EXPORT}/saved_model"}),
    "manifest": Kind(8, attack("", verified=True), ONNX | {"manifest.json": f"{EXPORT}/manifest.json"}),
    "adversarials": Kind(8, _replay, ONNX | {"saved.npz": f"{REPORT}/adversarials/Square*.npz"}),
    "state": Kind(6, attack("ensemble.onnx"), ONNX | {"out/finished_attacks": f"{REPORT}/finished_attacks"}),
    "report": Kind(8, _report, {"report.json": f"{REPORT}/report.json"}),
    "gate": Kind(
        8, _gate, {"gate.toml": "exports/reference.gate.toml", "report.json": "exports/reference.strict.json"}
    ),
    "suite": Kind(8, reading(read_suite, "suite.toml"), {"suite.toml": "configs/suites/example.toml"}),
    "grid": Kind(8, reading(ncen_tf.read_grid, "grid.toml"), {"grid.toml": "configs/grids/smoke.toml"}),
    "flagfile": Kind(8, _flagfile, {"flags.cfg": "configs/fmnist_robust.cfg"}),
    "run": Kind(3, reading(ncen_tf.open_run), RECORDS | {"ensemble.keras": f"{RUN}/ensemble.keras"}),
    "checkpoint": Kind(4, reading(ncen_tf.open_run), RECORDS | {"checkpoints": f"{RUN}/checkpoints"}),
    "metrics": Kind(2, lambda folder: ncen_tf.diagnose_runs([folder], folder / "plot.png"), RECORDS),
    "records": Kind(8, _records, {"record.json": "docs/results/records/fashion_mnist-nce-s0.json"}),
    # Only the authors of the dataset can make an archive that is accepted.
    "archive": Kind(1, _data, {"cifar-10-binary.tar.gz": "LICENSE"}),
}


def write_seeds(folder: Path, campaign: Path) -> None:
    """Write the valid files of each kind into `folder`/KIND, hostile ones into `folder`/hostile/KIND/NAME.

    They are made from what train, export and attack wrote in the folder of a campaign of kills.
    """
    for name, kind in KINDS.items():
        for file, origin in kind.files.items():
            (source,) = (*campaign.glob(origin), *ROOT.glob(origin))
            target = folder / name / file
            target.parent.mkdir(parents=True, exist_ok=True)
            (shutil.copytree if source.is_dir() else shutil.copy)(source, target)
    write_hostile(folder, folder / "hostile")


def choose_cases(seeds: Path, count: int, seed: int, kinds: Sequence[str] | None = None) -> list[Case]:
    """Choose cases: the valid files and the hostile files of all kinds once, and damaged files."""
    kinds = kinds or list(KINDS)
    cases = [Case(kind) for kind in kinds]
    for folder in sorted((seeds / "hostile").glob("*/*")):
        if folder.parent.name in kinds:
            cases.append(Case(folder.parent.name, hostile=folder.name))
    weights, left = {kind: KINDS[kind].weight for kind in kinds}, max(count - len(cases), 0)
    for kind, weight in weights.items():
        damaged = -(-left * weight // sum(weights.values()))
        cases += [Case(kind, number, seed=seed) for number in range(1, damaged + 1)]
    return cases
