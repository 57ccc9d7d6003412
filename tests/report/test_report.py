"""A report written, read back and printed, and what its documentation names."""

import dataclasses
import json
import re
from pathlib import Path
from typing import Any

import pytest

from ncen_tf.base.errors import InputError
from ncen_tf.report import curve, measured as shares, results
from ncen_tf.report.metrics import proportion
from ncen_tf.report.results import AttackResult, Report
from tests.conftest import ROOT
from tests.report.conftest import LABELS, make_report


@pytest.mark.parametrize("name", ["report", "cumulative"])
def test_round_trip(name: str, request: pytest.FixtureRequest, tmp_path: Path) -> None:
    report: Report = request.getfixturevalue(name)
    report.save(tmp_path / "new")
    assert Report.read(tmp_path / "new" / "report.json") == report
    assert sorted(file.name for file in (tmp_path / "new").iterdir()) == [
        "images.csv",
        "images.parquet",
        "report.html",
        "report.json",
    ]
    assert Report.read(tmp_path / "new" / "report.json") != report.model_copy(update={"seed": 8})


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda r: r.update(format=2), "`format` must be 3, got 2"),
        (lambda r: r.pop("protocol"), "`protocol` is missing"),
        (lambda r: r.update(examples="ten"), "`examples` must be a valid integer"),
        (lambda r: r["target"].pop("sha256"), r"`target\.sha256` is missing"),
        (lambda r: r["attacks"][1].pop("eps"), r"`attacks\.1\.eps` is missing"),
        (lambda r: r.update(attacks=[3]), r"`attacks\.0` must be an object"),
    ],
)
def test_a_wrong_report_is_refused(change: Any, says: str, report: Report, tmp_path: Path) -> None:
    content = json.loads(report.model_dump_json())
    change(content)
    file = tmp_path / "report.json"
    file.write_text(json.dumps(content))
    with pytest.raises(InputError, match=says) as refused:
        Report.read(file)
    assert str(file) in str(refused.value)
    file.write_text("{")
    with pytest.raises(InputError, match=r"report\.json"):
        Report.read(file)
    with pytest.raises(InputError, match=r"none\.json cannot be read"):
        Report.read(tmp_path / "none.json")


def test_the_table_names_what_it_shows(report: Report) -> None:
    text = str(report)
    for expected in ("protocol paper", "objective member_average", "10 examples", "robust accuracy", "AAE"):
        assert expected in text
    (pgd,) = re.findall(r"^PGD +Linf +0\.1 .*$", text, re.MULTILINE)
    assert re.split(r"  +", pgd) == [
        "PGD", "Linf", "0.1", "50.00 %", "[23.66, 76.34]", "62.50 %", "[30.57, 86.32]", "2",
    ]  # fmt: skip
    assert len(re.findall(r"^worst case +Linf", text, re.MULTILINE)) == 1  # groups of one add nothing
    assert "40.00 %" in text
    assert "masked gradients" not in text


def test_the_table_of_a_cumulative_suite_counts_what_was_attacked(cumulative: Report) -> None:
    text = str(cumulative)
    (row,) = re.findall(r"^Square +Linf +0\.1 .*$", text, re.MULTILINE)
    cells = re.split(r"  +", row)
    assert cells[:6] == ["Square", "Linf", "0.1", "5", "1", "40.00 %"]
    assert cells[-3:] == ["10", "15", "2"]
    assert "only on the examples that are still classified correctly" in text
    assert len({len(line) for line in text.splitlines() if line.startswith(("APGD-CE", "Square"))}) == 1


def test_a_classifier_that_is_never_right_is_reported(attacks: list[AttackResult], tmp_path: Path) -> None:
    wrong = [dataclasses.replace(attack, predictions=1 - LABELS) for attack in attacks]
    report = results.Report.model_validate(
        make_report(wrong).model_dump() | {"clean_accuracy": proportion(0, 10)}
    )
    nothing = report.attacks[0].model_copy(update={"aae": proportion(0, 0)})
    report = report.model_copy(update={"attacks": (nothing, *report.attacks[1:])})
    assert "n/a" in str(report)
    report.save(tmp_path)


def test_the_documentation_names_every_field() -> None:
    text = (ROOT / "docs" / "report.md").read_text()
    for name in (
        "Report",
        "TargetInfo",
        "Signature",
        "Proportion",
        "AttackRow",
        "WorstCase",
        "ClassAccuracy",
        "MaskedGradients",
        "GradientCheck",
        "RecordedAccuracy",
        "RobustnessCurve",
        "CurvePoint",
        "CurveAttack",
    ):
        section = text.split(f"`{name}`\n")[1].split("\n## ")[0]
        assert re.findall(r"^\| `(\w+)` \|", section, re.MULTILINE) == list(
            (vars(results) | vars(curve) | vars(shares))[name].model_fields
        )


@pytest.mark.parametrize(
    "file", ["exports/reference.strict.json", *(ROOT / "docs/results/robust").glob("*.json")]
)
def test_stored_reports_are_read_and_consistent(file: Path) -> None:
    report = Report.read(ROOT / file)
    stored = json.loads((ROOT / file).read_text())
    stored["target"].setdefault("signatures", [])  # which reports had none of at first
    for added in ("classes", "curves"):
        stored.setdefault(added, [])
    assert json.loads(report.model_dump_json()) == stored
    rows: list[results.AttackRow | results.WorstCase] = [*report.attacks, *report.worst_case]
    for row in rows:
        for measured in (row.robust_accuracy, row.aae, report.clean_accuracy):
            assert proportion(measured.count, measured.total).value == measured.value
            assert proportion(measured.count, measured.total).interval == pytest.approx(
                measured.interval, abs=1e-12
            )
        assert row.aae.total == report.clean_accuracy.count
