"""The numbers of all tables against NumPy over the raw records, and the cells of the paper beside them."""

import csv
import functools
import io
import itertools
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import ncen_tf.tables
from ncen_tf.report.results import Report
from ncen_tf.sweep.records import CellRecord
from ncen_tf.tables.formats import format_tables
from ncen_tf.tables.results_frame import read_results
from ncen_tf.train.config import TrainConfig
from tests.tables.records import CPU, ENSEMBLE1, GPU, record, report, write

ENSEMBLE4 = ("resnet20", "resnet26", "resnet32")
SMALL = ("resnet8", "resnet8")
STRUCTURES = {ENSEMBLE1: "Ensemble1", ENSEMBLE4: "Ensemble4", SMALL: "resnet8+resnet8"}
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


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[CellRecord]]:
    """A part of a large grid, each run attacked under some of the protocols."""
    rng = np.random.default_rng(1)
    folder = tmp_path_factory.mktemp("records")
    grid = itertools.product(
        ("fashion_mnist", "cifar10"), STRUCTURES, METHODS, (0, 1, 2), (10_000, 50_000), (2, 60)
    )
    records = []
    for number, (dataset, architecture, method, seed, train_examples, epochs) in enumerate(grid):
        if rng.random() > 1 / 8:
            continue
        protocols = [name for name in ("paper", "released", "strict") if rng.random() < 0.7]
        reports = [
            report(
                rng, name, dataset=dataset, examples=int(rng.choice([500, 1_000])), no_aae=rng.random() < 0.1
            )
            for name in protocols
        ]
        records.append(
            record(
                rng,
                f"cell{number}",
                reports,
                environment=GPU if rng.random() < 0.3 else CPU,
                **method,
                dataset=dataset,
                architecture=architecture,
                seed=seed,
                train_examples=train_examples,
                epochs=epochs,
            )
        )
    write(folder, *records)
    return folder, records


@pytest.fixture(scope="module")
def lines(written: tuple[Path, list[CellRecord]]) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(format_tables(read_results(written[0]), "csv"))))


flat_settings = functools.cache(TrainConfig.flat)


def belongs(line: dict[str, str], one: CellRecord) -> bool:
    """Return whether a run is of the line's column and block, at its scale."""
    flat = flat_settings(one.config)
    settings = dict(setting.split() for setting in line["settings"].split(", ") if setting)
    defaults = {"lambda_eq": "10.0", "ce_on": "logits", "nce_form": "paper", "adversarial_training": "none"}
    defaults["lambda_norm"] = {"fashion_mnist": "0.02", "cifar10": "0.04"}[one.config.dataset]
    return (
        one.config.dataset == line["dataset"]
        and STRUCTURES[one.config.members] == line["structure"]
        and flat["regularizer"] == NAMES[line["method"]]
        and all(
            str(flat[name]) == settings.get(name, default)
            for name, default in defaults.items()
            if name in flat
        )
        and str(one.config.epochs) == line["epochs"]
        and str(one.config.train_examples) == line["train_examples"]
    )


def brute_force(line: dict[str, str], records: list[CellRecord]) -> list[float]:
    """Collect all values that belong in a line."""
    values: list[float | None] = []
    for one in records:
        if not belongs(line, one):
            continue
        if line["measure"] == "seconds per step":
            if bool(one.run.environment["gpus"]) == line["hardware"].startswith("GPU"):
                values.append(one.run.median_seconds_per_step)
        elif not line["protocol"]:
            measured = getattr(one.run.test, line["measure"])
            summaries: dict[str, Any] = {"": float, "mean": np.mean, "range": np.ptp}
            values.append(float(summaries[line["detail"]](measured)))
        else:
            of_protocol = one.reports.get(line["protocol"])
            if of_protocol and str(of_protocol.examples) == line["examples"]:
                values.append(in_report(line, of_protocol))
    return [value for value in values if value is not None]


def in_report(line: dict[str, str], of_protocol: Report) -> float | None:
    if line["measure"] == "ACE" or line["attack"] == "clean":
        return of_protocol.clean_accuracy.value
    rows: Any = of_protocol.worst_case if line["attack"] == "worst case" else of_protocol.attacks
    kind = {"AAE": "aae", "robust accuracy": "robust_accuracy"}[line["measure"]]
    found = [
        getattr(row, kind).value
        for row in rows
        if str(row.eps) == line["eps"] and getattr(row, "attack", "worst case") == line["attack"]
    ]
    assert len(found) == 1
    value: float | None = found[0]
    return value


def test_every_number_is_numpys(lines: list[dict[str, str]], written: tuple[Path, list[CellRecord]]) -> None:
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


def test_no_value_is_left_out(lines: list[dict[str, str]], written: tuple[Path, list[CellRecord]]) -> None:
    accuracies, diagnostics = 0, 0
    for one in written[1]:
        diagnostics += 6 + 2 * 4 + 1  # six numbers, mean and range of four of the members, seconds per step
        for of_protocol in one.reports.values():
            rows = len(of_protocol.attacks) + sum(len(w.attacks) > 1 for w in of_protocol.worst_case)
            missing = sum(row.aae.value is None for row in of_protocol.attacks)
            accuracies += 2 * (rows + 1) - missing
    assert sum(int(line["n"]) for line in lines if line["protocol"]) == accuracies
    assert sum(int(line["n"]) for line in lines if not line["protocol"]) == diagnostics
    keys = [tuple(line.values())[:-6] for line in lines]
    assert len(set(keys)) == len(keys), "two lines of one cell"


def test_cells_of_the_paper_are_shown_where_they_may_be_compared(lines: list[dict[str, str]]) -> None:
    """AAE and ACE, protocols paper and released, the regularizer's own weights: nowhere else."""
    cells = {tuple(line[:-1]): line[-1] for line in paper_lines()}
    compared = 0
    for line in lines:
        departs = {"lambda_eq", "lambda_norm", "adversarial_training"} & set(line["settings"].split())
        expected = None
        if line["protocol"] in ("paper", "released") and line["measure"] in ("AAE", "ACE") and not departs:
            method, attack = NAMES[line["method"]], line["attack"] or "ACE"
            key = (line["dataset"], line["structure"], line["members"], method, attack, line["eps"])
            expected = cells.get(key)
        assert line["paper"] == ("" if expected is None else str(float(expected))), line
        if expected is not None and line["mean"]:
            compared += 1
            assert float(line["difference"]) == pytest.approx(float(line["mean"]) - float(expected))
        else:
            assert line["difference"] == ""
    assert compared > 50


def paper_lines() -> list[list[str]]:
    """Read the file as text, without the number of the table."""
    with (Path(ncen_tf.tables.__path__[0]) / "paper_cells.csv").open() as stream:
        return [line[1:] for line in list(csv.reader(stream))[1:]]
