"""Records of a sweep as real ones are, with numbers from a generator."""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from ncen_tf.export.manifest import Accuracy
from ncen_tf.report.results import AttackRow, Proportion, Report, TargetInfo, WorstCase
from ncen_tf.sweep.records import CellRecord
from ncen_tf.tables.result_tables import ResultTable, result_tables
from ncen_tf.tables.results_frame import read_results
from ncen_tf.train.config import TrainConfig
from ncen_tf.train.run_directory import DataRecord, RunSummary, TestMetrics

CPU = {"platform": "Linux x86_64", "cores": 2, "gpus": []}
GPU = {"platform": "Linux x86_64", "cores": 16, "gpus": ["NVIDIA H100"]}
EPS = {"fashion_mnist": (0.1, 0.3, 0.1, 0.15), "cifar10": (0.03, 0.09, 0.01, 0.02)}
OBJECTIVES = {"paper": "member_average", "released": "stacked_softmax", "strict": "ensemble"}
ENSEMBLE1 = ("resnet20",) * 3

Rng = np.random.Generator


def record(
    rng: Rng,
    name: str,
    reports: Iterable[Report] = (),
    *,
    environment: Mapping[str, Any] = CPU,
    test_examples: int = 10_000,
    test: Mapping[str, Any] | None = None,
    **settings: Any,
) -> CellRecord:
    """Make the record of a run with the given flat settings of training."""
    config = TrainConfig.from_flags(
        {"dataset": "fashion_mnist", "architecture": ENSEMBLE1, "epochs": 2, "train_examples": 10_000}
        | settings
    )
    members = len(config.members)
    measured: dict[str, Any] = {
        name: rng.random()
        for name in ("clean_accuracy", "ce", "l_cos", "l_norm", "pairwise_cosine", "norm_spread")
    }
    for per_member in ("member_accuracy", "cosine_to_mean", "norm_deviation", "gradient_norm"):
        measured[per_member] = tuple(rng.random(members).tolist())
    if config.adversarial_training:
        # Measured on attacked images: not part of tables about clean images.
        measured |= {"pgd_accuracy": 0.5, "training_attack_accuracy": 0.5}
    metrics = TestMetrics(**measured | dict(test or {}))
    return CellRecord(
        name=name,
        config=config,
        run=RunSummary(
            clean_accuracy=metrics.clean_accuracy,
            member_accuracy=metrics.member_accuracy,
            test=metrics,
            train={"loss": 1.0},
            epochs=config.epochs,
            parameters=808_302,
            median_seconds_per_step=rng.random(),
            replicas=1,
            data=DataRecord(
                name=config.dataset,
                source="made up",
                image_shape=(28, 28, 1),
                class_names=tuple("0123456789"),
                train_examples=config.train_examples or 60_000,
                test_examples=test_examples,
                sha256="0" * 64,
            ),
            environment=dict(environment),
        ),
        export=Accuracy(
            clean_accuracy=0.5,
            test_examples=test_examples,
            dataset_source="made up",
            predictions_sha256="0" * 64,
        ),
        onnx_sha256="0" * 64,
        reports={report.protocol: report for report in reports},
        seconds={"train": 100.2, "export": 10.0},
    )


def report(
    rng: Rng,
    protocol: str = "paper",
    *,
    dataset: str = "fashion_mnist",
    examples: int = 1_000,
    attacks: Sequence[Mapping[str, Any]] = (),
    cumulative: bool | None = None,
    environment: Mapping[str, Any] = CPU,
    no_aae: bool = False,
) -> Report:
    """Make a report; with ``no_aae``, the first attack has none."""
    attacks = attacks or paper_attacks(dataset)
    bounds = sorted({(attack.get("norm", "Linf"), attack["eps"]) for attack in attacks})
    rows = [_row(rng, attack, examples) for attack in attacks]
    if no_aae:
        rows[0] = rows[0].model_copy(
            update={"aae": Proportion(value=None, count=0, total=0, interval=(0, 1))}
        )
    return Report(
        protocol=protocol,
        objective=OBJECTIVES.get(protocol, "ensemble"),
        dataset=dataset,
        examples=examples,
        cumulative=protocol == "strict" if cumulative is None else cumulative,
        seed=0,
        target=TargetInfo(description="made up", sha256="0" * 64, members=3, gives_logits=True, providers=()),
        clean_accuracy=share(rng.random()),
        attacks=tuple(rows),
        worst_case=tuple(
            WorstCase(
                attacks=tuple(row.attack for row in rows if (row.norm, row.eps) == (norm, eps)),
                norm=norm,
                eps=eps,
                robust_accuracy=share(rng.random()),
                aae=share(rng.random()),
            )
            for norm, eps in bounds
        ),
        seconds=1.0,
        environment=dict(environment),
    )


def share(value: float) -> Proportion:
    return Proportion(value=value, count=1, total=2, interval=(0.0, 1.0))


def paper_attacks(dataset: str) -> list[dict[str, Any]]:
    """List the eight rows of the paper's tables."""
    small, large, *iterative = EPS[dataset]
    rows: list[dict[str, Any]] = [{"attack": "FGSM", "eps": eps} for eps in (small, large)]
    for eps in (small, large):
        rows.append(
            {"attack": "MI-FGSM", "eps": eps, "settings": {"steps": 40, "step_size": 0.01, "decay": 1.0}}
        )
    for name, steps in (("PGD", 40), ("BIM", 10)):
        for eps in iterative:
            rows.append({"attack": name, "eps": eps, "settings": {"steps": steps, "step_size": eps}})
    return rows


def write(folder: Path, *records: CellRecord) -> None:
    """Write ``folder/NAME/record.json`` of each record."""
    for one in records:
        (folder / one.name).mkdir(parents=True)
        one.write(folder / one.name / "record.json")


def tables_of(folder: Path, *records: CellRecord) -> dict[str, list[ResultTable]]:
    """Write records, and make all tables of them."""
    write(folder, *records)
    return result_tables(read_results(folder))


def cells_of(tables: Mapping[str, Iterable[ResultTable]]) -> pd.DataFrame:
    """Put the numbers of all tables into one frame."""
    return pd.DataFrame([cell for section in tables.values() for table in section for cell in table.cells])


def _row(rng: Rng, attack: Mapping[str, Any], examples: int) -> AttackRow:
    return AttackRow(
        **{"norm": "Linf", "settings": {}} | dict(attack),
        robust_accuracy=share(rng.random()),
        aae=share(rng.random()),
        mean_l2_broken=None,
        mean_linf_broken=None,
        attacked=examples,
        broken=0,
        queries=1,
        gradients=1,
        queries_per_image=1.0,
        gradients_per_image=1.0,
        seconds=1.0,
    )
