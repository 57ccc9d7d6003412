"""Figures against NumPy over the raw records, one cell at a time."""

import csv
import io
import itertools
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ncen_tf.tables.long_csv import to_csv
from ncen_tf.tables.paper_cells import PaperCell, paper_cells
from tests.tables.records import CPU, ENSEMBLE1, GPU, all_tables, report, run, write

ENSEMBLE4 = ("resnet20", "resnet26", "resnet32")
SMALL = ("resnet8", "resnet8")
METHODS: tuple[dict[str, Any], ...] = (
    {"regularizer": "none"},
    {"regularizer": "gpmr"},
    {"regularizer": "gpmr", "lambda_eq": 1.0},
    {"regularizer": "adp"},
    {"regularizer": "nce"},
    {"regularizer": "nce", "lambda_norm": -0.02},
    {"regularizer": "nce", "ce_on": "probabilities", "nce_form": "released"},
    {"regularizer": "nce", "adversarial_training": "pgd"},
)
NAMES = {"BL": "none", "GAL": "gal", "GPMR": "gpmr", "ADP": "adp", "NCEn": "nce"}

Record = dict[str, Any]


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[Record]]:
    """A third of a large grid, each run attacked under some of the protocols."""
    rng = np.random.default_rng(1)
    folder = tmp_path_factory.mktemp("records")
    grid = itertools.product(
        ("fashion_mnist", "cifar10"),
        (ENSEMBLE1, ENSEMBLE4, SMALL),
        METHODS,
        (0, 1, 2),
        (10_000, 50_000),
        (2, 60),
    )
    records = []
    for number, (dataset, architecture, method, seed, train_examples, epochs) in enumerate(grid):
        if rng.random() > 1 / 3:
            continue
        protocols = [name for name in ("paper", "released", "strict") if rng.random() < 0.7]
        of_run = run(
            rng,
            dataset=dataset,
            architecture=architecture,
            seed=seed,
            train_examples=train_examples,
            epochs=epochs,
            environment=GPU if rng.random() < 0.3 else CPU,
            **method,
        )
        reports = [
            report(rng, name, dataset=dataset, examples=int(rng.choice([500, 1_000]))) for name in protocols
        ]
        if reports and rng.random() < 0.2:
            reports[0]["attacks"][0]["aae"]["value"] = None
        records.append(write(folder, f"cell{number}", of_run, reports))
    return folder, records


@pytest.fixture(scope="module")
def lines(written: tuple[Path, list[Record]]) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(to_csv(all_tables(written[0])))))


def belongs(line: dict[str, str], record: Record) -> bool:
    """Whether a run is of the line's column and block, at its scale; raw texts are compared."""
    flags, dataset = record["run"]["flags"], record["run"]["dataset"]
    structures = {ENSEMBLE1: "Ensemble1", ENSEMBLE4: "Ensemble4", SMALL: "resnet8+resnet8"}
    settings = dict(setting.split() for setting in line["settings"].split(", ") if setting)
    defaults = {"lambda_eq": "10.0", "ce_on": "logits", "nce_form": "paper", "adversarial_training": "none"}
    defaults["lambda_norm"] = {"fashion_mnist": "0.02", "cifar10": "0.04"}[flags["dataset"]]
    return (
        flags["dataset"] == line["dataset"]
        and structures[tuple(flags["architecture"].split(","))] == line["structure"]
        and flags["regularizer"] == NAMES[line["method"]]
        and all(flags[name] == settings.get(name, default) for name, default in defaults.items())
        and flags["epochs"] == line["epochs"]
        and str(dataset["train_examples"]) == line["train_examples"]
    )


def brute_force(line: dict[str, str], records: list[Record]) -> list[float]:
    """All values that belong in a line."""
    values = []
    for record in records:
        if not belongs(line, record):
            continue
        if line["measure"] == "seconds per step":
            gpu = bool(record["run"]["environment"]["gpus"])
            if gpu == line["hardware"].startswith("GPU"):
                values.append(record["run"]["median_seconds_per_step"])
        elif not line["protocol"]:
            value = record["run"]["test"][line["measure"]]
            summary = {"": float, "mean": np.mean, "range": lambda v: np.max(v) - np.min(v)}[line["detail"]]
            values.append(float(summary(value)))  # type: ignore[operator]
        else:
            of_protocol = record["reports"].get(line["protocol"])
            if of_protocol and str(of_protocol["examples"]) == line["examples"]:
                values.append(in_report(line, of_protocol))
    return [value for value in values if value is not None]


def in_report(line: dict[str, str], of_protocol: Record) -> Any:
    if line["measure"] == "ACE" or line["attack"] == "clean":
        return of_protocol["ace"]["value"]
    kind = {"AAE": "aae", "robust accuracy": "robust_accuracy"}[line["measure"]]
    rows = of_protocol["worst_case" if line["attack"] == "worst case" else "attacks"]
    found = [
        row[kind]["value"]
        for row in rows
        if str(row["eps"]) == line["eps"] and (row.get("attack", "worst case") == line["attack"])
    ]
    assert len(found) == 1
    return found[0]


def test_every_figure_is_numpys(lines: list[dict[str, str]], written: tuple[Path, list[Record]]) -> None:
    for line in lines:
        values = brute_force(line, written[1])
        assert int(line["n"]) == len(values) == len(line["seeds"].split()), line
        if not values:
            assert line["mean"] == ""
            continue
        assert float(line["mean"]) == pytest.approx(np.mean(values))
        if len(values) == 1:
            assert line["std"] == ""
        else:
            assert float(line["std"]) == pytest.approx(np.std(values, ddof=1))


def test_no_value_is_left_out(lines: list[dict[str, str]], written: tuple[Path, list[Record]]) -> None:
    accuracies, diagnostics = 0, 0
    for record in written[1]:
        diagnostics += 2 + 2 * 2 + 1  # two scalars, mean and range of two lists, seconds per step
        for of_protocol in record["reports"].values():
            rows = len(of_protocol["attacks"]) + sum(len(w["attacks"]) > 1 for w in of_protocol["worst_case"])
            missing = sum(row["aae"]["value"] is None for row in of_protocol["attacks"])
            accuracies += 2 * (rows + 1) - missing
    assert sum(int(line["n"]) for line in lines if line["protocol"]) == accuracies
    assert sum(int(line["n"]) for line in lines if not line["protocol"]) == diagnostics


def test_paper_cells_stand_where_they_may(lines: list[dict[str, str]]) -> None:
    """AAE and ACE, protocols paper and released, the regularizer's own weights: nowhere else."""
    compared = 0
    for line in lines:
        departs = {"lambda_eq", "lambda_norm", "adversarial_training"} & set(line["settings"].split())
        expected = None
        if line["protocol"] in ("paper", "released") and line["measure"] in ("AAE", "ACE") and not departs:
            attack, eps = line["attack"] or "ACE", float(line["eps"]) if line["eps"] else None
            key = (
                line["dataset"],
                line["structure"],
                int(line["members"]),
                NAMES[line["method"]],
                attack,
                eps,
            )
            expected = paper_cells().get(PaperCell(*key))
        assert line["paper"] == ("" if expected is None else str(expected)), line
        if expected is not None and line["mean"]:
            compared += 1
            assert float(line["difference"]) == pytest.approx(float(line["mean"]) - expected)
        else:
            assert line["difference"] == ""
    assert compared > 100
