"""Thresholds that a report must reach."""

import dataclasses
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ncen_tf.attack.registry import ATTACKS
from ncen_tf.base.errors import InputError
from ncen_tf.base.files import read_toml


@dataclasses.dataclass(frozen=True)
class Threshold:
    """Least robust accuracy, in [0, 1], under an attack at a radius."""

    attack: str
    """A name of ``ncen_tf.attack.registry.ATTACKS``, or ``worst case``."""
    eps: float
    minimum: float

    def is_at(self, eps: float) -> bool:
        """Whether this is the radius, to three digits: 8/255 has no decimals that a person would write."""
        return f"{eps:.3g}" == f"{self.eps:.3g}" or math.isclose(eps, self.eps, rel_tol=1e-3)


@dataclasses.dataclass(frozen=True)
class Gate:
    """What a gate file asks for."""

    file: Path
    clean_accuracy: float | None
    agreement: float | None
    """Largest difference between the report's ACE and the one recorded when the model was trained."""
    robust_accuracy: tuple[Threshold, ...]
    clean_gradients: bool = False
    """Whether no sign of masked gradients is tolerated."""


@dataclasses.dataclass(frozen=True)
class Check:
    """One comparison of a gate."""

    name: str
    passed: bool
    message: str
    """What was measured and what was asked for."""


WORST_CASE = "worst case"


def read_gate(file: Path) -> Gate:
    """Read a gate file; docs/gate.md is its reference.

    Raises:
        InputError: a file that is missing, no TOML, empty, or has a key or value that cannot be used.
    """
    content = read_toml(file)
    _refuse_unknown(file, "", content, ("clean_accuracy", "agreement", "robust_accuracy", "clean_gradients"))
    entries = content.get("robust_accuracy", [])
    if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
        raise InputError(f"{file}: robust_accuracy is written as [[robust_accuracy]] tables.")
    clean_accuracy, agreement = (
        _share(file, key, content[key]) if key in content else None for key in ("clean_accuracy", "agreement")
    )
    clean_gradients = content.get("clean_gradients", False)
    if not isinstance(clean_gradients, bool):
        raise InputError(f"{file}, clean_gradients is true or false; got {clean_gradients!r}.")
    thresholds = [_threshold(file, number, entry) for number, entry in enumerate(entries, start=1)]
    if clean_accuracy is None and agreement is None and not thresholds and not clean_gradients:
        raise InputError(f"{file}: a gate without thresholds would pass everything; state at least one.")
    return Gate(file, clean_accuracy, agreement, tuple(thresholds), clean_gradients)


def check_gate(gate: Gate, report: dict[str, Any], recorded_ace: float | None = None) -> list[Check]:
    """Compare a report with a gate.

    Measured values themselves are compared, not their intervals.

    Args:
        gate: what is asked for.
        report: what was measured.
        recorded_ace: clean accuracy in [0, 1] in the target's manifest or its run's summary.

    Returns:
        A check for every threshold; the gate is passed if all are.

    Raises:
        InputError: the report lacks an attack or a verdict on gradients, or no ACE is recorded where
            agreement with it is asked for.
    """
    measured = [(row["attack"], row["eps"]) for row in report["attacks"]]
    require_measured(gate, measured, recorded_ace, gradients_checked="masked_gradients" in report)
    ace = report["ace"]["value"]
    checks = []
    if gate.clean_accuracy is not None:
        checks.append(_at_least("clean accuracy", ace, gate.clean_accuracy))
    if gate.agreement is not None and recorded_ace is not None:
        difference = abs(ace - recorded_ace)
        message = (
            f"clean accuracy {ace:.4f}, recorded {recorded_ace:.4f}: differ by {difference:.4f}, "
            f"at most {gate.agreement:.4f} is allowed"
        )
        # The difference of two decimals may be above the decimal that it is, by a rounding error.
        agrees = difference <= gate.agreement or math.isclose(difference, gate.agreement)
        checks.append(Check("agreement with recorded ACE", agrees, message))
    for threshold in gate.robust_accuracy:
        name = f"robust accuracy, {threshold.attack}, eps {threshold.eps:g}"
        # The same attack may be there with several settings: the strongest of them counts.
        weakest = min(_robust_accuracies(threshold, report))
        checks.append(_at_least(name, weakest, threshold.minimum))
    if gate.clean_gradients:
        failed = [check["name"] for check in report["masked_gradients"]["checks"] if not check["passed"]]
        message = f"masked gradients: {', '.join(failed) or 'no sign of them'}"
        checks.append(Check("clean gradients", not failed, message))
    return checks


def require_measured(
    gate: Gate, attacks: Sequence[tuple[str, float]], recorded_ace: float | None, gradients_checked: bool
) -> None:
    """Refuse a gate that asks for what a report lacks, or will lack: best before hours of attacks.

    Args:
        gate: what is asked for.
        attacks: name and eps of each attack that is measured.
        recorded_ace: clean accuracy in [0, 1] recorded with the target, if there is one.
        gradients_checked: whether masked gradients are looked for.

    Raises:
        InputError: an attack at a radius, a recorded ACE or a verdict on gradients that is not there.
    """
    if gate.agreement is not None and recorded_ace is None:
        raise InputError(f"{gate.file}: agreement needs a target with a recorded ACE; this one has none.")
    if gate.clean_gradients and not gradients_checked:
        raise InputError(f"{gate.file}: clean_gradients needs an attack with --check_gradients.")
    for threshold in gate.robust_accuracy:
        radii = sorted({eps for name, eps in attacks if threshold.attack in (name, WORST_CASE)})
        if not any(map(threshold.is_at, radii)):
            has = "only eps " + ", ".join(f"{eps:g}" for eps in radii) if radii else "no such attack"
            raise InputError(
                f"{gate.file}: nothing is measured for {threshold.attack} at eps {threshold.eps:g}; "
                f"the report has {has}."
            )


def _robust_accuracies(threshold: Threshold, report: dict[str, Any]) -> list[float]:
    rows = (
        report["worst_case"]
        if threshold.attack == WORST_CASE
        else [row for row in report["attacks"] if row["attack"] == threshold.attack]
    )
    return [row["robust_accuracy"]["value"] for row in rows if threshold.is_at(row["eps"])]


def _at_least(name: str, measured: float, minimum: float) -> Check:
    return Check(name, measured >= minimum, f"{name}: {measured:.4f}, at least {minimum:.4f} is required")


def _threshold(file: Path, number: int, entry: Mapping[str, Any]) -> Threshold:
    where = f"robust_accuracy {number}: "
    _refuse_unknown(file, where, entry, ("attack", "eps", "minimum"))
    for key in ("attack", "eps", "minimum"):
        if key not in entry:
            raise InputError(f"{file}, {where}{key} is missing.")
    if entry["attack"] not in (*ATTACKS, WORST_CASE):
        known = ", ".join((*ATTACKS, WORST_CASE))
        raise InputError(f"{file}, {where}attack is one of {known}; got {entry['attack']!r}.")
    eps = _number(file, f"{where}eps", entry["eps"])
    if not eps > 0:
        raise InputError(f"{file}, {where}eps is above 0; got {eps:g}.")
    return Threshold(entry["attack"], eps, _share(file, f"{where}minimum", entry["minimum"]))


def _share(file: Path, key: str, value: Any) -> float:
    share = _number(file, key, value)
    if not 0 <= share <= 1:
        raise InputError(f"{file}, {key} is in [0, 1]; got {share:g}.")
    return share


def _number(file: Path, key: str, value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise InputError(f"{file}, {key} is a number; got {value!r}.")
    return float(value)


def _refuse_unknown(file: Path, where: str, content: Mapping[str, Any], known: tuple[str, ...]) -> None:
    for key in content:
        if key not in known:
            raise InputError(f"{file}, {where}unknown key {key!r}; known: {', '.join(known)}.")
