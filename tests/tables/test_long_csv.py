"""The CSV against the tables that it is written from."""

import csv
import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ncen_tf.tables.experiments import read_experiments
from ncen_tf.tables.long_csv import to_csv
from ncen_tf.tables.page import sections
from ncen_tf.tables.table import Table
from tests.tables.records import ENSEMBLE1, all_tables, report, run, write


def pgd(steps: int) -> list[dict[str, Any]]:
    names = ("PGD", "BIM")
    return [{"attack": name, "eps": 0.1, "settings": {"steps": steps, "step_size": 0.01}} for name in names]


# Of one protocol: other settings, other attacks beside the same ones, another order, another meaning of rows.
ATTACKED: list[tuple[list[dict[str, Any]], bool]] = [
    (pgd(10), False),
    (pgd(100), False),
    ([*pgd(10), {"attack": "FGSM", "eps": 0.1, "settings": {}}], False),
    (pgd(10)[::-1], False),
    (pgd(10), True),
]


@pytest.fixture(scope="module")
def tables(tmp_path_factory: pytest.TempPathFactory) -> list[Table]:
    """Two structures and methods, and a protocol that each seed was attacked under in its own way."""
    rng = np.random.default_rng(4)
    folder = tmp_path_factory.mktemp("records")
    cells: dict[str, dict[str, Any]] = {
        "none": {"regularizer": "none"},
        "balanced": {"lambda_norm": -0.02},
        "deep": {"architecture": ("resnet32",) * 3},
        **{f"nce-s{seed}": {"seed": seed} for seed in range(len(ATTACKED))},
    }
    for name, settings in cells.items():
        attacks, cumulative = ATTACKED[settings.get("seed", 0)]
        own = report(rng, "custom (mine.toml)", attacks=attacks) | {"cumulative": cumulative}
        write(folder, name, run(rng, **settings), [report(rng), report(rng, "strict"), own])
    return all_tables(folder)


@pytest.fixture
def lines(tables: list[Table]) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(to_csv(tables))))


def test_csv_says_what_the_table_shows(tables: list[Table], lines: list[dict[str, str]]) -> None:
    shown = [
        (row.number_format, cell)
        for table in tables
        for block in table.blocks
        for row, cells in block.lines
        for cell in cells
        if cell is not None
    ]
    assert len(lines) == len(shown)
    for line, (number_format, cell) in zip(lines, shown, strict=True):
        deviation = f" ± {float(line['std']):{number_format}}" if line["std"] else ""
        assert f"{float(line['mean']):{number_format}}{deviation}" == cell.text(number_format)
    assert len(ENSEMBLE1) == int(lines[0]["members"])


def test_no_two_lines_of_one_cell(lines: list[dict[str, str]]) -> None:
    keys = [tuple(line[name] for name in list(line)[:-6]) for line in lines]
    assert len(set(keys)) == len(keys)


def test_attacks_are_named_with_their_settings(lines: list[dict[str, str]]) -> None:
    settings = {line["attack_settings"] for line in lines if line["protocol"].startswith("custom")}
    assert settings == {
        "PGD Linf 0.1 (step_size 0.01, steps 10); BIM Linf 0.1 (step_size 0.01, steps 10)",
        "PGD Linf 0.1 (step_size 0.01, steps 100); BIM Linf 0.1 (step_size 0.01, steps 100)",
        "PGD Linf 0.1 (step_size 0.01, steps 10); BIM Linf 0.1 (step_size 0.01, steps 10); FGSM Linf 0.1",
        "BIM Linf 0.1 (step_size 0.01, steps 10); PGD Linf 0.1 (step_size 0.01, steps 10)",
        "cumulative: PGD Linf 0.1 (step_size 0.01, steps 10); BIM Linf 0.1 (step_size 0.01, steps 10)",
    }
    assert {line["attack_settings"] for line in lines if not line["protocol"]} == {""}


def test_numbers_near_zero_are_written_in_full(tmp_path: Path) -> None:
    """Only what float32 leaves of members that cancel is zero."""
    rng = np.random.default_rng(0)
    of_run = run(rng)
    of_run["test"] |= {
        "gradient_norm": [2e-7, 3e-7, 4e-7],
        "norm_deviation": [-0.04, -0.21, 0.25000001],
        "pairwise_cosine": 0.123456789,
    }
    write(tmp_path, "one", of_run)
    text = to_csv(sections(read_experiments(tmp_path))["Gradients on clean images"])
    means = {
        (line["measure"], line["detail"]): float(line["mean"]) for line in csv.DictReader(io.StringIO(text))
    }
    assert means["gradient_norm", "mean"] == pytest.approx(3e-7)
    assert means["gradient_norm", "range"] == pytest.approx(2e-7)
    assert means["pairwise_cosine", ""] == 0.123456789
    assert means["norm_deviation", "mean"] == 0
    assert means["norm_deviation", "range"] == pytest.approx(0.46000001, rel=1e-12)
