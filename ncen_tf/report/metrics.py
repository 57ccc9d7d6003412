"""Accuracies of a classifier under attack; the report and the table of images that are made of them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from ncen_tf.base.environment import describe_environment
from ncen_tf.report.curve import RobustnessCurve
from ncen_tf.report.measured import proportion as proportion
from ncen_tf.report.results import (
    AttackResult,
    AttackRow,
    ClassAccuracy,
    MaskedGradients,
    Norm,
    Proportion,
    RecordedAccuracy,
    Report,
    ShownImages,
    SuiteResult,
    TargetInfo,
    WorstCase,
)

if TYPE_CHECKING:
    import pandas as pd

Images = npt.NDArray[np.float32]
Labels = npt.NDArray[np.int32]


def clean_accuracy(labels: Labels, clean: Labels) -> Proportion:
    """Compute the share of clean images that are classified correctly. Labels and predictions: int [N]."""
    return proportion(int((clean == labels).sum()), len(labels))


def robust_accuracy(labels: Labels, clean: Labels, adversarial: Sequence[Labels]) -> Proportion:
    """Compute the share of all examples that are classified correctly clean and under every attack.

    A mistake on the clean image counts as broken, because the clean image is within the perturbation bound.
    With several attacks this is the per-example worst case.

    Args:
        labels: True classes, int [N].
        clean: Predictions on clean images, int [N].
        adversarial: Predictions under each attack, each int [N].
    """
    right = (clean == labels) & np.all([predicted == labels for predicted in adversarial], axis=0)
    return proportion(int(right.sum()), len(labels))


def aae(labels: Labels, clean: Labels, adversarial: Sequence[Labels]) -> Proportion:
    """Compute the paper's accuracy on adversarial examples (Luo et al.).

    It is :func:`robust_accuracy` among the examples that are classified correctly when clean.
    """
    return proportion(robust_accuracy(labels, clean, adversarial).count, clean_accuracy(labels, clean).count)


def build_report(
    result: SuiteResult,
    *,
    protocol: str,
    objective: str,
    dataset: str,
    target: TargetInfo,
    seed: int,
    cumulative: bool = False,
    recorded: RecordedAccuracy | None = None,
    masked_gradients: MaskedGradients | None = None,
    images: Images | None = None,
    curves: Sequence[RobustnessCurve] = (),
) -> Report:
    """Build the report of a suite's run.

    Args:
        result: What the attacks did, in their order.
        images: Clean images, float32 [N, H, W, C] in [0, 1], for the page; ``None`` shows none.

    All other arguments are fields of :class:`~ncen_tf.report.results.Report`.
    """
    report = Report(
        protocol=protocol,
        objective=objective,
        dataset=dataset,
        examples=len(result.labels),
        cumulative=cumulative,
        seed=seed,
        target=target,
        clean_accuracy=clean_accuracy(result.labels, result.clean_predictions),
        attacks=tuple(_attack_row(result, number, cumulative) for number in range(len(result.attacks))),
        worst_case=_worst_cases(result),
        classes=_class_accuracies(result),
        curves=tuple(curves),
        masked_gradients=masked_gradients,
        recorded=recorded,
        seconds=sum(attack.seconds for attack in result.attacks),
        environment=describe_environment(),
    )
    if images is not None:
        distances = {curve.norm: np.array(curve.distances, float) for curve in curves}  # None is NaN: last
        report._images = tuple(
            _shown(result, attack, images, distances.get(attack.settings["norm"], result.margins))
            for attack in result.attacks
        )
    report._result = result
    return report


def _class_accuracies(result: SuiteResult) -> tuple[ClassAccuracy, ...]:
    found = []
    for label in np.unique(result.labels):
        those = result.labels == label
        of_class = result.labels[those], result.clean_predictions[those]
        adversarial = [attack.predictions[those] for attack in result.attacks]
        found.append(
            ClassAccuracy(
                label=int(label),
                name=str(result.names_of(of_class[0][:1])[0]),
                clean_accuracy=clean_accuracy(*of_class),
                robust_accuracy=robust_accuracy(*of_class, adversarial),
            )
        )
    return tuple(found)


def _attack_row(result: SuiteResult, number: int, cumulative: bool) -> AttackRow:
    attack, settings = result.attacks[number], dict(result.attacks[number].settings)
    before = [other for other in result.attacks[:number] if cumulative and _threat(other) == _threat(attack)]
    withstood = [each.predictions for each in (*before, attack)]
    broken, attacked = result.broken_by(attack), int(attack.attacked.sum())
    return AttackRow(
        **{key: settings.pop(key) for key in ("attack", "norm", "eps")},
        settings=settings,
        robust_accuracy=robust_accuracy(result.labels, result.clean_predictions, withstood),
        aae=aae(result.labels, result.clean_predictions, withstood),
        mean_l2_broken=float(attack.l2[broken].mean()) if broken.any() else None,
        mean_linf_broken=float(attack.linf[broken].mean()) if broken.any() else None,
        attacked=attacked,
        broken=int(broken.sum()),
        queries=attack.queries,
        gradients=attack.gradients,
        queries_per_image=attack.queries_per_image,
        gradients_per_image=attack.gradients_per_image,
        seconds=attack.seconds,
    )


def _worst_cases(result: SuiteResult) -> tuple[WorstCase, ...]:
    """Per-example worst case over the attacks of the same norm and eps."""
    groups: dict[tuple[Norm, float], list[AttackResult]] = {}
    for attack in result.attacks:
        groups.setdefault(_threat(attack), []).append(attack)
    worst = []
    for (norm, eps), group in sorted(groups.items()):
        outcome = result.labels, result.clean_predictions, [attack.predictions for attack in group]
        worst.append(
            WorstCase(
                attacks=tuple(attack.settings["attack"] for attack in group),
                norm=norm,
                eps=eps,
                robust_accuracy=robust_accuracy(*outcome),
                aae=aae(*outcome),
            )
        )
    return tuple(worst)


def _threat(attack: AttackResult) -> tuple[Norm, float]:
    return attack.settings["norm"], attack.settings["eps"]


def _shown(
    result: SuiteResult, attack: AttackResult, images: Images, effort: npt.NDArray[np.floating]
) -> ShownImages:
    """Take the shown images that the attack broke, by what it takes to break them."""
    order = np.flatnonzero(result.broken_by(attack)[attack.shown_index])
    order = order[np.argsort(effort[attack.shown_index[order]], kind="stable")]
    shown = attack.shown_index[order]
    classes = (result.labels, result.clean_predictions, attack.predictions)
    names = [result.names_of(each[shown]) for each in classes]
    return ShownImages(images[shown], attack.shown[order], list(zip(*names, strict=True)))


def per_image_table(result: SuiteResult, curves: Sequence[RobustnessCurve] = ()) -> pd.DataFrame:
    """Tabulate what each attack did to each image.

    Args:
        result: Of the attacks of a report.
        curves: Of the same images, for their minimal distances.

    Returns:
        N rows with ``index`` (the number of the image among those attacked), ``label``, ``class``,
        ``clean_prediction``, ``clean_correct``, ``first_broken_by`` (an attack's name, norm and eps, or
        empty), ``clean_margin``, ``minimal_distance ...`` for each curve's norm (0 where the clean image is
        classified wrongly, missing where nothing broke it) and, for each attack, ``... attacked``,
        ``... prediction``, ``... l2`` and ``... linf``. The last three are missing where the attack was not
        run. A second attack of the same name, norm and eps has its number in the suite after these.
    """
    import pandas as pd  # takes half a second

    labels, clean = result.labels, result.clean_predictions
    first = np.full(len(labels), "", object)
    columns: dict[str, npt.NDArray[np.generic] | pd.Series] = {
        "index": np.arange(len(labels)),
        "label": labels,
        "class": result.names_of(labels),
        "clean_prediction": clean,
        "clean_correct": clean == labels,
        "first_broken_by": first,
        "clean_margin": result.margins,
    }
    for curve in curves:
        columns[f"minimal_distance {curve.norm}"] = np.array(curve.distances, float)
    for number, attack in enumerate(result.attacks, start=1):
        name = f"{attack.settings['attack']} {attack.settings['norm']} {attack.settings['eps']:g}"
        if f"{name} attacked" in columns:
            name += f" ({number})"
        first[result.broken_by(attack) & (first == "")] = name
        columns[f"{name} attacked"] = attack.attacked
        columns[f"{name} prediction"] = pd.Series(attack.predictions, dtype="Int32").where(attack.attacked)
        for size, values in (("l2", attack.l2), ("linf", attack.linf)):
            columns[f"{name} {size}"] = np.where(attack.attacked, values, np.float32(np.nan))
    return pd.DataFrame(columns)
