"""ACE, AAE and robust accuracy as Tables II-IV (Luo et al.) lay them out, never two protocols in one."""

from collections.abc import Iterable, Sequence
from typing import Literal

from ncen_tf.tables.conditions import PROTOCOLS, Conditions, describe_hardware
from ncen_tf.tables.experiments import AttackKey, Experiment, SuiteReport, structure_of
from ncen_tf.tables.layout import Architecture, Sample, lay_out
from ncen_tf.tables.methods import Method
from ncen_tf.tables.paper_cells import PaperCell, paper_cells
from ncen_tf.tables.table import Row, Table

Measure = Literal["AAE", "robust accuracy"]
Measured = list[tuple[Experiment, SuiteReport]]

_DEFINITIONS: dict[Measure, str] = {
    "AAE": "AAE: right under attack, of the examples that are right when clean (Luo et al.). "
    "ACE: right, of all clean examples.",
    "robust accuracy": "Robust accuracy: right when clean and under attack, of all examples.",
}


def protocols(experiments: Iterable[Experiment]) -> list[str]:
    """Names of the protocols that anything was measured under."""
    found = {report.protocol for experiment in experiments for report in experiment.reports}
    return [name for name in PROTOCOLS if name in found] + sorted(found.difference(PROTOCOLS))


def accuracy_tables(experiments: Iterable[Experiment], protocol: str) -> list[Table]:
    """A table of AAE and one of robust accuracy for all that was trained and attacked in the same way.

    Args:
        experiments: what was trained and attacked.
        protocol: whose reports are shown.
    """
    groups: dict[Conditions, Measured] = {}
    for experiment in experiments:
        for report in experiment.reports:
            if report.protocol == protocol:
                groups.setdefault(Conditions.of(experiment, report), []).append((experiment, report))
    return [
        _table(conditions, groups[conditions], measure)
        for conditions in sorted(groups, key=lambda conditions: conditions.rank)
        for measure in _DEFINITIONS
    ]


def _table(conditions: Conditions, measured: Measured, measure: Measure) -> Table:
    rows = _attack_rows(conditions.attacks, measure)
    compared = measure == "AAE" and conditions.comparable

    def published(architecture: Architecture, method: Method, row: Row) -> float | None:
        structure = structure_of(architecture)
        if structure is None or not compared or method.departures:
            return None
        attack = row.attack or row.measure
        cell = (conditions.dataset, structure, len(architecture), method.regularizer, attack, row.eps)
        return paper_cells().get(PaperCell(*cell))

    title = f"{measure[0].upper()}{measure[1:]}, protocol {conditions.protocol}"
    context = {
        name: value for name, value in vars(conditions).items() if name not in ("attacks", "cumulative")
    } | {"attack_settings": conditions.attack_settings}
    trained, attacked = ([part.hardware for part in parts] for parts in zip(*measured, strict=True))
    table = lay_out(
        [Sample(experiment, _values(report, rows, measure)) for experiment, report in measured],
        title=f"{title}, {conditions.dataset}, k = {conditions.members}",
        caption=(_DEFINITIONS[measure], *conditions.sentences()),
        context=context,
        hardware=describe_hardware(trained, attacked),
        row_head=("attack", "eps"),
        published=published,
    )
    return table.with_sentence(conditions.comparison()) if any(table.compared) else table


def _values(report: SuiteReport, rows: dict[AttackKey, Row], measure: Measure) -> dict[Row, float | None]:
    if measure == "AAE":
        clean = Row("ACE")
        return {clean: report.ace, **{rows[key]: value.aae for key, value in report.attacks.items()}}
    # Robust accuracy of no attack at all, so that a measure's rows are in one table only.
    clean = Row(measure, "clean", eps=0.0)
    return {clean: report.ace, **{rows[key]: value.robust_accuracy for key, value in report.attacks.items()}}


def _attack_rows(keys: Sequence[AttackKey], measure: Measure) -> dict[AttackKey, Row]:
    """A row for every attack; those that would look alike say in which settings they differ."""
    rows = {}
    for key in keys:
        alike = [o for o in keys if (o.attack, o.norm, o.eps) == (key.attack, key.norm, key.eps)]
        differing = (s for s in key.settings if any(s not in other.settings for other in alike))
        detail = ", ".join(f"{name} {text}" for name, text in differing)
        rows[key] = Row(measure, key.attack, key.norm, key.eps, detail)
    return rows
