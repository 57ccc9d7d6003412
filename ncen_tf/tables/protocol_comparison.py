"""What a method's robustness becomes from one protocol to the next: protocols in columns, each on its own."""

import dataclasses
from collections.abc import Iterable, Sequence

from ncen_tf.data.datasets import DATASETS
from ncen_tf.tables.conditions import PROTOCOLS, Conditions, describe_hardware
from ncen_tf.tables.experiments import WORST_CASE, AttackKey, Experiment, SuiteReport
from ncen_tf.tables.layout import Architecture, structure_name, structure_rank
from ncen_tf.tables.methods import Method
from ncen_tf.tables.table import Cell

_NUMBER = ".4f"


@dataclasses.dataclass(frozen=True)
class Comparison:
    """A table as text."""

    title: str
    header: tuple[str, ...]
    """Structure and method, then clean accuracy, then a column for each protocol and number of images."""
    body: tuple[tuple[str, ...], ...]
    caption: tuple[str, ...]
    """Sentences."""


def protocol_comparisons(experiments: Iterable[Experiment]) -> list[Comparison]:
    """A table for each dataset, scale of training and number of clean test images at which more than one
    protocol was measured.

    A cell is the worst case over a protocol's attacks at its smallest Linf radius, over all images
    attacked.
    """
    groups: dict[tuple[str, int, int, int, int], list[Experiment]] = {}
    for experiment in experiments:
        key = (*experiment.scale, experiment.test_examples)
        groups.setdefault(key, []).append(experiment)
    groups = dict(sorted(groups.items(), key=lambda item: (list(DATASETS).index(item[0][0]), item[0])))
    made = (_comparison(group) for group in groups.values())
    return [comparison for comparison in made if len(comparison.header) > 4]


def _comparison(group: Sequence[Experiment]) -> Comparison:
    rows: dict[tuple[Architecture, Method], list[Experiment]] = {}
    for experiment in sorted(group, key=lambda experiment: experiment.config.seed):
        rows.setdefault((experiment.config.architecture, experiment.method), []).append(experiment)
    order = sorted(rows, key=lambda row: (structure_rank(row[0]), row[1].rank))
    columns = {
        _in_ball(experiment, report, key): key
        for experiment in group
        for report in experiment.reports
        if (key := smallest_worst_case(report))
    }
    shown = sorted(columns, key=lambda c: (_protocol_rank(c.protocol), c.objective, c.attacked, c.examples))
    heads = (f"{c.protocol}, eps {columns[c].eps:.4g}, {c.examples:,} images" for c in shown)
    body = []
    for row in order:
        architecture, method = row
        cells = [_cell(rows[row], [float(e.test["ace"]) for e in rows[row]])]
        for conditions in shown:
            values = [_worst_case(experiment, conditions, columns[conditions]) for experiment in rows[row]]
            cells.append(_cell(rows[row], values) if any(value is not None for value in values) else "")
        body.append((structure_name(architecture), method.label(frozenset()), *cells))
    first = group[0]
    seeds = sorted({experiment.config.seed for experiment in group})
    attacked = [report.hardware for experiment in group for report in experiment.reports]
    return Comparison(
        f"Robust accuracy by protocol, {first.config.dataset}, k = {first.members}",
        ("structure", "method", f"clean, {first.test_examples:,} images", *heads),
        tuple(body),
        (
            "Right when clean and under the strongest of a protocol's attacks at the radius, of all images "
            "attacked. What a method loses from one column to another is what the weaker protocol hides.",
            f"Trained on {first.train_examples:,} images for {first.config.epochs} epochs.",
            f"Seeds {', '.join(map(str, seeds))}; mean ± sample standard deviation where there are several.",
            f"Hardware: {describe_hardware([experiment.hardware for experiment in group], attacked)}.",
        ),
    )


def smallest_worst_case(report: SuiteReport) -> AttackKey | None:
    """The worst case at the smallest Linf radius, if the report has one."""
    keys = (key for key in report.attacks if key.attack == WORST_CASE and key.norm == "Linf")
    return min(keys, key=lambda key: key.eps, default=None)


def _protocol_rank(protocol: str) -> tuple[int, str]:
    return PROTOCOLS.index(protocol) if protocol in PROTOCOLS else len(PROTOCOLS), protocol


def _in_ball(experiment: Experiment, report: SuiteReport, ball: AttackKey) -> Conditions:
    """Conditions with the attacks of one ball only: what was measured in others makes no difference."""
    conditions = Conditions.of(experiment, report)
    attacks = (key for key in conditions.attacks if (key.norm, key.eps) == (ball.norm, ball.eps))
    return dataclasses.replace(conditions, attacks=tuple(attacks))


def _worst_case(experiment: Experiment, conditions: Conditions, key: AttackKey) -> float | None:
    reports = (r for r in experiment.reports if _in_ball(experiment, r, key) == conditions)
    report = next(reports, None)
    return report.attacks[key].robust_accuracy if report else None


def _cell(experiments: Sequence[Experiment], values: Sequence[float | None]) -> str:
    seeds = tuple(experiment.config.seed for experiment in experiments)
    return Cell(seeds, tuple(values)).text(_NUMBER)
