"""What a suite measured, as one JSON file."""

import json
from pathlib import Path
from typing import Any

from ncen_tf.attacks.objectives import ObjectiveName
from ncen_tf.attacks.results import AttackResult, SuiteResult
from ncen_tf.attacks.suites import Suite
from ncen_tf.environment import describe_environment
from ncen_tf.errors import InputError
from ncen_tf.files import write_json
from ncen_tf.reports.metrics import (
    Proportion,
    aae,
    clean_accuracy,
    mean_over_broken,
    robust_accuracy,
)
from ncen_tf.targets.target import Target

FORMAT = 1

_NUMBER = (int, float)
_PROPORTION = {"value": (*_NUMBER, type(None)), "count": int, "total": int, "interval": list}
# What readers rely on: type, types, or the fields of a table.
_FIELDS: dict[str, Any] = {
    "format": int,
    "protocol": str,
    "objective": str,
    "dataset": str,
    "examples": int,
    "seed": int,
    "target": {"description": str, "sha256": str, "members": int, "providers": list},
    "ace": _PROPORTION,
    "attacks": list,
    "worst_case": list,
    "seconds": _NUMBER,
    "environment": dict,
}
_MEASURED = {"norm": str, "eps": _NUMBER, "robust_accuracy": _PROPORTION, "aae": _PROPORTION}
_ATTACK_FIELDS: dict[str, Any] = {
    "attack": str,
    **_MEASURED,
    "settings": dict,
    "mean_l2_broken": (*_NUMBER, type(None)),
    "mean_linf_broken": (*_NUMBER, type(None)),
    "queries_per_image": _NUMBER,
    "gradients_per_image": _NUMBER,
    "seconds": _NUMBER,
}
_WORST_FIELDS = {"attacks": list, **_MEASURED}


def build_report(
    target: Target,
    suite: Suite,
    result: SuiteResult,
    *,
    objective: ObjectiveName,
    dataset: str,
    seed: int,
) -> dict[str, Any]:
    """The report of a suite's run, ready for JSON.

    Args:
        target: what was attacked.
        suite: what was run; its name is the protocol.
        result: what came out.
        objective: what gradient attacks maximised.
        dataset: name of the dataset that the examples are from.
        seed: of the run.
    """
    labels, clean = result.labels, result.clean_predictions
    return {
        "format": FORMAT,
        "protocol": suite.name,
        "objective": objective,
        "dataset": dataset,
        "examples": len(labels),
        "seed": seed,
        "target": {
            "description": target.description,
            "sha256": target.sha256,
            "members": target.members,
            "gives_logits": target.gives_logits,
            "providers": list(target.providers),
        },
        "ace": _proportion(clean_accuracy(labels, clean)),
        "attacks": [_attack_row(result, attack) for attack in result.attacks],
        "worst_case": _worst_cases(result),
        "seconds": sum(attack.seconds for attack in result.attacks),
        "environment": describe_environment(),
    }


def write_report(file: Path, report: dict[str, Any]) -> None:
    """Write a report at once."""
    write_json(file, report)


def read_report(file: Path) -> dict[str, Any]:
    """A report that :func:`write_report` wrote.

    Raises:
        InputError: a file that is missing, no report, or from another version's format.
    """
    try:
        report = json.loads(file.read_text())
    except (OSError, UnicodeDecodeError, json.JSONDecodeError) as error:
        raise InputError(f"The report {file} cannot be read: {error}.") from error
    if not isinstance(report, dict) or report.get("format") != FORMAT:
        raise InputError(f"{file} is no attack report of format {FORMAT}: write it with ncen_tf.attack.")
    _check_fields(f"{file}: ", report, _FIELDS)
    for list_name, fields in (("attacks", _ATTACK_FIELDS), ("worst_case", _WORST_FIELDS)):
        for number, row in enumerate(report[list_name]):
            _check_fields(f"{file}: {list_name}[{number}].", row, fields)
    return report


def _check_fields(where: str, content: Any, fields: dict[str, Any]) -> None:
    if not isinstance(content, dict):
        raise InputError(f"{where.rstrip('.: ')} is not a table.")
    for name, kind in fields.items():
        if name not in content:
            raise InputError(f"{where}{name} is missing.")
        if isinstance(kind, dict):
            _check_fields(f"{where}{name}.", content[name], kind)
        elif not isinstance(content[name], kind):
            raise InputError(f"{where}{name} has the wrong type, {type(content[name]).__name__}.")


def _attack_row(result: SuiteResult, attack: AttackResult) -> dict[str, Any]:
    labels, clean = result.labels, result.clean_predictions
    predictions, settings = attack.predictions, attack.settings
    return {
        "attack": settings["attack"],
        "norm": settings["norm"],
        "eps": settings["eps"],
        "settings": {k: v for k, v in settings.items() if k not in ("attack", "norm", "eps")},
        "robust_accuracy": _proportion(robust_accuracy(labels, clean, [predictions])),
        "aae": _proportion(aae(labels, clean, [predictions])),
        "mean_l2_broken": mean_over_broken(labels, clean, predictions, attack.l2),
        "mean_linf_broken": mean_over_broken(labels, clean, predictions, attack.linf),
        "queries_per_image": attack.queries_per_image,
        "gradients_per_image": attack.gradients_per_image,
        "seconds": attack.seconds,
    }


def _worst_cases(result: SuiteResult) -> list[dict[str, Any]]:
    """Per-example worst case over the attacks of the same norm and eps."""
    groups: dict[tuple[str, float], list[AttackResult]] = {}
    for attack in result.attacks:
        groups.setdefault((attack.settings["norm"], attack.settings["eps"]), []).append(attack)
    rows = []
    for (norm, eps), attacks in sorted(groups.items()):
        labels, clean = result.labels, result.clean_predictions
        predictions = [attack.predictions for attack in attacks]
        rows.append(
            {
                "attacks": [attack.settings["attack"] for attack in attacks],
                "norm": norm,
                "eps": eps,
                "robust_accuracy": _proportion(robust_accuracy(labels, clean, predictions)),
                "aae": _proportion(aae(labels, clean, predictions)),
            }
        )
    return rows


def _proportion(proportion: Proportion) -> dict[str, Any]:
    return {
        "value": proportion.value,
        "count": proportion.count,
        "total": proportion.total,
        "interval": list(proportion.interval),
    }
