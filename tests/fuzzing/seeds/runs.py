"""What training leaves behind, but for weights."""

import json
from collections.abc import Mapping
from typing import Any

ARCHITECTURE = ("resnet8", "resnet8")


def as_json(content: Mapping[str, Any]) -> bytes:
    return json.dumps(content).encode()


def config() -> Any:
    from ncen_tf.train.config import TrainingConfig

    return TrainingConfig("fashion_mnist_sample", ARCHITECTURE, "nce", 0.02, 0.02, 2, 0.3)


def flags() -> bytes:
    return "".join(f"--{name}={value}\n" for name, value in config().to_flags().items()).encode()


def measured(value: float) -> dict[str, Any]:
    from ncen_tf.train.diagnostics import PANELS

    per_member = ("cosine_to_mean", "norm_deviation", "gradient_norm")
    test = {key: [value, value / 2] if key in per_member else value for key in PANELS}
    return test | {"member_ace": [value, value / 2]}


def metrics() -> bytes:
    lines = [
        {
            "epoch": epoch,
            "learning_rate": 1e-3,
            "train": {"loss": 1.5, "ce": 1.0, "ace": 0.5},
            "test": measured(0.1 * epoch),
            "seconds_per_step": 0.1,
        }
        for epoch in (1, 2)
    ]
    return "".join(json.dumps(line) + "\n" for line in lines).encode()


def summary() -> dict[str, Any]:
    from ncen_tf.base.environment import describe_environment

    return {
        "test": measured(0.5),
        "train": {"loss": 1.5},
        "parameters": 1000,
        "median_seconds_per_step": 0.1,
        "dataset": {
            "name": "fashion_mnist_sample",
            "source": "x",
            "train_examples": 600,
            "test_examples": 300,
        },
        "replicas": 1,
        "flags": config().to_flags(),
        "environment": describe_environment(),
    }
