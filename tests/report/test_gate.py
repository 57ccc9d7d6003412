"""Gates: passed, missed, refused; and their JUnit file."""

from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest

from ncen_tf.base.errors import InputError
from ncen_tf.report.gate import Gate, GateCheck, GateResult, Threshold
from ncen_tf.report.results import AttackResult, GradientCheck, MaskedGradients, RecordedAccuracy, Report
from tests.report.conftest import CLEAN, make_report, outcome

GATE = """
clean_accuracy = 0.75
agreement = 0.01

[[robust_accuracy]]
attack = "PGD"
eps = 0.1
minimum = {minimum}

[[robust_accuracy]]
attack = "worst case"
eps = 0.1
minimum = 0.4
"""


def check(content: str, report: Report, folder: Path) -> GateResult:
    file = folder / "gate.toml"
    file.write_text(content)
    return report.check(file)


def recorded(report: Report, value: float, examples: int = 10) -> Report:
    return report.model_copy(update={"recorded": RecordedAccuracy(value=value, examples=examples)})


def test_a_gate_is_passed_up_to_its_threshold(report: Report, cumulative: Report, tmp_path: Path) -> None:
    result = check(GATE.format(minimum=0.5), report, tmp_path)
    assert (result.passed, len(result.checks)) == (True, 4)
    assert str(result) == "gate passed: 4 of 4 thresholds are reached."
    assert (
        report.check(Gate.read(tmp_path / "gate.toml")) == report.check(str(tmp_path / "gate.toml")) == result
    )
    lines = "[[robust_accuracy]]\nattack = '{}'\neps = 0.1\nminimum = {}\n"
    content = "".join(lines.format(name, 0.4) for name in ("Square", "APGD-CE", "worst case"))
    assert check(content, cumulative, tmp_path).passed
    assert not check(lines.format("worst case", 0.41), cumulative, tmp_path).passed


def test_each_miss_is_named(report: Report, tmp_path: Path) -> None:
    result = check(GATE.format(minimum=0.51), recorded(report, 0.85), tmp_path)
    assert not result.passed
    missed = [c for c in result.checks if not c.passed]
    assert [c.name for c in missed] == [
        "agreement with the recorded accuracy",
        "robust accuracy, PGD, eps 0.1",
    ]
    assert missed[0].message.endswith("differ by 0.0500, at most 0.0100 is allowed")
    assert str(result).splitlines()[1] == (
        "gate missed: robust accuracy, PGD, eps 0.1: 0.5000, at least 0.5100 is required"
    )
    assert not check("clean_accuracy = 0.81", report, tmp_path).passed


def test_agreement_is_reached_by_a_difference_that_only_rounding_lifts_above_it(
    report: Report, tmp_path: Path
) -> None:
    for value in (0.79, 0.81):  # |0.8 - 0.81| is above 0.01 in floating point
        assert check("agreement = 0.01", recorded(report, value), tmp_path).passed
    assert not check("agreement = 0.01", recorded(report, 0.8101), tmp_path).passed


def test_agreement_needs_an_accuracy_of_the_same_images(report: Report, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"gate\.toml: `agreement` needs a target with a recorded"):
        check("agreement = 0.01", report.model_copy(update={"recorded": None}), tmp_path)
    with pytest.raises(InputError, match="of 10000 images and the report's of 10"):
        check("agreement = 0.01", recorded(report, 0.8, 10_000), tmp_path)
    gate = Gate.read(tmp_path / "gate.toml")
    with pytest.raises(InputError, match="of 10000 images and the report's of 50"):
        gate.require_measured([], 50, RecordedAccuracy(value=0.8, examples=10_000), gradients_checked=False)


def test_the_strongest_settings_of_an_attack_count(attacks: list[AttackResult], tmp_path: Path) -> None:
    weaker = outcome("PGD", "Linf", 0.1, CLEAN)
    for order in ([*attacks, weaker], [weaker, *attacks]):
        assert not check(GATE.format(minimum=0.51), make_report(order), tmp_path).checks[2].passed


@pytest.mark.parametrize("threshold", ["Transfer-members", "worst case"])
def test_an_attack_that_did_nothing_passes_no_gate(
    threshold: str, attacks: list[AttackResult], tmp_path: Path
) -> None:
    idle = outcome("Transfer-members", "Linf", 0.2, CLEAN, queries_per_image=0.0, gradients_per_image=0.0)
    content = f"[[robust_accuracy]]\nattack = '{threshold}'\neps = 0.2\nminimum = 0.1\n"
    with pytest.raises(InputError, match="no query and no gradient was made"):
        check(content, make_report([*attacks, idle]), tmp_path)
    nothing_left = outcome(
        "Transfer-members", "Linf", 0.2, CLEAN, attacked=np.zeros(10, bool), queries_per_image=0.0
    )
    assert check(content, make_report([*attacks, nothing_left]), tmp_path).passed
    worked = outcome("PGD", "Linf", 0.2, CLEAN)
    if threshold == "worst case":
        assert check(content, make_report([*attacks, idle, worked]), tmp_path).passed


@pytest.mark.parametrize("eps", [0.0314, 0.03137, 8 / 255])
def test_a_radius_without_a_short_decimal_is_written_to_three_digits(eps: float, tmp_path: Path) -> None:
    report = make_report([outcome("PGD", "Linf", 8 / 255, CLEAN)])
    gate = f"[[robust_accuracy]]\nattack='PGD'\neps={eps}\nminimum=0.5"
    assert check(gate, report, tmp_path).passed
    with pytest.raises(InputError, match=r"the report has only eps 0\.0313725"):
        check(gate.replace(f"{eps}", "0.031"), report, tmp_path)


@pytest.mark.parametrize("numerator", range(1, 33))
def test_three_digits_are_enough_for_every_radius(numerator: int) -> None:
    written = Threshold(attack="PGD", eps=float(f"{numerator / 255:.3g}"), minimum=0.5)
    assert [n for n in range(1, 33) if written.is_at(n / 255)] == [numerator]


def test_clean_gradients_are_demanded(attacks: list[AttackResult], report: Report, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="`clean_gradients` needs a report made with `check_gradients`"):
        check("clean_gradients = true", report, tmp_path)
    for passed, message in ((True, "no sign of them"), (False, "zero_gradients")):
        found = GradientCheck(name="zero_gradients", passed=passed, finding="...")
        verdict = MaskedGradients(clean=passed, examples=8, eps=0.1, checks=(found,))
        result = check("clean_gradients = true", make_report(attacks, masked_gradients=verdict), tmp_path)
        assert (result.passed, result.checks[0].message) == (passed, f"masked gradients: {message}")


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ("clean = ", "cannot be read"),
        ("", "would pass everything"),
        ("robust_accuracy = []", "would pass everything"),
        ("clean_gradients = false", "would pass everything"),
        ("clean_gradients = 1", "`clean_gradients` must be a valid boolean, got 1"),
        ("clean_acuracy = 0.9", "`clean_acuracy` is not a setting"),
        ("clean_accuracy = '0.9'", "`clean_accuracy` must be a valid number, got '0.9'"),
        ("clean_accuracy = true", "`clean_accuracy` must be a valid number, got True"),
        ("clean_accuracy = 92.0", "`clean_accuracy` must be less than or equal to 1, got 92.0"),
        ("clean_accuracy = 1979-05-27", "`clean_accuracy` must be a valid number"),
        ("agreement = -0.1", "`agreement` must be greater than or equal to 0"),
        ("clean_accuracy = nan", "`clean_accuracy` must be a finite number"),
        ("[robust_accuracy]\neps = 1", "`robust_accuracy` must be a valid"),
        ("[[robust_accuracy]]\nattack='PGD'\neps=0.1", r"`robust_accuracy\.0\.minimum` is missing"),
        ("[[robust_accuracy]]\nattack='PDG'\neps=0.1\nminimum=0.1", "nothing is measured for 'PDG'"),
        (
            "[[robust_accuracy]]\nattack='PGD'\neps=0\nminimum=0.1",
            r"`robust_accuracy\.0\.eps` must be greater",
        ),
        (
            "[[robust_accuracy]]\nattack='PGD'\neps=1\nminimum=0\nmin=1",
            r"`robust_accuracy\.0\.min` is not a s",
        ),
        ("[[robust_accuracy]]\nattack='PGD'\neps=0.2\nminimum=0.1", r"the report has only eps 0\.1, 0\.15"),
        ("[[robust_accuracy]]\nattack='CW'\neps=1\nminimum=0.1", "the report has no such attack"),
    ],
)
def test_a_wrong_gate_names_file_and_key(content: str, says: str, report: Report, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=says) as refused:
        check(content, report, tmp_path)
    assert "gate.toml" in str(refused.value)


def test_a_missing_gate_file_is_named(report: Report, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"none\.toml cannot be read"):
        report.check(tmp_path / "none.toml")


def test_junit(tmp_path: Path) -> None:
    file = tmp_path / "gate.xml"
    pairs: list[tuple[str, Any, str]] = [("a", True, "a: fine"), ("b <&>", False, 'b: 0.1, "not" 0.2')]
    checks = tuple(GateCheck(name=name, passed=passed, message=message) for name, passed, message in pairs)
    GateResult(checks=checks).write_junit(file)
    root = ElementTree.parse(file).getroot()  # noqa: S314 - written above
    (suite,) = root
    assert root.tag == "testsuites"
    assert (suite.get("tests"), suite.get("failures")) == ("2", "1")
    passed, failed = suite
    assert (passed.get("name"), len(passed)) == ("a", 0)
    assert failed.get("name") == "b <&>"
    assert failed[0].tag == "failure"
    assert failed[0].get("message") == 'b: 0.1, "not" 0.2'
