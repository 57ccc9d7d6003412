"""Writes the seeds of all formats."""

from pathlib import Path

import numpy as np

from tests.fuzzing.case import MODEL, OUTSIDE, SECRET, Case
from tests.fuzzing.seeds import reports
from tests.fuzzing.seeds.datasets import archives, write_prepared
from tests.fuzzing.seeds.models import IMAGE_SHAPE, onnx_model, write_keras
from tests.fuzzing.seeds.runs import flags, metrics

ROOT = Path(__file__).parents[3]


def write_seeds(folder: Path) -> None:
    """Write ``folder/FORMAT/...`` for each of the readers, and hostile SavedModels."""
    from tests.fuzzing.hostile_saved_models import write_hostile_saved_models

    onnx_file = onnx_model()
    for name, files in {
        "onnx": {MODEL: onnx_file},
        "onnx_parity": {MODEL: onnx_file},
        "manifest": {MODEL: onnx_file, "manifest.json": reports.manifest(onnx_file)},
        "flagfile": {"flags.cfg": (ROOT / "configs/quickstart.cfg").read_bytes()},
        "run_flags": {"flags.cfg": flags()},
        "metrics": {"flags.cfg": flags(), "metrics.jsonl": metrics()},
        "gate": {"gate.toml": reports.GATE, "report.json": reports.report()},
        "suite": {"suite.toml": (ROOT / "configs/suites/example.toml").read_bytes()},
        "report": {"report.json": reports.report()},
        "transfer": {"transfer.json": reports.transfer()},
        "archives": archives(),
        "grid": {"grid.cfg": (ROOT / "configs/grids/smoke.cfg").read_bytes()},
        "cell": reports.cell(),
        "records": {"a/result.json": reports.record()},
    }.items():
        Case(files).write(folder / name)
    _write_npz(folder)
    write_keras(folder)
    write_prepared(folder / "prepared")
    write_hostile_saved_models(folder / "hostile_saved_models", folder.parent / OUTSIDE / SECRET)


def _write_npz(folder: Path) -> None:
    from ncen_tf.attack.result_files import BatchFiles, write_adversarials, write_result
    from ncen_tf.attack.results import AttackedBatch, SavedAdversarials

    for name in ("adversarials", "attack_result"):
        (folder / name).mkdir()
    result = reports.suite_result()
    images = np.full((6, *IMAGE_SHAPE), 0.5, np.float32)
    settings = result.attacks[0].settings
    write_adversarials(
        folder / "adversarials" / "adversarials.npz",
        SavedAdversarials(images, images, result.labels, settings, "member_average"),
    )
    write_result(folder / "attack_result" / "result.npz", "the key", result.attacks[0])
    batches = BatchFiles(folder / "attack_batches", "the key")
    for number in range(2):
        batches.write(number, AttackedBatch(images[:3], queries=30, gradients=30, seconds=1.5))
