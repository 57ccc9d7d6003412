"""The kinds of files that the package reads: valid examples, and the program or function that reads them."""

import importlib
import io
import shutil
import sys
from collections.abc import Callable, Sequence
from contextlib import redirect_stderr
from pathlib import Path
from typing import Any, NamedTuple

import ncen_tf
from ncen_tf.attack.suites import read_suite
from ncen_tf.base.errors import InputError
from tests.conftest import ROOT
from tests.stress.hostile import write_hostile
from tests.stress.kills import SUITE
from tests.stress.pool import Case

Reader = Callable[[Path], Any]
IMAGES = ncen_tf.load_data("fashion_mnist_sample").test
for name in ncen_tf.__all__:  # imported before processes are forked
    getattr(ncen_tf, name)


class Kind(NamedTuple):
    """A kind of files."""

    weight: int
    """Share of the inputs: more for files that come from others, fewer where the reader is slow."""
    reader: Reader
    files: dict[str, str]
    """Valid files: name, and where they are below the folder of a campaign or in the repository."""


def program(command: str) -> Reader:
    """Make a reader that runs a program in this process, which it uses up; {0} is the folder of the case."""

    def read(folder: Path) -> None:
        name, *arguments = command.format(folder).split()
        module: Any = importlib.import_module(f"ncen_tf.{name}.__main__")
        sys.argv = [name, *arguments]
        code: Any = 0
        with redirect_stderr(io.StringIO()) as said:
            try:
                module.run()
            except SystemExit as end:
                code = end.code
        errors = [line for line in said.getvalue().splitlines() if line.startswith("error: ")]
        if code == 2 and len(errors) == 1 and "Traceback" not in said.getvalue():
            raise InputError(errors[0])
        assert not code, f"exit code {code}: {said.getvalue()[-300:]}"

    return read


def attack(name: str, verified: bool = False) -> Reader:
    """Make a reader that attacks the model in a file of the case."""
    settings: Any = {"suite": SUITE, "examples": 20, "allow_unverified": not verified}
    return lambda folder: str(ncen_tf.evaluate(folder / name, IMAGES, out=folder / "out", **settings))


def _gate(folder: Path) -> None:
    result = ncen_tf.Report.read(folder / "report.json").check(folder / "gate.toml")
    result.write_junit(folder / "junit.xml")
    str(result).encode()


def _report(folder: Path) -> None:
    report = ncen_tf.Report.read(folder / "report.json")
    str(report).encode()
    report.write(folder / "again.json")


RUN, EXPORT = "train/expected/run", "export/expected/export"
ONNX, REPORT = f"{EXPORT}/ensemble.onnx", "attack/expected/report"
KINDS = {
    "onnx": Kind(20, attack("ensemble.onnx"), {"ensemble.onnx": ONNX}),
    "keras": Kind(5, attack("ensemble.keras"), {"ensemble.keras": f"{RUN}/ensemble.keras"}),
    "saved_model": Kind(5, attack(""), {"": f"{EXPORT}/saved_model"}),
    "manifest": Kind(
        8,
        attack("", verified=True),
        {"ensemble.onnx": ONNX, "manifest.json": f"{EXPORT}/manifest.json"},
    ),
    "adversarials": Kind(
        8,
        lambda folder: str(ncen_tf.evaluate_saved(folder / "ensemble.onnx", folder / "saved.npz")),
        {"ensemble.onnx": ONNX, "saved.npz": f"{REPORT}/adversarials/Square*.npz"},
    ),
    "finished": Kind(
        6,
        attack("ensemble.onnx"),
        {"ensemble.onnx": ONNX, "out/finished_attacks": f"{REPORT}/finished_attacks"},
    ),
    "suite": Kind(
        8, lambda folder: read_suite(folder / "suite.toml"), {"suite.toml": "configs/suites/example.toml"}
    ),
    "gate": Kind(
        8, _gate, {"gate.toml": "exports/reference.gate.toml", "report.json": "exports/reference.strict.json"}
    ),
    "report": Kind(8, _report, {"report.json": f"{REPORT}/report.json"}),
}


def write_seeds(folder: Path, campaign: Path) -> None:
    """Write the valid files of each kind into `folder`/KIND, hostile ones into `folder`/hostile/KIND/NAME.

    Args:
        folder: Folder that is made.
        campaign: Folder of a campaign of kills, in which train, export and attack have run to their end.
    """
    for name, kind in KINDS.items():
        for file, origin in kind.files.items():
            (source,) = (*campaign.glob(origin), *ROOT.glob(origin))
            target = folder / name / file
            target.parent.mkdir(parents=True, exist_ok=True)
            (shutil.copytree if source.is_dir() else shutil.copy)(source, target)
    write_hostile(folder, folder / "hostile")


def choose_cases(seeds: Path, count: int, seed: int, kinds: Sequence[str] = ()) -> list[Case]:
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
