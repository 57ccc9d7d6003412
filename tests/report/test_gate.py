"""Gates: passed, missed, mistyped; and their JUnit file."""

from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

from ncen_tf.base.errors import InputError
from ncen_tf.report.gate import Check, Threshold, check_gate, read_gate
from ncen_tf.report.junit import write_junit

Report = dict[str, Any]

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


def checks(content: str, report: Report, folder: Path, recorded_ace: float | None = 0.8) -> list[Check]:
    file = folder / "gate.toml"
    file.write_text(content)
    return check_gate(read_gate(file), report, recorded_ace)


def test_a_gate_is_passed_up_to_its_threshold(report: Report, tmp_path: Path) -> None:
    passed = checks(GATE.format(minimum=0.5), report, tmp_path)
    assert len(passed) == 4
    assert all(check.passed for check in passed)


def test_each_miss_is_named(report: Report, tmp_path: Path) -> None:
    missed = [c for c in checks(GATE.format(minimum=0.51), report, tmp_path, 0.85) if not c.passed]
    assert [check.name for check in missed] == [
        "agreement with recorded ACE",
        "robust accuracy, PGD, eps 0.1",
    ]
    assert missed[0].message.endswith("differ by 0.0500, at most 0.0100 is allowed")
    assert missed[1].message == "robust accuracy, PGD, eps 0.1: 0.5000, at least 0.5100 is required"
    assert not checks("clean_accuracy = 0.81", report, tmp_path)[0].passed


def test_agreement_is_reached_by_a_difference_that_only_rounding_lifts_above_it(
    report: Report, tmp_path: Path
) -> None:
    for recorded in (0.79, 0.81):  # |0.8 - 0.81| is above 0.01 in floating point
        assert checks("agreement = 0.01", report, tmp_path, recorded)[0].passed
    assert not checks("agreement = 0.01", report, tmp_path, 0.8101)[0].passed


def test_the_strongest_settings_of_an_attack_count(report: Report, tmp_path: Path) -> None:
    weaker = report["attacks"][1] | {"robust_accuracy": {"value": 0.9}}
    report["attacks"].append(weaker)
    assert checks(GATE.format(minimum=0.51), report, tmp_path)[2].passed is False


@pytest.mark.parametrize("eps", [0.0314, 0.03137, 8 / 255])
def test_a_radius_without_a_short_decimal_is_written_to_three_digits(
    eps: float, report: Report, tmp_path: Path
) -> None:
    report["attacks"][1]["eps"] = 8 / 255
    gate = f"[[robust_accuracy]]\nattack='PGD'\neps={eps}\nminimum=0.5"
    assert [check.passed for check in checks(gate, report, tmp_path)] == [True]
    with pytest.raises(InputError, match=r"the report has only eps 0\.0313725"):
        checks(gate.replace(f"{eps}", "0.031"), report, tmp_path)


@pytest.mark.parametrize("numerator", range(1, 33))
def test_three_digits_are_enough_for_every_radius(numerator: int) -> None:
    written = Threshold("PGD", float(f"{numerator / 255:.3g}"), 0.5)
    assert [n for n in range(1, 33) if written.is_at(n / 255)] == [numerator]


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ("clean = ", "cannot be read"),
        ("", "would pass everything"),
        ("robust_accuracy = []", "would pass everything"),
        ("clean_gradients = false", "would pass everything"),
        ("clean_acuracy = 0.9", "unknown key 'clean_acuracy'"),
        ("clean_accuracy = '0.9'", "clean_accuracy is a number; got '0.9'"),
        ("clean_accuracy = true", "clean_accuracy is a number; got True"),
        ("clean_accuracy = 92.0", r"clean_accuracy is in \[0, 1\]; got 92"),
        ("agreement = -0.1", r"agreement is in \[0, 1\]"),
        ("clean_accuracy = nan", r"clean_accuracy is in \[0, 1\]; got nan"),
        ("[robust_accuracy]\neps = 1", r"written as \[\[robust_accuracy\]\] tables"),
        ("[[robust_accuracy]]\nattack='PGD'\neps=0.1", "robust_accuracy 1: minimum is missing"),
        ("[[robust_accuracy]]\nattack='PDG'\neps=0.1\nminimum=0.1", "attack is one of FGSM.*got 'PDG'"),
        ("[[robust_accuracy]]\nattack='PGD'\neps=0\nminimum=0.1", "robust_accuracy 1: eps is above 0"),
        ("[[robust_accuracy]]\nattack='PGD'\neps=0.1\nmin=0.1", "robust_accuracy 1: unknown key 'min'"),
        (
            "[[robust_accuracy]]\nattack='PGD'\neps=0.2\nminimum=0.1",
            "PGD at eps 0.2; the report has only eps",
        ),
        ("[[robust_accuracy]]\nattack='CW'\neps=1\nminimum=0.1", "the report has no such attack"),
    ],
)
def test_a_wrong_gate_names_file_and_key(content: str, says: str, report: Report, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=says) as refused:
        checks(content, report, tmp_path)
    assert "gate.toml" in str(refused.value)


def test_agreement_needs_a_recorded_ace(report: Report, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="agreement needs a target with a recorded ACE"):
        checks("agreement = 0.01", report, tmp_path, recorded_ace=None)


def test_a_missing_gate_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"none\.toml cannot be read"):
        read_gate(tmp_path / "none.toml")


def test_junit(tmp_path: Path) -> None:
    file = tmp_path / "gate.xml"
    write_junit(file, [Check("a", True, "a: fine"), Check("b <&>", False, 'b: 0.1, "not" 0.2')])
    root = ElementTree.parse(file).getroot()  # noqa: S314 - written above
    (suite,) = root
    assert root.tag == "testsuites"
    assert (suite.get("tests"), suite.get("failures")) == ("2", "1")
    passed, failed = suite
    assert (passed.get("name"), len(passed)) == ("a", 0)
    assert failed.get("name") == "b <&>"
    assert failed[0].tag == "failure"
    assert failed[0].get("message") == 'b: 0.1, "not" 0.2'
