"""Reports of suites whose attacks meet only what still stands; numbers counted by hand."""

import dataclasses
import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ncen_tf.attack.results import SuiteResult
from ncen_tf.attack.suites import Suite
from ncen_tf.base.errors import InputError
from ncen_tf.report.gate import check_gate, read_gate
from ncen_tf.report.html_page import write_html_page
from ncen_tf.report.report import build_report, read_report, write_report
from ncen_tf.report.table import format_table
from tests.report.conftest import CLEAN, LABELS, MadeUpTarget, attack_result

Report = dict[str, Any]

# 8 of 10 are right when clean: all but 4 and 9. Each entry: who is met, who of them is broken.
COURSE = [
    ("APGD-CE", "Linf", 0.1, {0, 1, 2, 3, 5, 6, 7, 8}, {0, 1, 2}),
    ("Square", "Linf", 0.1, {3, 5, 6, 7, 8}, {3}),
    ("APGD-CE", "L2", 1.0, {0, 1, 2, 3, 5, 6, 7, 8}, {0, 1, 2, 3, 5, 6, 7, 8}),
    ("Square", "L2", 1.0, set(), set()),
]


@pytest.fixture
def cumulative() -> tuple[Report, SuiteResult]:
    attacks = []
    for name, norm, eps, met, broken in COURSE:
        predictions = np.where(np.isin(np.arange(10), list(broken)), 1 - LABELS, CLEAN)
        one = attack_result(name, norm, eps, predictions.astype(np.int32))
        attacked = np.isin(np.arange(10), list(met))
        shown = one.shown[: min(8, len(met))]
        attacks.append(dataclasses.replace(one, attacked=attacked, shown=shown))
    result = SuiteResult(LABELS, CLEAN, attacks, 0)
    suite = Suite("strict", (), objective="ensemble", cumulative=True)
    settings: dict[str, Any] = {"objective": "ensemble", "dataset": "fashion_mnist_sample", "seed": 0}
    return build_report(MadeUpTarget(), suite, result, **settings), result


def test_a_row_says_what_stands_after_it(cumulative: tuple[Report, SuiteResult]) -> None:
    report, _ = cumulative
    rows = [
        (r["attacked"], r["broken"], r["robust_accuracy"]["count"], r["aae"]["count"], r["aae"]["total"])
        for r in report["attacks"]
    ]
    assert rows == [(8, 3, 5, 5, 8), (5, 1, 4, 4, 8), (8, 8, 0, 0, 8), (0, 0, 0, 0, 8)]
    assert [(r["queries"], r["gradients"]) for r in report["attacks"]] == [
        (24, 16),
        (15, 10),
        (24, 16),
        (0, 0),
    ]
    worst = [(r["norm"], r["robust_accuracy"]["value"]) for r in report["worst_case"]]
    assert worst == [("L2", 0.0), ("Linf", 0.4)]
    assert report["attacks"][1]["mean_linf_broken"] == 3.0
    assert report["cumulative"] is True


def test_of_a_suite_that_attacks_everything_rows_stay_independent(report: Report) -> None:
    assert report["cumulative"] is False
    assert [(r["attacked"], r["broken"]) for r in report["attacks"]] == [(10, 2), (10, 3), (10, 8), (10, 0)]
    assert [r["gradients"] for r in report["attacks"]] == [20] * 4


def test_round_trip_and_format(cumulative: tuple[Report, SuiteResult], tmp_path: Path) -> None:
    report, _ = cumulative
    write_report(tmp_path / "report.json", report)
    assert read_report(tmp_path / "report.json") == report
    del report["attacks"][1]["broken"]
    (tmp_path / "report.json").write_text(json.dumps(report))
    with pytest.raises(InputError, match=r"attacks\[1\]\.broken is missing"):
        read_report(tmp_path / "report.json")


def test_the_table_says_that_rows_build_on_each_other(cumulative: tuple[Report, SuiteResult]) -> None:
    text = format_table(cumulative[0])
    (row,) = re.findall(r"^Square +Linf +0\.1 .*$", text, re.MULTILINE)
    cells = re.split(r"  +", row)
    assert cells[:6] == ["Square", "Linf", "0.1", "5", "1", "40.00 %"]
    assert cells[-3:] == ["10", "15", "2"]
    assert "An attack meets only the examples that are right when clean and under the attacks above" in text
    assert len({len(line) for line in text.splitlines() if line.startswith(("APGD-CE", "Square"))}) == 1


def test_a_gate_takes_what_stands(cumulative: tuple[Report, SuiteResult], tmp_path: Path) -> None:
    gate = tmp_path / "gate.toml"
    lines = "[[robust_accuracy]]\nattack = '{}'\neps = 0.1\nminimum = 0.4\n"
    gate.write_text(lines.format("Square") + lines.format("APGD-CE") + lines.format("worst case"))
    assert [check.passed for check in check_gate(read_gate(gate), cumulative[0])] == [True, True, True]
    gate.write_text(lines.format("worst case").replace("0.4", "0.41"))
    assert [check.passed for check in check_gate(read_gate(gate), cumulative[0])] == [False]


def test_the_page_shows_steps_and_who_was_met(cumulative: tuple[Report, SuiteResult], tmp_path: Path) -> None:
    report, result = cumulative
    images = np.linspace(0, 1, 160, dtype=np.float32).reshape(10, 4, 4, 1)
    write_html_page(tmp_path / "report.html", report, result, images, ("Bag", "Boot"))
    text = (tmp_path / "report.html").read_text()
    assert text.count('src="data:image/png') == 2 + 3  # a plot for each norm, examples where any were met
    assert "What still stands, Linf" in text
    assert "<td>40.00 %</td>" in text
