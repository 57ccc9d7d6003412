"""Which results share a table, a column and a row, and the numbers against NumPy over the raw records."""

import csv
import functools
import io
import itertools
import statistics
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

import ncen_tf.tables
from ncen_tf.attack.suites import load_suite
from ncen_tf.base.errors import InputError
from ncen_tf.report.results import Report
from ncen_tf.sweep.records import CellRecord
from ncen_tf.tables.formats import format_tables, results_page
from ncen_tf.tables.result_tables import _text
from ncen_tf.tables.results_frame import (
    common_settings,
    is_departure,
    method_label,
    method_settings,
    methods_of,
    paper_cells,
    read_results,
)
from ncen_tf.train.config import TrainConfig
from tests.tables.records import CPU, ENSEMBLE1, GPU, Rng, cells_of, record, report, tables_of, write

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
STRICT: list[dict[str, Any]] = [
    {"attack": name, "norm": "Linf", "eps": eps, "settings": {"steps": 100}}
    for eps in (0.1, 0.2)
    for name in ("APGD-CE", "APGD-T")
]


@pytest.fixture
def rng() -> Rng:
    return np.random.default_rng(0)


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


# Read from the text of Tables II, III and IV, not from the file; None is illegible.
@pytest.mark.parametrize(
    ("cell", "value"),
    [
        (("cifar10", "Ensemble1", 3, "nce", "ACE", None), 0.8436),
        (("fashion_mnist", "Ensemble1", 3, "nce", "PGD", 0.1), 0.7694),
        (("cifar10", "Ensemble1", 3, "gal", "PGD", 0.02), 0.2117),
        (("cifar10", "Ensemble2", 4, "gpmr", "BIM", 0.02), 0.3884),
        (("fashion_mnist", "Ensemble2", 5, "gal", "FGSM", 0.3), 0.7448),
        (("cifar10", "Ensemble4", 5, "none", "BIM", 0.02), 0.4279),
        (("cifar10", "Ensemble4", 3, "nce", "BIM", 0.02), None),
    ],
)
def test_cells_of_the_paper(cell: tuple[Any, ...], value: float | None) -> None:
    cells = paper_cells()
    *texts, eps = cell
    found = cells[(cells[["dataset", "structure", "members", "regularizer", "attack"]] == texts).all(axis=1)]
    found = found[found["eps"].isna() if eps is None else found["eps"] == eps]
    assert list(found["value"]) == ([] if value is None else [value])


@pytest.mark.parametrize(
    ("dataset", "image_shape"), [("fashion_mnist", (28, 28, 1)), ("cifar10", (32, 32, 3))]
)
def test_attacks_of_the_paper_are_those_of_the_suite(dataset: str, image_shape: tuple[int, int, int]) -> None:
    cells = paper_cells()
    assert len(cells) == 539
    assert cells["value"].between(0, 1, inclusive="neither").all()
    printed = cells[(cells["dataset"] == dataset) & (cells["attack"] != "ACE")]
    suite = {(attack.name, attack.eps) for attack in load_suite("paper", image_shape).attacks}
    assert set(zip(printed["attack"], printed["eps"], strict=True)) == suite


@pytest.mark.parametrize("regularizer", ["none", "gal", "gpmr", "adp", "nce"])
def test_scale_seed_and_structure_make_no_other_method(regularizer: str) -> None:
    other = {"seed": 7, "epochs": 1, "train_examples": 100, "architecture": SMALL, "checkpoint_every": 3}
    config = TrainConfig.from_flags({"dataset": "cifar10", "regularizer": regularizer} | other)
    assert method_settings(config) == ()


@pytest.mark.parametrize(
    ("regularizer", "name", "value", "departs"),
    [
        ("nce", "lambda_norm", -0.04, True),
        ("gal", "gal_coefficient", 1.0, True),
        ("gpmr", "lambda_eq", 1.0, True),
        ("adp", "adp_alpha", 1.0, True),
        ("none", "adversarial_training", "trades", True),
        ("nce", "nce_form", "released", False),
        ("nce", "batch_size", 128, False),
        ("nce", "deterministic", True, False),
    ],
)
def test_settings_that_make_another_method_than_the_papers(
    regularizer: str, name: str, value: object, departs: bool
) -> None:
    config = TrainConfig.from_flags({"dataset": "cifar10", "regularizer": regularizer, name: value})
    assert method_settings(config) == ((name, str(value).lower()),)
    assert is_departure(name) == departs


def test_labels_leave_to_the_caption_what_all_columns_share() -> None:
    short, balanced, adversarial = (
        ("decay_every", "1"),
        ("lambda_norm", "-0.02"),
        ("adversarial_training", "pgd"),
    )
    columns = [("none", (short,)), ("nce", (short,)), ("nce", (short, balanced))]
    common = common_settings(columns)
    assert common == {short}
    assert [method_label(method, common) for method in columns] == ["BL", "NCEn", "NCEn, lambda_norm -0.02"]
    # What makes another method is named in every column; of an adversary, only that there is one.
    columns = [("nce", (adversarial, ("at_steps", "4"), balanced)), ("nce", (adversarial, ("at_steps", "4")))]
    assert common_settings(columns) == {("at_steps", "4")}
    assert (
        method_label(columns[0], common_settings(columns))
        == "NCEn, adversarial_training pgd, lambda_norm -0.02"
    )
    assert not common_settings([columns[0], ("nce", (adversarial, ("at_steps", "7")))])


def test_columns_are_in_the_papers_order() -> None:
    departing = ("nce", (("lambda_norm", "-0.02"),))
    methods: list[Any] = [departing, *((name, ()) for name in ("nce", "adp", "none", "gpmr", "gal"))]
    frame = pd.DataFrame(methods, columns=["regularizer", "settings"])
    labels = [method_label(method) for method in methods_of(frame)]
    assert labels == ["BL", "GAL", "GPMR", "ADP", "NCEn", "NCEn, lambda_norm -0.02"]


@pytest.mark.parametrize(
    ("n", "runs", "mean", "std", "text"),
    [
        (1, 1, 0.5, float("nan"), "0.5000"),
        (2, 2, 0.6, 0.141421, "0.6000 ± 0.1414"),
        (1, 2, 0.5, float("nan"), "0.5000 (n = 1)"),
        (0, 2, float("nan"), float("nan"), "n/a"),
    ],
)
def test_text_of_a_cell(n: int, runs: int, mean: float, std: float, text: str) -> None:
    assert _text(n, mean, std, runs) == text


def pgd(steps: int) -> list[dict[str, Any]]:
    return [
        {"attack": n, "eps": 0.1, "settings": {"steps": steps, "step_size": 0.01}} for n in ("PGD", "BIM")
    ]


def test_other_attacks_are_another_table(tmp_path: Path, rng: Rng) -> None:
    """Other settings, other attacks beside the same ones, another order, another meaning of the rows."""
    fgsm = {"attack": "FGSM", "eps": 0.1}
    attacked = [
        (pgd(10), False),
        (pgd(100), False),
        ([*pgd(10), fgsm], False),
        (pgd(10)[::-1], False),
        (pgd(10), True),
    ]
    records = [
        record(rng, f"s{seed}", [report(rng, "custom", attacks=attacks, cumulative=cumulative)], seed=seed)
        for seed, (attacks, cumulative) in enumerate(attacked)
    ]
    tables = tables_of(tmp_path, *records)
    assert len(tables["Protocol custom"]) == 2 * len(attacked)
    cells = cells_of(tables)
    assert set(cells.loc[cells["protocol"] == "custom", "attack_settings"]) == {
        "PGD Linf 0.1 (step_size 0.01, steps 10); BIM Linf 0.1 (step_size 0.01, steps 10)",
        "PGD Linf 0.1 (step_size 0.01, steps 100); BIM Linf 0.1 (step_size 0.01, steps 100)",
        "PGD Linf 0.1 (step_size 0.01, steps 10); BIM Linf 0.1 (step_size 0.01, steps 10); FGSM Linf 0.1",
        "BIM Linf 0.1 (step_size 0.01, steps 10); PGD Linf 0.1 (step_size 0.01, steps 10)",
        "cumulative: PGD Linf 0.1 (step_size 0.01, steps 10); BIM Linf 0.1 (step_size 0.01, steps 10)",
    }
    assert set(cells.loc[cells["protocol"] == "", "attack_settings"]) == {""}


def test_rows_that_look_alike_say_how_they_differ(tmp_path: Path, rng: Rng) -> None:
    attacks = [
        {"attack": "PGD", "eps": 0.1, "settings": {"steps": steps, "step_size": size}}
        for steps, size in ((10, 0.1), (20, 0.1), (20, 0.05))
    ]
    attacks += [
        {"attack": "PGD", "norm": norm, "eps": 0.2, "settings": {"steps": 10}} for norm in ("Linf", "L2")
    ]
    (block,) = tables_of(tmp_path, record(rng, "one", [report(rng, attacks=attacks)]))["Protocol paper"][
        0
    ].blocks
    assert [line[1:3] for line in block[1:6]] == [
        ["PGD (step_size 0.1, steps 10)", "0.1"],
        ["PGD (step_size 0.1, steps 20)", "0.1"],
        ["PGD (step_size 0.05, steps 20)", "0.1"],
        ["PGD", "0.2"],
        ["PGD", "0.2 (L2)"],
    ]


def test_the_same_run_twice_is_refused(tmp_path: Path, rng: Rng) -> None:
    write(tmp_path, record(rng, "one"), record(rng, "two", checkpoint_every=7))
    with pytest.raises(InputError, match="'one' and 'two'"):
        read_results(tmp_path)


def test_two_reports_of_the_same_conditions_are_refused(tmp_path: Path, rng: Rng) -> None:
    one = record(rng, "one", [report(rng)])
    write(
        tmp_path, one.model_copy(update={"reports": {"a": one.reports["paper"], "b": one.reports["paper"]}})
    )
    with pytest.raises(InputError, match="'one' has two reports of protocol 'paper'"):
        read_results(tmp_path)


def test_numbers_near_zero_are_written_in_full(tmp_path: Path, rng: Rng) -> None:
    """Only what float32 leaves of members that cancel is zero."""
    test = {
        "gradient_norm": (2e-7, 3e-7, 4e-7),
        "norm_deviation": (-0.04, -0.21, 0.25000001),
        "pairwise_cosine": 0.123456789,
    }
    cells = cells_of(tables_of(tmp_path, record(rng, "one", test=test))).set_index(["measure", "detail"])[
        "mean"
    ]
    assert cells["gradient_norm", "mean"] == pytest.approx(3e-7)
    assert cells["gradient_norm", "range"] == pytest.approx(2e-7)
    assert cells["pairwise_cosine", ""] == 0.123456789
    assert cells["norm_deviation", "mean"] == 0
    assert cells["norm_deviation", "range"] == pytest.approx(0.46000001, rel=1e-12)


def worst(of_report: Report, eps: float) -> float:
    (row,) = (row for row in of_report.worst_case if row.eps == eps)
    assert row.robust_accuracy.value is not None
    return row.robust_accuracy.value


def test_protocols_side_by_side_show_worst_cases_at_the_smallest_eps(tmp_path: Path, rng: Rng) -> None:
    records = {}
    for method, regularizer in {"NCEn": "nce", "BL": "none"}.items():
        for seed in (0, 1):
            reports = [report(rng), report(rng, "strict", attacks=STRICT, examples=200)]
            if method == "BL" and seed == 1:
                reports.pop()
            records[method, seed] = record(
                rng, f"{method}{seed}", reports, seed=seed, regularizer=regularizer
            )
    (comparison,) = tables_of(tmp_path, *records.values())["Protocols side by side"]
    assert comparison.header[3:] == ["paper, eps 0.1, 1,000 images", "strict, eps 0.1, 200 images"]
    lines = {line[1]: line[2:] for line in comparison.blocks[0]}
    assert list(lines) == ["BL", "NCEn"]
    for column, protocol in ((1, "paper"), (2, "strict")):
        values = [worst(records["NCEn", seed].reports[protocol], 0.1) for seed in (0, 1)]
        assert lines["NCEn"][column] == f"{statistics.mean(values):.4f} ± {statistics.stdev(values):.4f}"
    assert lines["BL"][2] == f"{worst(records['BL', 0].reports['strict'], 0.1):.4f} (n = 1)"
    assert "strict, eps 0.1, 200 images" in results_page(read_results(tmp_path))


def test_protocols_side_by_side_keep_images_and_attacks_apart(tmp_path: Path, rng: Rng) -> None:
    """Other numbers of images are columns of their own; attacks at other eps make no difference."""
    alone = [attack for attack in STRICT if attack["eps"] == 0.1]
    (comparison,) = tables_of(
        tmp_path,
        record(rng, "a", [report(rng, examples=100), report(rng, "strict", attacks=STRICT)]),
        record(
            rng, "b", [report(rng, examples=50), report(rng, "strict", attacks=alone)], regularizer="none"
        ),
    )["Protocols side by side"]
    assert comparison.header[3:] == [
        "paper, eps 0.1, 50 images",
        "paper, eps 0.1, 100 images",
        "strict, eps 0.1, 1,000 images",
    ]
    lines = {line[1]: line[3:] for line in comparison.blocks[0]}
    assert lines["NCEn"][0] == lines["BL"][1] == ""
    assert lines["NCEn"][2]
    assert lines["BL"][2]


def test_clean_accuracies_on_other_numbers_of_images_are_tables_of_their_own(
    tmp_path: Path, rng: Rng
) -> None:
    records = [
        record(rng, f"s{n}", [report(rng), report(rng, "strict", attacks=STRICT)], seed=n, test_examples=n)
        for n in (100, 1_000)
    ]
    comparisons = tables_of(tmp_path / "two", *records)["Protocols side by side"]
    assert {c.header[2]: c.blocks[0][0][2] for c in comparisons} == {
        f"clean, {one.run.data.test_examples:,} images": f"{one.run.clean_accuracy:.4f}" for one in records
    }
    one_protocol = record(rng, "a", [report(rng)])
    assert "Protocols side by side" not in tables_of(tmp_path / "one", one_protocol)
