"""Valid files of every kind, from which damaged ones are made."""

import shutil
from collections.abc import Sequence
from pathlib import Path

from tests.conftest import ROOT
from tests.stress.hostile import write_hostile
from tests.stress.pool import Case

WEIGHTS = {
    "onnx": 20,
    "keras": 5,
    "saved_model": 5,
    "run": 2,
    "checkpoint": 3,
    "export": 8,
    "adversarials": 8,
    "finished": 6,
    "suite": 8,
    "gate": 8,
    "report": 8,
    "grid": 8,
    "records": 8,
}
"""Shares of the inputs: more of kinds that come from others, fewer of those whose readers are slow."""


def write_seeds(folder: Path, campaign: Path) -> None:
    """Write the files of each kind into `folder`/KIND, and hostile files into `folder`/hostile/KIND/NAME.

    Args:
        folder: Folder that is made.
        campaign: Folder of a campaign of kills, in which train, export and attack have run to their end.
    """
    run, export = campaign / "train/expected/run", campaign / "export/expected/export"
    report = campaign / "attack/expected/report"
    onnx, examples = export / "ensemble.onnx", sorted((report / "adversarials").glob("*.npz"))
    files: dict[str, dict[str, Path]] = {
        "onnx": {"ensemble.onnx": onnx},
        "keras": {"ensemble.keras": run / "ensemble.keras"},
        "saved_model": {"": export / "saved_model"},
        "run": {name: run / name for name in ("flags.cfg", "ensemble.keras")},
        "checkpoint": {name: run / name for name in ("flags.cfg", "checkpoints")},
        "export": {"manifest.json": export / "manifest.json", "ensemble.onnx": onnx},
        "adversarials": {"adversarials.npz": examples[0], "ensemble.onnx": onnx},
        "finished": {"out/finished_attacks": report / "finished_attacks", "ensemble.onnx": onnx},
        "suite": {"suite.toml": ROOT / "configs/suites/example.toml"},
        "gate": {"gate.toml": ROOT / "exports/reference.gate.toml", "report.json": report / "report.json"},
        "report": {"report.json": report / "report.json"},
        "grid": {"grid.cfg": ROOT / "configs/grids/smoke.cfg"},
        "records": {"nce.json": ROOT / "docs/results/records/fashion_mnist-nce-s0.json"},
    }
    for kind, sources in files.items():
        for name, source in sources.items():
            target = folder / kind / name
            target.parent.mkdir(parents=True, exist_ok=True)
            (shutil.copytree if source.is_dir() else shutil.copy)(source, target)
    write_hostile(folder, folder / "hostile")


def choose_cases(seeds: Path, count: int, seed: int, kinds: Sequence[str] | None = None) -> list[Case]:
    """Choose cases: all valid files and hostile files once, the rest damaged files."""
    kinds = kinds or list(WEIGHTS)
    cases = [Case(kind) for kind in kinds]
    for folder in sorted((seeds / "hostile").glob("*/*")):
        if folder.parent.name in kinds:
            cases.append(Case(folder.parent.name, hostile=folder.name))
    total, left = sum(WEIGHTS[kind] for kind in kinds), max(count - len(cases), 0)
    for kind in kinds:
        cases += [Case(kind, number, seed=seed) for number in range(1, left * WEIGHTS[kind] // total + 1)]
    missing = count - len(cases)
    return cases + [Case(kinds[0], left + number, seed=seed) for number in range(1, missing + 1)]
