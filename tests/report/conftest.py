"""Made-up outcomes of attacks, with numbers that can be counted by hand."""

import dataclasses
from typing import Any

import numpy as np
import pytest

from ncen_tf.report.metrics import build_report
from ncen_tf.report.results import AttackResult, RecordedAccuracy, Report, SuiteResult, TargetInfo

LABELS = np.array([0, 0, 0, 0, 0, 1, 1, 1, 1, 1], np.int32)
CLEAN = np.array([0, 0, 0, 0, 1, 1, 1, 1, 1, 0], np.int32)  # 8 of 10 right
FGSM = np.array([0, 0, 1, 1, 0, 1, 1, 1, 1, 0], np.int32)  # 6 of these stay right; index 4 gets right
PGD = np.array([0, 1, 1, 0, 1, 0, 1, 1, 1, 0], np.int32)  # 5 stay right; 4 under both
IMAGES = np.linspace(0, 1, 160, dtype=np.float32).reshape(10, 4, 4, 1)

# For a cumulative suite: which examples are attacked, and which of them are broken.
COURSE: list[tuple[str, str, float, set[int], set[int]]] = [
    ("APGD-CE", "Linf", 0.1, {0, 1, 2, 3, 5, 6, 7, 8}, {0, 1, 2}),
    ("Square", "Linf", 0.1, {3, 5, 6, 7, 8}, {3}),
    ("APGD-CE", "L2", 1.0, {0, 1, 2, 3, 5, 6, 7, 8}, {0, 1, 2, 3, 5, 6, 7, 8}),
    ("Square", "L2", 1.0, set(), set()),
]


def outcome(name: str, norm: str, eps: float, predictions: Any, **changes: Any) -> AttackResult:
    settings = {"attack": name, "norm": norm, "eps": eps, "steps": 2}
    sizes, shown = np.arange(10, dtype=np.float32), np.full((2, 4, 4, 1), 0.75, np.float32)
    predictions = np.asarray(predictions, np.int32)
    result = AttackResult(
        settings, np.ones(10, bool), predictions, 2 * sizes, sizes, shown, 3.0, 2.0, 1.5, sizes, np.arange(2)
    )
    return dataclasses.replace(result, **changes)


def make_report(attacks: list[AttackResult], margins: Any = (1,) * 10, **changes: Any) -> Report:
    target = TargetInfo(
        description="onnx <exports>/x/ensemble.onnx",
        sha256="ab" * 32,
        members=3,
        gives_logits=True,
        providers=("CPUExecutionProvider",),
    )
    settings: dict[str, Any] = {
        "protocol": "paper",
        "objective": "member_average",
        "dataset": "fashion_mnist_sample",
        "target": target,
        "seed": 7,
        "recorded": RecordedAccuracy(value=0.8, examples=10),
        "images": IMAGES,
    }
    class_names = ("T-shirt/top", "<Bag>")
    result = SuiteResult(LABELS, CLEAN, np.array(margins, np.float32), attacks, class_names)
    return build_report(result, **(settings | changes))


@pytest.fixture
def attacks() -> list[AttackResult]:
    return [
        outcome("FGSM", "Linf", 0.1, FGSM),
        outcome("PGD", "Linf", 0.1, PGD),
        outcome("PGD", "Linf", 0.15, 1 - LABELS),
        outcome("DeepFool", "L2", 1.0, CLEAN),
    ]


@pytest.fixture
def report(attacks: list[AttackResult]) -> Report:
    return make_report(attacks)


@pytest.fixture
def cumulative() -> Report:
    attacks = [
        outcome(
            name,
            norm,
            eps,
            np.where(np.isin(np.arange(10), list(broken)), 1 - LABELS, CLEAN),
            attacked=np.isin(np.arange(10), list(attacked)),
            shown=np.full((min(2, len(attacked)), 4, 4, 1), 0.75, np.float32),
            shown_index=np.array(sorted(attacked)[:2], int),
        )
        for name, norm, eps, attacked, broken in COURSE
    ]
    return make_report(attacks, protocol="strict", objective="ensemble", cumulative=True)
