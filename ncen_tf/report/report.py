"""What a suite measured, as one JSON file."""

from pathlib import Path
from typing import Any

from ncen_tf.attack.results import AttackResult, SuiteResult
from ncen_tf.attack.suites import Suite
from ncen_tf.base.environment import describe_environment
from ncen_tf.base.errors import InputError
from ncen_tf.base.files import write_json
from ncen_tf.untrusted.input_files import NUMBER, check_content, read_json
from ncen_tf.report.metrics import (
    Proportion,
    aae,
    clean_accuracy,
    mean_over_broken,
    robust_accuracy,
)
from ncen_tf.targets.target import Target

FORMAT = 2

PROPORTION = {"value": (*NUMBER, type(None)), "count": int, "total": int, "interval": [NUMBER, NUMBER]}
_MEASURED = {"norm": str, "eps": NUMBER, "robust_accuracy": PROPORTION, "aae": PROPORTION}
_ATTACK = {
    "attack": str,
    **_MEASURED,
    "settings": dict,
    "mean_l2_broken": (*NUMBER, type(None)),
    "mean_linf_broken": (*NUMBER, type(None)),
    "attacked": int,
    "broken": int,
    "queries": int,
    "gradients": int,
    "queries_per_image": NUMBER,
    "gradients_per_image": NUMBER,
    "seconds": NUMBER,
}
_REPORT = {
    "protocol": str,
    "objective": str,
    "dataset": str,
    "examples": int,
    "cumulative": bool,
    "seed": int,
    "target": {"description": str, "sha256": str, "members": int, "providers": [str]},
    "ace": PROPORTION,
    "attacks": [_ATTACK],
    "worst_case": [{"attacks": [str], **_MEASURED}],
    "seconds": NUMBER,
    "environment": dict,
}


def build_report(
    target: Target,
    suite: Suite,
    result: SuiteResult,
    *,
    objective: str,
    dataset: str,
    seed: int,
) -> dict[str, Any]:
    """The report of a suite's run, ready for JSON.

    In a cumulative suite, accuracies of an attack are those under it and all before it at the same norm and
    eps: what still stands after it.

    Args:
        target: what was attacked.
        suite: what was run; its name is the protocol.
        result: what came out.
        objective: what gradient attacks maximised; ``unknown`` of saved images that do not say.
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
        "cumulative": suite.cumulative,
        "seed": seed,
        "target": {
            "description": target.description,
            "sha256": target.sha256,
            "members": target.members,
            "gives_logits": target.gives_logits,
            "providers": list(target.providers),
        },
        "ace": proportion_as_json(clean_accuracy(labels, clean)),
        "attacks": [_attack_row(result, number, suite.cumulative) for number in range(len(result.attacks))],
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
    report = read_json(file)
    if not isinstance(report, dict) or report.get("format") != FORMAT:
        raise InputError(f"{file} is no attack report of format {FORMAT}: write it with ncen_tf.attack.")
    check_content(str(file), report, _REPORT)
    return report


def _attack_row(result: SuiteResult, number: int, cumulative: bool) -> dict[str, Any]:
    labels, clean = result.labels, result.clean_predictions
    attack = result.attacks[number]
    predictions, settings = attack.predictions, attack.settings
    before = [other for other in result.attacks[:number] if cumulative and _ball(other) == _ball(attack)]
    withstood = [*(other.predictions for other in before), predictions]
    attacked = int(attack.attacked.sum())
    return {
        "attack": settings["attack"],
        "norm": settings["norm"],
        "eps": settings["eps"],
        "settings": {k: v for k, v in settings.items() if k not in ("attack", "norm", "eps")},
        "robust_accuracy": proportion_as_json(robust_accuracy(labels, clean, withstood)),
        "aae": proportion_as_json(aae(labels, clean, withstood)),
        "mean_l2_broken": mean_over_broken(labels, clean, predictions, attack.l2),
        "mean_linf_broken": mean_over_broken(labels, clean, predictions, attack.linf),
        "attacked": attacked,
        "broken": int(((clean == labels) & (predictions != labels)).sum()),
        "queries": round(attack.queries_per_image * attacked),
        "gradients": round(attack.gradients_per_image * attacked),
        "queries_per_image": attack.queries_per_image,
        "gradients_per_image": attack.gradients_per_image,
        "seconds": attack.seconds,
    }


def _worst_cases(result: SuiteResult) -> list[dict[str, Any]]:
    """Per-example worst case over the attacks of the same norm and eps."""
    groups: dict[tuple[str, float], list[AttackResult]] = {}
    for attack in result.attacks:
        groups.setdefault(_ball(attack), []).append(attack)
    rows = []
    for (norm, eps), attacks in sorted(groups.items()):
        labels, clean = result.labels, result.clean_predictions
        predictions = [attack.predictions for attack in attacks]
        rows.append(
            {
                "attacks": [attack.settings["attack"] for attack in attacks],
                "norm": norm,
                "eps": eps,
                "robust_accuracy": proportion_as_json(robust_accuracy(labels, clean, predictions)),
                "aae": proportion_as_json(aae(labels, clean, predictions)),
            }
        )
    return rows


def _ball(attack: AttackResult) -> tuple[str, float]:
    return attack.settings["norm"], attack.settings["eps"]


def proportion_as_json(proportion: Proportion) -> dict[str, Any]:
    """A proportion as reports hold it: ``{"value", "count", "total", "interval"}``."""
    return {
        "value": proportion.value,
        "count": proportion.count,
        "total": proportion.total,
        "interval": list(proportion.interval),
    }
