"""Thresholds that a report must reach; ``docs/gate.md`` is the reference of the file."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Self
from xml.etree import ElementTree

from pydantic import Field, PrivateAttr, model_validator

from ncen_tf.base.errors import InputError
from ncen_tf.base.files import replacing
from ncen_tf.base.settings import Settings

if TYPE_CHECKING:
    from ncen_tf.report.results import RecordedAccuracy, Report

Share = Annotated[float, Field(ge=0, le=1)]

WORST_CASE = "worst case"


class Threshold(Settings):
    """Least robust accuracy under an attack at a radius."""

    attack: str = Field(description="Name of the attack as in reports, or 'worst case'")
    eps: float = Field(gt=0, description="Perturbation bound; images are in [0, 1]")
    minimum: Share = Field(description="Least robust accuracy over all examples")

    def is_at(self, eps: float) -> bool:
        """Tell whether this is the radius, to three digits: 8/255 has no short decimal."""
        return f"{eps:.3g}" == f"{self.eps:.3g}" or math.isclose(eps, self.eps, rel_tol=1e-3)

    def concerns(self, attack: str, eps: float) -> bool:
        """Tell whether the result of an attack at a radius counts."""
        return self.attack in (attack, WORST_CASE) and self.is_at(eps)


class GateCheck(Settings):
    """One comparison of a gate."""

    name: str
    passed: bool
    message: str
    """What was measured and what was asked for."""


class GateResult(Settings):
    """Outcome of a gate: a check for each threshold."""

    checks: tuple[GateCheck, ...]

    @property
    def passed(self) -> bool:
        """Whether every threshold is reached."""
        return all(check.passed for check in self.checks)

    def __str__(self) -> str:
        if self.passed:
            return f"gate passed: {len(self.checks)} of {len(self.checks)} thresholds are reached."
        return "\n".join(f"gate missed: {check.message}" for check in self.checks if not check.passed)

    def write_junit(self, file: Path | str) -> None:
        """Write the checks as JUnit XML, which CI servers show; a missed threshold is a failure."""
        failures = str(sum(not check.passed for check in self.checks))
        counts = {"name": "ncen_tf.gate", "tests": str(len(self.checks)), "failures": failures, "errors": "0"}
        suites = ElementTree.Element("testsuites")
        suite = ElementTree.SubElement(suites, "testsuite", counts)
        for check in self.checks:
            case = ElementTree.SubElement(suite, "testcase", classname="ncen_tf.gate", name=check.name)
            if not check.passed:
                ElementTree.SubElement(case, "failure", message=check.message).text = check.message
        ElementTree.indent(suites)
        with replacing(Path(file)) as temporary:
            ElementTree.ElementTree(suites).write(temporary, encoding="utf-8", xml_declaration=True)


class Gate(Settings):
    """Thresholds that a report must reach.

    Examples:
        >>> import ncen_tf
        >>> gate = ncen_tf.Gate.read("exports/reference.gate.toml")
        >>> gate.clean_accuracy, gate.robust_accuracy[0].minimum
        (0.87, 0.75)
    """

    clean_accuracy: Share | None = Field(default=None, description="Least clean accuracy")
    agreement: Share | None = Field(
        default=None, description="Largest difference from the clean accuracy recorded with the model"
    )
    robust_accuracy: tuple[Threshold, ...] = ()
    clean_gradients: bool = Field(
        default=False, description="Whether every check for masked gradients must pass"
    )
    _file: str = PrivateAttr("The gate")

    @model_validator(mode="after")
    def _require_threshold(self) -> Self:
        numbers = self.clean_accuracy, self.agreement
        if numbers == (None, None) and not self.robust_accuracy and not self.clean_gradients:
            raise ValueError("A gate without thresholds would pass everything: state at least one.")
        return self

    @classmethod
    def read(cls, file: Path | str) -> Self:
        """Read a gate from a TOML file.

        Raises:
            InputError: The file is missing, not TOML, or has a key or value that cannot be used.
        """
        gate = cls.from_toml(file)
        gate._file = str(file)
        return gate

    def check(self, report: Report) -> GateResult:
        """Compare a report's measured values, not their intervals, with the thresholds.

        Raises:
            InputError: The report does not have what a threshold is about, or an attack made no query.
        """
        measured = [(row.attack, row.eps) for row in report.attacks]
        self.require_measured(
            measured, report.examples, report.recorded, gradients_checked=report.masked_gradients is not None
        )
        clean = report.clean_accuracy.value or 0.0
        checks = []
        if self.clean_accuracy is not None:
            checks.append(_at_least("clean accuracy", clean, self.clean_accuracy))
        if self.agreement is not None and report.recorded is not None:
            checks.append(_agrees(clean, report.recorded.value, self.agreement))
        for threshold in self.robust_accuracy:
            attacks = [row for row in report.attacks if threshold.concerns(row.attack, row.eps)]
            name = f"robust accuracy, {threshold.attack}, eps {threshold.eps:g}"
            if all(row.attacked and not row.queries and not row.gradients for row in attacks):
                raise InputError(
                    f"{self._file}: {name}: no query and no gradient was made, so it says nothing."
                )
            rows = report.worst_case if threshold.attack == WORST_CASE else attacks
            # The same attack may be there with several settings, or in both norms: the lowest result counts.
            values = [row.robust_accuracy.value or 0.0 for row in rows if threshold.is_at(row.eps)]
            if not values:
                raise InputError(f"{self._file}: {name}: the report has no such attack.")
            lowest = min(values)
            checks.append(_at_least(name, lowest, threshold.minimum))
        if self.clean_gradients and report.masked_gradients is not None:
            failed = [check.name for check in report.masked_gradients.checks if not check.passed]
            message = f"masked gradients: {', '.join(failed) or 'no sign of them'}"
            checks.append(GateCheck(name="clean gradients", passed=not failed, message=message))
        return GateResult(checks=tuple(checks))

    def require_measured(
        self,
        attacks: Sequence[tuple[str, float]],
        examples: int,
        recorded: RecordedAccuracy | None,
        *,
        gradients_checked: bool,
    ) -> None:
        """Refuse a gate that asks for what a report will not have, best before hours of attacks.

        Args:
            attacks: Name and eps of each attack that is measured.
            examples: Number of images that are attacked.
            recorded: Clean accuracy recorded with the target.
            gradients_checked: Whether masked gradients are looked for.

        Raises:
            InputError: An attack at a radius, a verdict on gradients, or a clean accuracy of as many images
                is missing.
        """
        if self.agreement is not None and recorded is None:
            raise InputError(
                f"{self._file}: `agreement` needs a target with a recorded clean accuracy; this one has none."
            )
        if self.agreement is not None and recorded is not None and recorded.examples != examples:
            raise InputError(
                f"{self._file}: `agreement` compares accuracies of the same images: the recorded one is of "
                f"{recorded.examples} images and the report's of {examples}."
            )
        if self.clean_gradients and not gradients_checked:
            raise InputError(f"{self._file}: `clean_gradients` needs a report made with `check_gradients`.")
        for threshold in self.robust_accuracy:
            if not any(threshold.concerns(name, eps) for name, eps in attacks):
                radii = sorted({eps for name, eps in attacks if threshold.attack in (name, WORST_CASE)})
                has = "only eps " + ", ".join(f"{eps:g}" for eps in radii) if radii else "no such attack"
                raise InputError(
                    f"{self._file}: nothing is measured for {threshold.attack!r} at eps {threshold.eps:g}; "
                    f"the report has {has}."
                )


def _at_least(name: str, measured: float, minimum: float) -> GateCheck:
    message = f"{name}: {measured:.4f}, at least {minimum:.4f} is required"
    return GateCheck(name=name, passed=measured >= minimum, message=message)


def _agrees(clean: float, recorded: float, largest: float) -> GateCheck:
    difference = abs(clean - recorded)
    message = (
        f"clean accuracy {clean:.4f}, recorded {recorded:.4f}: differ by {difference:.4f}, "
        f"at most {largest:.4f} is allowed"
    )
    # The difference of two decimals may be above the decimal that it is, by a rounding error.
    passed = difference <= largest or math.isclose(difference, largest)
    return GateCheck(name="agreement with the recorded accuracy", passed=passed, message=message)
