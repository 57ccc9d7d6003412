"""What export, attack, transfer and sweep write."""

import json
from typing import Any

import numpy as np

from tests.fuzzing.case import MODEL
from tests.fuzzing.seeds.models import CLASSES, IMAGE_SHAPE
from tests.fuzzing.seeds.runs import as_json, config, flags, summary

GATE = b"""clean_accuracy = 0.5
agreement = 0.2

[[robust_accuracy]]
attack = "FGSM"
eps = 0.1
minimum = 0.25

[[robust_accuracy]]
attack = "worst case"
eps = 0.1
minimum = 0.1
"""


class _Target:
    description, sha256, members, gives_logits = "onnx ensemble.onnx", "ab" * 32, 2, True
    image_shape, classes, providers = IMAGE_SHAPE, CLASSES, ("CPUExecutionProvider",)


def suite_result() -> Any:
    from ncen_tf.attack.results import SuiteResult
    from ncen_tf.report.results import AttackResult

    labels = np.arange(6, dtype=np.int32) % CLASSES
    sizes, shown = np.full(6, 0.1, np.float32), np.full((2, *IMAGE_SHAPE), 0.5, np.float32)
    attacks = []
    for name in ("FGSM", "PGD"):
        settings = {"attack": name, "norm": "Linf", "eps": 0.1, "steps": 2}
        predictions = labels * (np.arange(6) < 4)
        attacks.append(
            AttackResult(settings, np.ones(6, bool), predictions, sizes, sizes, shown, 3.0, 2.0, 1.5)
        )
    return SuiteResult(labels, labels, attacks, 0)


def report() -> bytes:
    from ncen_tf.report.metrics import build_report
    from ncen_tf.report.results import RecordedAccuracy, TargetInfo

    result = suite_result()
    return build_report(
        result.labels,
        result.clean_predictions,
        result.attacks,
        protocol="paper",
        objective="member_average",
        dataset="fashion_mnist",
        target=TargetInfo(description="x", sha256="0" * 64, members=2, gives_logits=True, providers=()),
        recorded=RecordedAccuracy(value=0.5, examples=6),
        seed=0,
    ).model_dump_json().encode()


def transfer() -> bytes:
    from ncen_tf.report.metrics import clean_accuracy
    from ncen_tf.transfer.record import MemberInfo, Transfer, count_transfer

    labels = np.arange(6, dtype=np.int32) % CLASSES
    settings = {"attack": "FGSM", "norm": "Linf", "eps": 0.1}
    row = count_transfer(settings, labels, np.stack([labels] * 2), np.zeros((2, 2, 6), np.int32))
    accuracy = clean_accuracy(labels, labels)
    member = MemberInfo(description="x", sha256="0" * 64, providers=(), clean_accuracy=accuracy)
    content = Transfer(
        dataset="fashion_mnist",
        examples=6,
        seed=0,
        batch_size=6,
        members=(member, member),
        attacks=(row,),
        environment={},
    )
    return content.model_dump_json().encode()


def manifest(model: bytes) -> bytes:
    import hashlib

    from ncen_tf.base.environment import describe_environment

    content = {
        "format": 1,
        "dataset": "fashion_mnist_sample",
        "training_flags": config().to_flags(),
        "accuracy": {"ace": 0.5, "test_examples": 300, "dataset_source": "x", "predictions_sha256": "0" * 64},
        "parity": {MODEL: {"images": 300, "max_difference": 1e-7}},
        "reduced_precision": {},
        "environment": describe_environment(),
        "files": {MODEL: {"size": len(model), "sha256": hashlib.sha256(model).hexdigest()}},
    }
    return as_json(content)


def record() -> bytes:
    return as_json(
        {
            "format": 1,
            "name": "seed=0",
            "run": summary(),
            "export": {"ace": 0.5, "test_examples": 300, "sha256": "0" * 64},
            "reports": {"paper": json.loads(report())},
            "seconds": {"train": 1.0, "export": 1.0, "paper": 1.0},
        }
    )


def cell() -> dict[str, bytes]:
    entry = {"arguments": ["--argument"], "finished": True, "seconds": 1.0}
    return {
        "run/flags.cfg": flags(),
        "run/summary.json": as_json(summary()),
        "export/manifest.json": manifest(b""),
        "reports/quick/report.json": report(),
        "stages.json": as_json(dict.fromkeys(("train", "export", "quick"), entry)),
        "result.json": record(),
    }
