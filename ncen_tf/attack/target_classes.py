"""Which wrong classes targeted attacks try, and in which order."""

import numpy as np
import numpy.typing as npt

from ncen_tf.attack.attack import Array, Budget, Labels, Norm
from ncen_tf.attack.losses import difference, log_mean_probabilities, of_ensemble, scale_together
from ncen_tf.attack.objectives import Objective

_RANKED = 4
"""Number of likely classes whose distance is measured, for each one that is tried."""


def choose_targets(objective: Objective, images: Array, labels: Labels, norm: Norm, count: int) -> Labels:
    """Choose wrong classes for targeted attacks on clean images, the most promising first.

    If fewer classes are tried than there are, they are those whose boundary is nearest by
    :func:`nearest_classes`, of the likeliest ``4 count``. Otherwise all are tried, the likeliest first.

    Args:
        objective: The target.
        images: float32 [N, H, W, C] in [0, 1].
        labels: int [N], the true classes.
        norm: Of the distance.
        count: Number of classes that are tried, at most.

    Returns:
        int32 [N, min(count, classes - 1)].
    """
    if count < objective.target.classes - 1:
        return nearest_classes(objective, images, labels, norm, _RANKED * count)[:, :count]
    return likeliest_wrong_classes(objective.log_probabilities(images), labels)


def choice_budget(classes: int, count: int) -> Budget:
    """Return the passes of :func:`choose_targets` for an image of a target of so many classes."""
    return Budget(min(_RANKED * count, classes - 1) if count < classes - 1 else 0, 1)


def nearest_classes(objective: Objective, images: Array, labels: Labels, norm: Norm, most: int) -> Labels:
    """Rank wrong classes by the distance to their boundary, as MALT does (Melamed et al., arXiv:2407.02240).

    The distance is that of a linear classifier, (s_y - s_t) / |grad (s_y - s_t)|, with s the ensemble's
    log-probabilities. It costs one forward pass and a backward pass for each class that is ranked.

    Args:
        objective: The target.
        images: float32 [N, H, W, C] in [0, 1].
        labels: int [N], the true classes y.
        norm: Of the distance; the gradient is measured in the dual norm.
        most: Number of classes that are ranked, the likeliest ones.

    Returns:
        int32 [N, min(most, classes - 1)], the nearest first.
    """
    logits, pull_back = objective.linearize(images)
    logits64 = logits.astype(np.float64)
    classes = likeliest_wrong_classes(log_mean_probabilities(logits64), labels)[:, :most]
    distances = np.empty(classes.shape)
    for column, targets in enumerate(classes.T):
        lead, slopes = scale_together(*of_ensemble(difference, logits64, labels, targets))
        gradients = pull_back(slopes.astype(np.float32)).reshape(len(images), -1).astype(np.float64)
        length = np.linalg.norm(gradients, ord=1 if norm == "Linf" else 2, axis=1)
        distances[:, column] = np.divide(-lead, length, out=np.full_like(lead, np.inf), where=length > 0)
    return np.take_along_axis(classes, np.argsort(distances, axis=1, kind="stable"), axis=1)


def likeliest_wrong_classes(scores: npt.NDArray[np.floating], labels: Labels) -> Labels:
    """Rank all classes but the true one by falling score: scores [N, C], labels [N] -> [N, C - 1]."""
    ranked = np.argsort(-scores, axis=1, kind="stable").astype(np.int32)
    return ranked[ranked != labels[:, np.newaxis]].reshape(len(labels), -1)
