"""What a report holds, and how it is written, read back, printed and shown."""

import base64
import dataclasses
import json
import math
import re
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pandas as pd
import pytest

from ncen_tf.base.errors import InputError
from ncen_tf.report import curve, measured as shares, results
from ncen_tf.report.metrics import aae, clean_accuracy, mean_over_broken, proportion, robust_accuracy
from ncen_tf.report.results import AttackResult, GradientCheck, MaskedGradients, Report
from tests.conftest import ROOT
from tests.report.conftest import CLEAN, IMAGES, LABELS, make_report


@pytest.mark.parametrize("attacks", [1, 3])
def test_accuracies_follow_their_definitions(attacks: int) -> None:
    generator = np.random.default_rng(attacks)
    labels = generator.integers(0, 3, 200).astype(np.int32)
    clean, *adversarial = (
        np.where(generator.random(200) < p, labels, 0).astype(np.int32) for p in (0.9, 0.5, 0.6, 0.7)
    )
    adversarial = adversarial[:attacks]
    right = survived = 0
    for n in range(200):
        if clean[n] == labels[n]:
            right += 1
            if all(predicted[n] == labels[n] for predicted in adversarial):
                survived += 1
    assert clean_accuracy(labels, clean) == proportion(right, 200)
    assert robust_accuracy(labels, clean, adversarial) == proportion(survived, 200)
    assert aae(labels, clean, adversarial) == proportion(survived, right)


def test_an_attack_that_corrects_a_mistake_changes_nothing() -> None:
    labels, clean, adversarial = (np.array(v, np.int32) for v in ([0, 0], [0, 1], [0, 0]))
    assert robust_accuracy(labels, clean, [adversarial]) == proportion(1, 2)
    assert aae(labels, clean, [adversarial]) == proportion(1, 1)


def test_sizes_are_averaged_over_what_broke() -> None:
    labels, clean, adversarial = (np.array(v, np.int32) for v in ([0, 0, 0, 0], [0, 0, 1, 0], [1, 1, 1, 0]))
    sizes = np.array([1, 2, 100, 100], np.float32)
    assert mean_over_broken(labels, clean, adversarial, sizes) == 1.5
    assert mean_over_broken(labels, clean, clean, sizes) is None


@pytest.mark.parametrize(
    ("count", "total"), [(0, 1), (1, 1), (0, 50), (50, 50), (3, 10), (817, 1000), (9999, 10_000)]
)
def test_interval_is_the_wilson_score_interval(count: int, total: int) -> None:
    z, p = 1.959963984540054, count / total
    half = z * math.sqrt(p * (1 - p) / total + z**2 / (4 * total**2))
    ends = [(p + z**2 / (2 * total) + sign * half) / (1 + z**2 / total) for sign in (-1, 1)]
    low, high = proportion(count, total).interval
    assert (low, high) == pytest.approx(ends, abs=1e-12)
    assert 0 <= low <= high <= 1
    assert count or low == 0


def test_a_proportion_of_nothing() -> None:
    assert proportion(0, 0).value is None
    assert proportion(0, 0).interval == (0.0, 1.0)


def test_numbers_are_those_counted_by_hand(report: Report) -> None:
    assert report.clean_accuracy.value == 0.8
    assert [(r.attack, r.eps, r.robust_accuracy.value, r.aae.value) for r in report.attacks] == [
        ("FGSM", 0.1, 0.6, 6 / 8),
        ("PGD", 0.1, 0.5, 5 / 8),
        ("PGD", 0.15, 0.0, 0.0),
        ("DeepFool", 1.0, 0.8, 1.0),
    ]
    assert [(r.attacks, r.norm, r.eps, r.robust_accuracy.value) for r in report.worst_case] == [
        (("DeepFool",), "L2", 1.0, 0.8),
        (("FGSM", "PGD"), "Linf", 0.1, 0.4),
        (("PGD",), "Linf", 0.15, 0.0),
    ]
    fgsm = report.attacks[0]
    assert (fgsm.mean_l2_broken, fgsm.mean_linf_broken) == (5.0, 2.5)  # indices 2 and 3 broke
    assert report.attacks[3].mean_l2_broken is None
    assert [(r.attacked, r.broken, r.gradients) for r in report.attacks] == [
        (10, 2, 20),
        (10, 3, 20),
        (10, 8, 20),
        (10, 0, 20),
    ]
    assert (report.seconds, report.seed, fgsm.settings) == (6.0, 7, {"steps": 2})
    assert report.environment["python"]


def test_rows_of_a_cumulative_suite_say_what_is_left(cumulative: Report) -> None:
    rows = [
        (r.attacked, r.broken, r.robust_accuracy.count, r.aae.count, r.aae.total) for r in cumulative.attacks
    ]
    assert rows == [(8, 3, 5, 5, 8), (5, 1, 4, 4, 8), (8, 8, 0, 0, 8), (0, 0, 0, 0, 8)]
    assert [(r.queries, r.gradients) for r in cumulative.attacks] == [(24, 16), (15, 10), (24, 16), (0, 0)]
    assert [(r.norm, r.robust_accuracy.value) for r in cumulative.worst_case] == [("L2", 0.0), ("Linf", 0.4)]
    assert cumulative.attacks[1].mean_linf_broken == 3.0


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


def test_table_and_page_tell_the_verdict_on_gradients(attacks: list[AttackResult], tmp_path: Path) -> None:
    for passed, says in ((True, "masked gradients: no sign of them"), (False, "zero_gradients: 5.0% <have>")):
        check = GradientCheck(name="zero_gradients", passed=passed, finding="5.0% <have> no gradient")
        verdict = MaskedGradients(clean=passed, examples=8, eps=0.1, checks=(check,))
        report = make_report(attacks, masked_gradients=verdict)
        assert says in str(report)
        report.save(tmp_path)
        page = (tmp_path / "report.html").read_text()
        assert says.replace("<have>", "&lt;have&gt;") in page
        assert ("SUSPECTED" in page) is not passed


def test_a_classifier_that_is_never_right_is_reported(attacks: list[AttackResult], tmp_path: Path) -> None:
    wrong = [dataclasses.replace(attack, predictions=1 - LABELS) for attack in attacks]
    report = results.Report.model_validate(
        make_report(wrong).model_dump() | {"clean_accuracy": proportion(0, 10)}
    )
    nothing = report.attacks[0].model_copy(update={"aae": proportion(0, 0)})
    report = report.model_copy(update={"attacks": (nothing, *report.attacks[1:])})
    assert "n/a" in str(report)
    report.save(tmp_path)


def page_of(report: Report, folder: Path) -> str:
    report.save(folder)
    return (folder / "report.html").read_text()


def test_the_page_needs_nothing_else(report: Report, tmp_path: Path) -> None:
    text = page_of(report, tmp_path)
    assert "http" not in text
    assert not re.search(r"<(link|script|iframe|object)|url\(|@import", text)
    sources = re.findall(r'src="([^"]*)"', text)
    shown = sum(len(images.clean) for images in report._images)
    assert len(sources) == 3 * shown  # clean, adversarial and difference
    assert shown == 3
    for source in sources:
        assert source.startswith("data:image/png;base64,")
        assert base64.b64decode(source.partition(",")[2])[:8] == b"\x89PNG\r\n\x1a\n"
    assert 'src="' not in page_of(Report.read(tmp_path / "report.json"), tmp_path)  # no images in the file


def test_the_plot_holds_the_points_of_attacks_and_curve(attacks: list[AttackResult], tmp_path: Path) -> None:
    distances = np.array([0.05, 0.1, 0.02, 0.2, 0, 0.2, np.inf, 0.4, 0.1, 0])
    report = make_report(attacks[:2])
    found = curve.build_curve(
        distances, (), norm="Linf", dataset="fashion_mnist_sample", seed=7, target=report.target
    )
    text = page_of(report.model_copy(update={"curves": (found,)}), tmp_path)
    (plot,) = re.findall(r"<svg.*?</svg>", text, re.DOTALL)
    ElementTree.fromstring(plot)  # noqa: S314
    (line,) = re.findall(r'<polyline points="([^"]+)"', plot)
    corners = [tuple(map(float, corner.split(","))) for corner in line.split()]
    # 40 to 410 are eps 0 to 0.4; 10 to 210 are shares 1 to 0.
    shares = [0.8, 0.7, 0.6, 0.4, 0.2, 0.1]
    bounds = [0, 0.02, 0.05, 0.1, 0.2, 0.4]
    assert [x for x, _ in corners[::2]] == pytest.approx([40 + 370 * eps / 0.4 for eps in bounds], abs=0.06)
    assert [y for _, y in corners[::2]] == pytest.approx([210 - 200 * share for share in shares])
    assert [b[1] for b in corners[1::2]] == [a[1] for a in corners[::2]][:-1]
    assert "PGD, eps 0.1: 50.00 %" in plot
    spent = curve.CurveAttack(
        attack="FMN", settings={}, attacked=8, found=7, nearest=7, median_distance=0.1, queries=88,
        gradients=80, seconds=3.0,
    )  # fmt: skip
    with_costs = report.model_copy(update={"curves": (found.model_copy(update={"attacks": (spent,)}),)})
    assert re.search(r"^FMN +Linf +every +10$", str(with_costs), re.MULTILINE)
    in_full = str(with_costs.model_copy(update={"cumulative": True}))
    assert re.search(r"^FMN +Linf +every +8 +7 +80 +88 +3$", in_full, re.MULTILINE)
    assert 'cx="132.5" cy="110.0"' in plot


def test_the_page_says_what_the_table_says(report: Report, cumulative: Report, tmp_path: Path) -> None:
    text = page_of(report, tmp_path)
    for expected in (
        "protocol paper",
        "objective member_average",
        "<th>robust accuracy</th>",
        "<th>AAE</th>",
    ):
        assert expected in text
    assert "onnx &lt;exports&gt;/x" in text
    assert "<td>62.50 %</td>" in text
    text = page_of(cumulative, tmp_path)
    shown = sum(len(images.clean) for images in cumulative._images)
    assert text.count('src="data:image/png') == 3 * shown
    assert "Robust accuracy against eps, Linf" in text
    assert "<td>40.00 %</td>" in text


def test_the_page_begins_with_the_worst_case_and_ends_with_the_environment(
    cumulative: Report, tmp_path: Path
) -> None:
    check = GradientCheck(name="zero_gradients", passed=False, finding="5 %")
    masked = MaskedGradients(clean=False, examples=8, eps=0.1, checks=(check,))
    text = page_of(cumulative.model_copy(update={"masked_gradients": masked}), tmp_path)
    expected = (
        "worst case, L2 eps 1",
        "MASKED GRADIENTS SUSPECTED",
        "Robust accuracy against eps",
        "Accuracy of each class",
        "Most easily broken images:",
        "What each attack found and cost",
        "FAILED: zero_gradients",
        "<h2>Environment",
    )
    places = [text.index(each) for each in expected]
    assert places == sorted(places)
    widths = [float(width) for width in re.findall(r'style="width: ([\d.]+)%"', text)]
    shares = [(c.clean_accuracy.value, c.robust_accuracy.value) for c in cumulative.classes]
    assert widths == pytest.approx([100 * (share or 0.0) for pair in shares for share in pair])


def test_the_images_on_the_page_are_those_that_were_attacked(
    cumulative: Report, attacks: list[AttackResult]
) -> None:
    square = cumulative._images[1]
    np.testing.assert_array_equal(square.clean, IMAGES[[3]])
    assert square.classes == [("T-shirt/top", "T-shirt/top", "<Bag>")]
    # Only what the attack broke, by falling ease.
    shown = dataclasses.replace(attacks[1], shown_index=np.array([0, 1, 2]), shown=IMAGES[[0, 1, 2]])
    margins = np.array([0, 0.9, 0.1, *[1] * 7], np.float32)
    found = make_report([shown], margins=margins)._images[0]
    np.testing.assert_array_equal(found.clean, IMAGES[[2, 1]])
    np.testing.assert_array_equal(found.adversarial, IMAGES[[2, 1]])
    # A model of another origin may know more classes than the dataset.
    unknown = make_report([dataclasses.replace(attacks[0], predictions=np.full(10, 11, np.int32))])
    assert unknown._images[0].classes[0][2] == "class 11"


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


def test_the_table_of_images_says_what_each_attack_did(attacks: list[AttackResult], tmp_path: Path) -> None:
    attacked = np.arange(10) % 2 == 0
    again = dataclasses.replace(attacks[1], attacked=attacked)
    make_report([*attacks, again]).save(tmp_path)
    by_format = pd.read_csv(tmp_path / "images.csv"), pd.read_parquet(tmp_path / "images.parquet")
    for frame in by_format:
        assert len(frame) == 10
        for n, (_, row) in enumerate(frame.iterrows()):
            assert (row["index"], row["label"], row["clean_prediction"]) == (n, LABELS[n], CLEAN[n])
            assert row["class"] == ("T-shirt/top", "<Bag>")[LABELS[n]]
            assert row["clean_correct"] == (CLEAN[n] == LABELS[n])
            broke = [a for a in attacks if CLEAN[n] == LABELS[n] and a.predictions[n] != LABELS[n]]
            first = broke[0].settings if broke else None
            name = f"{first['attack']} {first['norm']} {first['eps']:g}" if first else ""
            found = row["first_broken_by"]
            assert ("" if pd.isna(found) else found) == name
            assert row["PGD Linf 0.1 prediction"] == attacks[1].predictions[n]
            assert row["PGD Linf 0.1 l2"] == attacks[1].l2[n]
            assert row["PGD Linf 0.1 (5) attacked"] == attacked[n]
            assert pd.isna(row["PGD Linf 0.1 (5) linf"]) == (not attacked[n])
            assert pd.isna(row["PGD Linf 0.1 (5) prediction"]) == (not attacked[n])
    Report.read(tmp_path / "report.json").save(tmp_path / "read")
    assert not (tmp_path / "read" / "images.csv").exists()


def test_each_class_has_its_worst_case(report: Report, attacks: list[AttackResult]) -> None:
    assert [(c.label, c.name) for c in report.classes] == [(0, "T-shirt/top"), (1, "<Bag>")]
    for found in report.classes:
        those = [n for n in range(10) if LABELS[n] == found.label]
        right = [n for n in those if CLEAN[n] == LABELS[n]]
        left = [n for n in right if all(a.predictions[n] == LABELS[n] for a in attacks)]
        assert found.clean_accuracy == proportion(len(right), len(those))
        assert found.robust_accuracy == proportion(len(left), len(those))
