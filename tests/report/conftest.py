"""A measured suite, made up, with numbers that can be counted by hand."""

from typing import Any

import numpy as np
import pytest
import tensorflow as tf

from ncen_tf.attack.results import AttackResult, SuiteResult
from ncen_tf.attack.suites import Suite
from ncen_tf.report.report import build_report

LABELS = np.array([0, 0, 0, 0, 0, 1, 1, 1, 1, 1], np.int32)
CLEAN = np.array([0, 0, 0, 0, 1, 1, 1, 1, 1, 0], np.int32)  # 8 of 10 right
FGSM = np.array([0, 0, 1, 1, 0, 1, 1, 1, 1, 0], np.int32)  # 6 of these stay right; index 4 gets right
PGD = np.array([0, 1, 1, 0, 1, 0, 1, 1, 1, 0], np.int32)  # 5 stay right; 4 under both


class MadeUpTarget:
    """Only described, never queried."""

    description = "onnx <exports>/x/ensemble.onnx"
    sha256 = "ab" * 32
    image_shape = (4, 4, 1)
    classes = 2
    members = 3
    gives_logits = True
    providers = ("CPUExecutionProvider",)

    def member_logits(self, images: tf.Tensor) -> tf.Tensor:
        raise NotImplementedError


def attack_result(name: str, norm: str, eps: float, predictions: Any) -> AttackResult:
    settings = {"attack": name, "norm": norm, "eps": eps, "steps": 2}
    sizes = np.arange(10, dtype=np.float32)
    shown = np.full((8, 4, 4, 1), 0.75, np.float32)
    attacked = np.ones(10, bool)
    return AttackResult(settings, attacked, predictions, 2 * sizes, sizes, shown, 3.0, 2.0, 1.5)


@pytest.fixture
def result() -> SuiteResult:
    attacks = [
        attack_result("FGSM", "Linf", 0.1, FGSM),
        attack_result("PGD", "Linf", 0.1, PGD),
        attack_result("PGD", "Linf", 0.15, 1 - LABELS),
        attack_result("DeepFool", "L2", 1.0, CLEAN),
    ]
    return SuiteResult(LABELS, CLEAN, attacks, 0)


@pytest.fixture
def report(result: SuiteResult) -> dict[str, Any]:
    return build_report(
        MadeUpTarget(),
        Suite("paper", ()),
        result,
        objective="member_average",
        dataset="fashion_mnist_sample",
        seed=7,
    )
