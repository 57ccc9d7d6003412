"""Accuracies of a classifier under attack, and the report that is made of them."""

from collections.abc import Sequence

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
    Outcomes,
    Proportion,
    RecordedAccuracy,
    Report,
    ShownImages,
    TargetInfo,
    WorstCase,
    class_names_of,
)

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


def mean_over_broken(
    labels: Labels, clean: Labels, adversarial: Labels, sizes: npt.NDArray[np.float32]
) -> float | None:
    """Compute the mean size of the changes that broke an example; ``None`` if none did. Sizes: float [N]."""
    broken = (clean == labels) & (adversarial != labels)
    return float(sizes[broken].mean()) if broken.any() else None


def build_report(
    labels: Labels,
    clean: Labels,
    attacks: Sequence[AttackResult],
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
    class_names: Sequence[str] = (),
    margins: npt.NDArray[np.float32] | None = None,
    curves: Sequence[RobustnessCurve] = (),
) -> Report:
    """Build the report of a suite's run.

    Args:
        labels: True classes, int [N].
        clean: Predictions on clean images, int [N].
        attacks: What each attack did, in their order.
        images: Clean images, float32 [N, H, W, C] in [0, 1], for the page; ``None`` shows none.
        class_names: Name of each class, for the page.
        margins: Of the clean images, float [N], for the table of images; ``None`` leaves them out.

    All other arguments are fields of :class:`~ncen_tf.report.results.Report`.
    """
    report = Report(
        protocol=protocol,
        objective=objective,
        dataset=dataset,
        examples=len(labels),
        cumulative=cumulative,
        seed=seed,
        target=target,
        clean_accuracy=clean_accuracy(labels, clean),
        attacks=tuple(
            _attack_row(labels, clean, attacks[: number + 1], cumulative) for number in range(len(attacks))
        ),
        worst_case=_worst_cases(labels, clean, attacks),
        classes=_class_accuracies(labels, clean, attacks, class_names),
        curves=tuple(curves),
        masked_gradients=masked_gradients,
        recorded=recorded,
        seconds=sum(attack.seconds for attack in attacks),
        environment=describe_environment(),
    )
    if images is not None:
        distances = {curve.norm: np.array(curve.distances, float) for curve in curves}  # None is NaN: last
        report._images = tuple(
            _shown(
                labels, clean, attack, images, class_names, distances.get(attack.settings["norm"], margins)
            )
            for attack in attacks
        )
    report._outcomes = Outcomes(labels, clean, tuple(attacks), tuple(class_names), margins)
    return report


def _class_accuracies(
    labels: Labels, clean: Labels, attacks: Sequence[AttackResult], class_names: Sequence[str]
) -> tuple[ClassAccuracy, ...]:
    found = []
    for label in np.unique(labels):
        those = labels == label
        of_class = labels[those], clean[those]
        found.append(
            ClassAccuracy(
                label=int(label),
                name=str(class_names_of(labels[those][:1], class_names)[0]),
                clean_accuracy=clean_accuracy(*of_class),
                robust_accuracy=robust_accuracy(*of_class, [a.predictions[those] for a in attacks]),
            )
        )
    return tuple(found)


def _attack_row(
    labels: Labels, clean: Labels, attacks: Sequence[AttackResult], cumulative: bool
) -> AttackRow:
    """The row of the last of the attacks."""
    attack = attacks[-1]
    predictions, settings = attack.predictions, dict(attack.settings)
    before = [other for other in attacks[:-1] if cumulative and _threat(other) == _threat(attack)]
    withstood = [*(other.predictions for other in before), predictions]
    attacked = int(attack.attacked.sum())
    return AttackRow(
        **{key: settings.pop(key) for key in ("attack", "norm", "eps")},
        settings=settings,
        robust_accuracy=robust_accuracy(labels, clean, withstood),
        aae=aae(labels, clean, withstood),
        mean_l2_broken=mean_over_broken(labels, clean, predictions, attack.l2),
        mean_linf_broken=mean_over_broken(labels, clean, predictions, attack.linf),
        attacked=attacked,
        broken=int(((clean == labels) & (predictions != labels)).sum()),
        queries=round(attack.queries_per_image * attacked),
        gradients=round(attack.gradients_per_image * attacked),
        queries_per_image=attack.queries_per_image,
        gradients_per_image=attack.gradients_per_image,
        seconds=attack.seconds,
    )


def _worst_cases(labels: Labels, clean: Labels, attacks: Sequence[AttackResult]) -> tuple[WorstCase, ...]:
    """Per-example worst case over the attacks of the same norm and eps."""
    groups: dict[tuple[Norm, float], list[AttackResult]] = {}
    for attack in attacks:
        groups.setdefault(_threat(attack), []).append(attack)
    return tuple(
        WorstCase(
            attacks=tuple(attack.settings["attack"] for attack in group),
            norm=norm,
            eps=eps,
            robust_accuracy=robust_accuracy(labels, clean, [attack.predictions for attack in group]),
            aae=aae(labels, clean, [attack.predictions for attack in group]),
        )
        for (norm, eps), group in sorted(groups.items())
    )


def _threat(attack: AttackResult) -> tuple[Norm, float]:
    return attack.settings["norm"], attack.settings["eps"]


def _shown(
    labels: Labels,
    clean: Labels,
    attack: AttackResult,
    images: Images,
    class_names: Sequence[str],
    effort: npt.NDArray[np.floating] | None,
) -> ShownImages:
    """Take the shown images that the attack broke, by what it takes to break them, if that is known."""
    index = attack.shown_index
    order = np.flatnonzero((clean[index] == labels[index]) & (attack.predictions[index] != labels[index]))
    if effort is not None:
        order = order[np.argsort(effort[index[order]], kind="stable")]
    shown = index[order]
    names = [class_names_of(classes[shown], class_names) for classes in (labels, clean, attack.predictions)]
    return ShownImages(images[shown], attack.shown[order], list(zip(*names, strict=True)))
