"""Made-up records of a sweep: the format of real ones, numbers from a generator."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from ncen_tf.data.datasets import DATASETS
from ncen_tf.sweep.record import write_record
from ncen_tf.tables.experiments import read_experiments
from ncen_tf.tables.page import sections
from ncen_tf.tables.table import Table
from ncen_tf.train.config import TrainingConfig, default_at_step_size

CPU = {"platform": "Linux x86_64", "cores": 2, "gpus": []}
GPU = {"platform": "Linux x86_64", "cores": 16, "gpus": ["NVIDIA H100"]}
RADII = {"fashion_mnist": (0.1, 0.3, 0.1, 0.15), "cifar10": (0.03, 0.09, 0.01, 0.02)}
OBJECTIVES = {"paper": "member_average", "released": "stacked_softmax", "strict": "ensemble"}
ENSEMBLE1 = ("resnet20",) * 3

Rng = np.random.Generator


def run(
    rng: Rng,
    *,
    dataset: str = "fashion_mnist",
    train_examples: int = 10_000,
    environment: Mapping[str, Any] = CPU,
    **settings: Any,
) -> dict[str, Any]:
    """What a run's ``summary.json`` holds."""
    spec = DATASETS[dataset]
    defaults = {
        "architecture": ENSEMBLE1,
        "regularizer": "nce",
        "epochs": 2,
        "lambda_cos": spec.lambda_cos,
        "lambda_norm": spec.lambda_norm,
        "lambda_div": spec.lambda_div,
        "noise_eps": spec.noise_eps,
        "at_eps": spec.at_eps,
        "at_step_size": default_at_step_size(spec.at_eps, 10),
    }
    config = TrainingConfig(dataset=dataset, train_examples=train_examples, **{**defaults, **settings})
    # Measured on attacked images: no line of a table about clean ones.
    adversarial = config.adversarial_training != "none"
    probed = {"pgd_accuracy": 0.5, "training_attack_accuracy": 0.5} if adversarial else {}
    return {
        "test": {
            "ace": rng.random(),
            "member_ace": rng.random(len(config.architecture)).tolist(),
            "pairwise_cosine": rng.random(),
            "gradient_norm": rng.random(len(config.architecture)).tolist(),
            **probed,
        },
        "train": {},
        "parameters": 808_302,
        "median_seconds_per_step": rng.random(),
        "dataset": {
            "name": dataset,
            "source": "made up",
            "train_examples": train_examples,
            "test_examples": 10_000,
        },
        "flags": config.to_flags(),
        "environment": dict(environment),
    }


def report(
    rng: Rng,
    protocol: str = "paper",
    *,
    dataset: str = "fashion_mnist",
    examples: int = 1_000,
    attacks: Iterable[Mapping[str, Any]] = (),
    environment: Mapping[str, Any] = CPU,
) -> dict[str, Any]:
    """What a ``report.json`` holds of it that tables are made of."""
    attacks = list(attacks) or paper_attacks(dataset)
    radii = sorted({attack["eps"] for attack in attacks})
    over = {eps: [attack["attack"] for attack in attacks if attack["eps"] == eps] for eps in radii}
    return {
        "format": 1,
        "protocol": protocol,
        "objective": OBJECTIVES.get(protocol, "ensemble"),
        "dataset": dataset,
        "examples": examples,
        "cumulative": protocol == "strict",
        "seed": 0,
        "ace": {"value": rng.random()},
        "attacks": [{"norm": "Linf", **attack, **_accuracies(rng)} for attack in attacks],
        "worst_case": [
            {"attacks": names, "norm": "Linf", "eps": eps, **_accuracies(rng)} for eps, names in over.items()
        ],
        "environment": dict(environment),
    }


def paper_attacks(dataset: str) -> list[dict[str, Any]]:
    """The eight rows of the paper's tables."""
    small, large, *iterative = RADII[dataset]
    rows: list[dict[str, Any]] = []
    for eps in (small, large):
        rows.append({"attack": "FGSM", "eps": eps, "settings": {}})
    for eps in (small, large):
        settings = {"steps": 40, "step_size": 0.01, "decay": 1.0}
        rows.append({"attack": "MI-FGSM", "eps": eps, "settings": settings})
    for name, steps in (("PGD", 40), ("BIM", 10)):
        for eps in iterative:
            rows.append({"attack": name, "eps": eps, "settings": {"steps": steps, "step_size": eps}})
    return rows


def write(
    folder: Path, name: str, of_run: Mapping[str, Any], reports: Iterable[Mapping[str, Any]] = ()
) -> dict[str, Any]:
    """Write ``folder/name/result.json`` and return its content."""
    record = {
        "name": name,
        "run": dict(of_run),
        "export": {"ace": 0.5, "test_examples": 10_000, "sha256": "0" * 64},
        "reports": {report["protocol"]: dict(report) for report in reports},
    }
    (folder / name).mkdir(parents=True)
    write_record(folder / name / "result.json", record)
    return record


def _accuracies(rng: Rng) -> dict[str, Any]:
    return {"aae": {"value": rng.random()}, "robust_accuracy": {"value": rng.random()}}


def all_tables(folder: Path) -> list[Table]:
    """Every table that the records below a folder make, in the page's order."""
    return [table for group in sections(read_experiments(folder)).values() for table in group]
