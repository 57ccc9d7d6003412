"""What a report holds, and how it is written, read back, printed and shown."""

import base64
import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ncen_tf.attack.results import SuiteResult
from ncen_tf.base.errors import InputError
from ncen_tf.report.html_page import write_html_page
from ncen_tf.report.report import read_report, write_report
from ncen_tf.report.table import format_table

Report = dict[str, Any]


def test_numbers_are_those_counted_by_hand(report: Report) -> None:
    assert report["ace"]["value"] == 0.8
    robust = [
        (r["attack"], r["eps"], r["robust_accuracy"]["value"], r["aae"]["value"]) for r in report["attacks"]
    ]
    assert robust == [
        ("FGSM", 0.1, 0.6, 6 / 8),
        ("PGD", 0.1, 0.5, 5 / 8),
        ("PGD", 0.15, 0.0, 0.0),
        ("DeepFool", 1.0, 0.8, 1.0),
    ]
    worst = [(r["attacks"], r["norm"], r["eps"], r["robust_accuracy"]["value"]) for r in report["worst_case"]]
    assert worst == [
        (["DeepFool"], "L2", 1.0, 0.8),
        (["FGSM", "PGD"], "Linf", 0.1, 0.4),
        (["PGD"], "Linf", 0.15, 0.0),
    ]
    fgsm = report["attacks"][0]
    assert (fgsm["mean_l2_broken"], fgsm["mean_linf_broken"]) == (5.0, 2.5)  # indices 2 and 3 broke
    assert report["attacks"][3]["mean_l2_broken"] is None
    assert report["seconds"] == 6.0
    assert (report["protocol"], report["objective"], report["seed"]) == ("paper", "member_average", 7)
    assert report["target"]["providers"] == ["CPUExecutionProvider"]
    assert report["environment"]["tensorflow"]


def test_round_trip(report: Report, tmp_path: Path) -> None:
    write_report(tmp_path / "report.json", report)
    assert read_report(tmp_path / "report.json") == report
    assert [file.name for file in tmp_path.iterdir()] == ["report.json"]
    assert "NaN" not in (tmp_path / "report.json").read_text()


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda r: r.update(format=1), "no attack report of format 2"),
        (lambda r: r.pop("protocol"), "protocol is missing"),
        (lambda r: r.update(examples="10"), "examples has the wrong type, str"),
        (lambda r: r["target"].pop("sha256"), r"target\.sha256 is missing"),
        (lambda r: r["attacks"][1].pop("eps"), r"attacks\[1\]\.eps is missing"),
        (lambda r: r["attacks"][1]["aae"].pop("interval"), r"attacks\[1\]\.aae\.interval is missing"),
        (lambda r: r.update(attacks=[3]), r"attacks\[0\] is not a table"),
    ],
)
def test_a_wrong_report_is_refused(change: Any, says: str, report: Report, tmp_path: Path) -> None:
    change(report)
    file = tmp_path / "report.json"
    file.write_text(json.dumps(report))
    with pytest.raises(InputError, match=says):
        read_report(file)


def test_no_report_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "report.json"
    with pytest.raises(InputError, match="cannot be read"):
        read_report(file)
    for content in ("{", "[]", "{}"):
        file.write_text(content)
        with pytest.raises(InputError, match=str(file)):
            read_report(file)


def test_the_table_names_what_it_shows(report: Report) -> None:
    text = format_table(report)
    for expected in ("protocol paper", "objective member_average", "10 examples", "robust accuracy", "AAE"):
        assert expected in text
    (pgd,) = re.findall(r"^PGD +Linf +0\.1 .*$", text, re.MULTILINE)
    assert re.split(r"  +", pgd) == [
        "PGD", "Linf", "0.1", "50.00 %", "[23.66, 76.34]", "62.50 %", "[30.57, 86.32]", "2",
    ]  # fmt: skip
    assert len(re.findall(r"^worst case +Linf", text, re.MULTILINE)) == 1  # groups of one add nothing
    assert "40.00 %" in text


def test_the_table_survives_a_classifier_that_is_never_right(report: Report) -> None:
    report["attacks"][0]["aae"] = {"value": None, "count": 0, "total": 0, "interval": [0.0, 1.0]}
    assert "n/a" in format_table(report)


def page(report: Report, result: SuiteResult, file: Path) -> str:
    images = np.linspace(0, 1, 160, dtype=np.float32).reshape(10, 4, 4, 1)
    write_html_page(file, report, result, images, ("T-shirt/top", "<Bag>"))
    return file.read_text()


def test_the_page_needs_nothing_else(report: Report, result: SuiteResult, tmp_path: Path) -> None:
    text = page(report, result, tmp_path / "report.html")
    assert "http" not in text
    assert not re.search(r"<(link|script|iframe|object)|url\(|@import", text)
    sources = re.findall(r'src="([^"]*)"', text)
    assert len(sources) == 2 + 4  # a curve for each norm, examples of each attack
    for source in sources:
        assert source.startswith("data:image/png;base64,")
        assert base64.b64decode(source.partition(",")[2])[:8] == b"\x89PNG\r\n\x1a\n"


def test_the_page_shows_a_class_that_the_dataset_has_not(
    report: Report, result: SuiteResult, tmp_path: Path
) -> None:
    """A model of another origin may know more classes."""
    result.attacks[0].predictions[:] = 11
    assert "</html>" in page(report, result, tmp_path / "report.html")


def test_the_page_says_what_the_table_says(report: Report, result: SuiteResult, tmp_path: Path) -> None:
    text = page(report, result, tmp_path / "report.html")
    for expected in (
        "protocol paper",
        "objective member_average",
        "<th>robust accuracy</th>",
        "<th>AAE</th>",
    ):
        assert expected in text
    assert "onnx &lt;exports&gt;/x" in text
    assert "<td>62.50 %</td>" in text
