"""Thresholds that a report must reach."""

import dataclasses
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ncen_tf.attacks.registry import ATTACKS
from ncen_tf.errors import InputError


@dataclasses.dataclass(frozen=True)
class Threshold:
    """Least robust accuracy, in [0, 1], under an attack at a radius."""

    attack: str
    """A name of ``ncen_tf.attacks.registry.ATTACKS``, or ``worst case``."""
    eps: float
    minimum: float


@dataclasses.dataclass(frozen=True)
class Gate:
    """What a gate file asks for."""

    file: Path
    clean_accuracy: float | None
    agreement: float | None
    """Largest difference between the report's ACE and the one recorded when the model was trained."""
    robust_accuracy: tuple[Threshold, ...]


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
    try:
        content = tomllib.loads(file.read_text())
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise InputError(f"The gate file {file} cannot be read: {error}.") from error
    _refuse_unknown(file, "", content, ("clean_accuracy", "agreement", "robust_accuracy"))
    entries = content.get("robust_accuracy", [])
    if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
        raise InputError(f"{file}: robust_accuracy is written as [[robust_accuracy]] tables.")
    if not content or (not entries and content.keys() == {"robust_accuracy"}):
        raise InputError(f"{file}: a gate without thresholds would pass everything; state at least one.")
    clean_accuracy, agreement = (
        _share(file, key, content[key]) if key in content else None for key in ("clean_accuracy", "agreement")
    )
    thresholds = (_threshold(file, number, entry) for number, entry in enumerate(entries, start=1))
    return Gate(file, clean_accuracy, agreement, tuple(thresholds))


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
        InputError: the report lacks an attack, or no ACE is recorded where agreement with it is asked for.
    """
    ace = report["ace"]["value"]
    checks = []
    if gate.clean_accuracy is not None:
        checks.append(_at_least("clean accuracy", ace, gate.clean_accuracy))
    if gate.agreement is not None:
        if recorded_ace is None:
            raise InputError(f"{gate.file}: agreement needs a target with a recorded ACE; this one has none.")
        difference = abs(ace - recorded_ace)
        message = (
            f"clean accuracy {ace:.4f}, recorded {recorded_ace:.4f}: differ by {difference:.4f}, "
            f"at most {gate.agreement:.4f} is allowed"
        )
        checks.append(Check("agreement with recorded ACE", difference <= gate.agreement, message))
    for threshold in gate.robust_accuracy:
        name = f"robust accuracy, {threshold.attack}, eps {threshold.eps:g}"
        # The same attack may be there with several settings: the strongest of them counts.
        measured = min(_robust_accuracies(gate, threshold, report))
        checks.append(_at_least(name, measured, threshold.minimum))
    return checks


def _robust_accuracies(gate: Gate, threshold: Threshold, report: dict[str, Any]) -> list[float]:
    rows = (
        report["worst_case"]
        if threshold.attack == WORST_CASE
        else [row for row in report["attacks"] if row["attack"] == threshold.attack]
    )
    found = [row["robust_accuracy"]["value"] for row in rows if row["eps"] == threshold.eps]
    if not found:
        radii = ", ".join(f"{row['eps']:g}" for row in rows)
        has = f"has it only at eps {radii}" if rows else "does not have this attack"
        raise InputError(
            f"{gate.file}: nothing was measured for {threshold.attack} at eps {threshold.eps:g}; "
            f"the report {has}."
        )
    return found


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
