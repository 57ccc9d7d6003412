"""The page of a report: what it shows, in which order, and that it needs nothing else."""

import base64
import dataclasses
import re
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest

from ncen_tf.report import curve
from ncen_tf.report.results import AttackResult, GradientCheck, MaskedGradients, Report
from tests.report.conftest import IMAGES, make_report


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
