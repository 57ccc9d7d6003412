"""Losses that attacks maximise, with their gradients with respect to the logits, in NumPy and float64.

Throughout, logits are those of k members, [N, k, C]; scores are logits of one classifier, [N, C], or the
logarithms of probabilities, which are logits too; labels are integers [N]. Losses are returned as [N], with
gradients of the shape of the first argument.
"""

from collections.abc import Callable, Sequence
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

Array64 = npt.NDArray[np.float64]
Labels = npt.NDArray[np.integer]
LossAndGradient = tuple[Array64, Array64]
ObjectiveName = Literal["member_average", "ensemble", "stacked_softmax"]

_NO_DIVISION_BY_ZERO = 1e-12


def log_odds(scores: Array64, labels: Labels) -> LossAndGradient:
    """Compute the log of the odds against the true class: log sum_{c != y} exp(s_c) - s_y.

    Cross-entropy is softplus of it, so both rise together: attacks that compare values of one example and
    follow the direction of its gradient take the same steps on either. But the cross-entropy of an example
    that the classifier is sure of is rounded to 0, and so is its gradient; then the example looks robust.
    """
    rows, others = np.arange(len(scores)), without_true(scores, labels)
    against = log_sum_exp(others)
    gradient = np.exp(others - against[:, np.newaxis])
    gradient[rows, labels] = -1
    return against - scores[rows, labels], gradient


def ensemble_log_odds(logits: Array64, labels: Labels) -> LossAndGradient:
    """Compute the log of the odds against the true class under the mean of the members' probabilities.

    With member i's log-odds o_i, that is log sum_i sigmoid(o_i) - log sum_i sigmoid(-o_i). In this form a
    member that is sure keeps its part of the gradient, however small: where one member is sure of the true
    class and another of a wrong one, there is no other.
    """
    count, members, classes = logits.shape
    odds, slopes = log_odds(logits.reshape(-1, classes), np.repeat(labels, members))
    odds = odds.reshape(count, members)
    # log sigmoid(o) = -log(1 + exp(-o)), and its derivative is sigmoid(-o).
    against, in_favour = -np.logaddexp(0, -odds), -np.logaddexp(0, odds)
    total_against, total_in_favour = log_sum_exp(against), log_sum_exp(in_favour)
    share_against = np.exp(against - total_against[:, np.newaxis])
    share_in_favour = np.exp(in_favour - total_in_favour[:, np.newaxis])
    by_odds = share_against * np.exp(in_favour) + share_in_favour * np.exp(against)
    gradient = slopes.reshape(logits.shape) * by_odds[:, :, np.newaxis]
    return total_against - total_in_favour, gradient


def logit_ratio(scores: Array64, labels: Labels) -> LossAndGradient:
    """Compute the difference of logits ratio, DLR (Croce & Hein, 2020, arXiv:2003.01690, Eq. 6).

    -(s_y - max_{c != y} s_c) / (s_(1) - s_(3)), where s_(j) is the j-th largest score: neither adding to
    the scores nor multiplying them changes it. It needs C >= 3, and is above 0 where another class is
    predicted.
    """
    ranked = np.argsort(-scores, axis=1, kind="stable")
    rivals = np.where(ranked[:, 0] == labels, ranked[:, 1], ranked[:, 0])
    return _ratio(scores, labels, rivals, [(ranked[:, 0], 1.0), (ranked[:, 2], -1.0)])


def targeted_logit_ratio(scores: Array64, labels: Labels, targets: Labels) -> LossAndGradient:
    """Compute the targeted DLR (Croce & Hein, 2020, Eq. 7): -(s_y - s_t) / (s_(1) - (s_(3) + s_(4)) / 2).

    It needs C >= 4, and is above 0 where the target t scores higher than the true class y.
    """
    ranked = np.argsort(-scores, axis=1, kind="stable")
    spread = [(ranked[:, 0], 1.0), (ranked[:, 2], -0.5), (ranked[:, 3], -0.5)]
    return _ratio(scores, labels, targets, spread)


def _ratio(
    scores: Array64, labels: Labels, rivals: Labels, spread: Sequence[tuple[Labels, float]]
) -> LossAndGradient:
    """Compute (s_rival - s_y) / sum of factor * s_class over ``spread``."""
    rows = np.arange(len(scores))
    margin = scores[rows, rivals] - scores[rows, labels]
    width = sum(factor * scores[rows, classes] for classes, factor in spread) + _NO_DIVISION_BY_ZERO
    gradient = np.zeros_like(scores)
    np.add.at(gradient, (rows, rivals), 1 / width)
    np.add.at(gradient, (rows, labels), -1 / width)
    for classes, factor in spread:
        np.add.at(gradient, (rows, classes), -factor * margin / width**2)
    return margin / width, gradient


def margin(scores: Array64, labels: Labels) -> LossAndGradient:
    """Compute margins max_{c != y} s_c - s_y of scores [N, C]: above 0 where another class is predicted."""
    return difference(scores, labels, without_true(scores, labels).argmax(axis=1))


def difference(scores: Array64, labels: Labels, targets: Labels) -> LossAndGradient:
    """Compute differences s_t - s_y of scores [N, C]: above 0 where the target t scores higher."""
    rows, gradient = np.arange(len(scores)), np.zeros_like(scores)
    gradient[rows, targets], gradient[rows, labels] = 1, -1
    return scores[rows, targets] - scores[rows, labels], gradient


def scale_together(losses: Array64, slopes: Array64) -> LossAndGradient:
    """Divide losses [N] and gradients [N, k, C] by each gradient's largest component.

    Where both are needed, as for the distance to a linearised boundary: a target computes in float32, in
    which small gradients vanish.
    """
    scale = np.maximum(np.abs(slopes).max(axis=(1, 2)), np.finfo(np.float64).tiny)
    return losses / scale, slopes / scale[:, None, None]


def of_ensemble(loss: Callable[..., LossAndGradient], logits: Array64, *labels: Labels) -> LossAndGradient:
    """Compute a loss of scores [N, C] for the log-probabilities of an ensemble with logits [N, k, C]."""
    losses, slopes = loss(log_mean_probabilities(logits), *labels)
    return losses, through_log_mean_probabilities(logits, slopes)


def through_log_mean_probabilities(logits: Array64, slopes: Array64) -> Array64:
    """Differentiate :func:`log_mean_probabilities`: gradients [N, C] by it -> by the logits [N, k, C]."""
    by_member, scores = log_softmax(logits), log_mean_probabilities(logits)
    shares = np.exp(by_member - scores[:, np.newaxis]) / logits.shape[1]
    upstream = slopes[:, np.newaxis] * shares
    return np.asarray(upstream - np.exp(by_member) * upstream.sum(axis=2, keepdims=True))


def ensemble_cross_entropy(logits: Array64, labels: Labels) -> LossAndGradient:
    """Compute the cross-entropy of the ensemble's prediction, the mean of the members' probabilities."""
    scores = log_mean_probabilities(logits)
    rows, slopes = np.arange(len(scores)), np.zeros_like(scores)
    slopes[rows, labels] = -1
    return -scores[rows, labels], through_log_mean_probabilities(logits, slopes)


def member_average(logits: Array64, labels: Labels) -> LossAndGradient:
    """Compute the mean of the members' cross-entropies (Luo et al., Eq. 3)."""
    rows, by_member = np.arange(len(logits)), log_softmax(logits)
    gradient = np.exp(by_member)
    gradient[rows, :, labels] -= 1
    return -by_member[rows, :, labels].mean(axis=1), gradient / logits.shape[1]


def stacked_softmax(logits: Array64, labels: Labels) -> LossAndGradient:
    """Compute the cross-entropy that the released code of Luo et al. attacks.

    It takes the mean of the members' softmax for logits, takes the softmax of it, and once more inside
    the cross-entropy. Its gradient is a fraction of the gradient on logits: attacks that follow it look
    weaker than they are.
    """
    rows, first = np.arange(len(logits)), np.exp(log_softmax(logits))
    second = np.exp(log_softmax(first.mean(axis=1)))
    third = log_softmax(second)
    slopes = np.exp(third)
    slopes[rows, labels] -= 1
    slopes = _through_softmax(second, slopes)[:, np.newaxis] / logits.shape[1]
    return -third[rows, labels], _through_softmax(first, np.broadcast_to(slopes, first.shape))


CROSS_ENTROPIES: dict[ObjectiveName, Callable[[Array64, Labels], LossAndGradient]] = {
    "member_average": member_average,
    "ensemble": ensemble_cross_entropy,
    "stacked_softmax": stacked_softmax,
}
"""The loss of each objective: logits [N, k, C] and labels [N] -> losses and gradients."""


def log_mean_probabilities(logits: npt.NDArray[np.floating]) -> Array64:
    """Compute the log of the mean of the members' softmax: [N, k, C] -> [N, C], accurate however small."""
    by_member = log_softmax(logits.astype(np.float64))
    return log_sum_exp(by_member, axis=1) - np.log(logits.shape[1])


def margins_of(scores: npt.NDArray[np.floating], labels: Labels) -> npt.NDArray[np.float32]:
    """Compute by how much the true class's score exceeds the best other one: [N, C] -> float32 [N]."""
    others = without_true(scores, labels)
    return (scores[np.arange(len(labels)), labels] - others.max(axis=1)).astype(np.float32)


def without_true(scores: npt.NDArray[np.floating], labels: Labels) -> npt.NDArray[Any]:
    """Return scores [N, C] with -inf in place of those of the true classes."""
    others = scores.copy()
    others[np.arange(len(scores)), labels] = -np.inf
    return others


def log_softmax(scores: Array64) -> Array64:
    """Compute log-probabilities along the last axis."""
    return scores - log_sum_exp(scores)[..., np.newaxis]


def log_sum_exp(values: Array64, axis: int = -1) -> Array64:
    """Compute log sum exp along an axis without overflow."""
    largest = values.max(axis=axis, keepdims=True)
    summed = np.log(np.exp(values - largest).sum(axis=axis, keepdims=True)) + largest
    return np.asarray(summed.squeeze(axis))


def _through_softmax(probabilities: Array64, upstream: Array64) -> Array64:
    return probabilities * (upstream - (upstream * probabilities).sum(axis=-1, keepdims=True))
