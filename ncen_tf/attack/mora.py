"""MORA, an attack on ensembles that follows the members that are closest to being broken."""

from __future__ import annotations

from typing import ClassVar, Literal

import numpy as np
from pydantic import Field

from ncen_tf.attack.attack import Array, Attack, Budget, Labels, Norm
from ncen_tf.attack.iterative import MOMENTUM_SHARE, random_start, step_with_momentum
from ncen_tf.attack.losses import (
    Array64,
    LossAndGradient,
    log_mean_probabilities,
    log_odds,
    log_softmax,
    through_log_mean_probabilities,
    without_true,
)
from ncen_tf.attack.objectives import Objective, RemainingExamples
from ncen_tf.attack.randomness import image_keys
from ncen_tf.base.settings import settings

Averages = Literal["probabilities", "logits"]

_LARGEST_GAP = 10.0
"""Gap between a member's two largest logits above which logits are scaled down."""
_LEAST_WEIGHT, _LEAST_GAP = 1e-100, 1e-12


@settings
class Mora(Attack):
    """Model-reweighing attack (Yu, Gao & Xu, NeurIPS 2022, arXiv:2211.08008) on :func:`mora_loss`.

    Steps fall linearly from 2 eps to 0 and keep a quarter of the last one, from a random start. An example
    is dropped at the first image that breaks it. Refuses a single classifier, which has nothing to reweigh.
    """

    name: ClassVar[str] = "MORA"
    norms: ClassVar[tuple[Norm, ...]] = ("Linf", "L2")
    seeded_by_image: ClassVar[bool] = True
    least_members: ClassVar[int] = 2
    steps: int = Field(default=100, gt=0, description="Number of gradient steps")
    share: float = Field(
        default=0.9,
        gt=0,
        le=1,
        description="Share of the reweighed members in the scores whose loss is maximised",
    )
    averages: Averages = Field(
        default="probabilities", description="What the loss takes the ensemble to average"
    )

    def __call__(self, objective: Objective, images: Array, labels: Labels, seed: int) -> Array:
        self.check_target(objective.target)
        remaining = RemainingExamples(objective, images, labels)
        clean, keys = images, image_keys(images, self.name, seed)
        x = previous = random_start(keys, 0, clean, self.eps, self.norm)
        for step in range(self.steps):
            _, gradients, kept = remaining.ascend(
                x, lambda logits, rows: mora_loss(logits, labels[rows], self.share, self.averages)
            )
            if not len(remaining.rows):
                return remaining.adversarials
            x, previous, clean = x[kept], previous[kept], clean[kept]
            size = np.float32(2 * self.eps * (1 - step / self.steps))
            share = MOMENTUM_SHARE if step else 1.0
            moved = step_with_momentum(x, previous, gradients, size, clean, self.eps, self.norm, share)
            previous, x = x, moved
        remaining.keep(x[remaining.query(x)])
        return remaining.adversarials

    def budget(self, classes: int, members: int) -> Budget:
        return Budget(self.steps, self.steps + 1)


def mora_loss(
    logits: Array64, labels: Labels, share: float = 0.9, averages: Averages = "probabilities"
) -> LossAndGradient:
    """Compute the log-odds against the true class of scores that weigh members by their influence.

    With member i's logits z_i, y the true class and t the likeliest other class of the ensemble:

        s = max(1, max_i (z_i's largest - second largest) / 10),  u_i = z_i / s,  p_i = softmax(u_i)
        F = mean_i p_i                          averages = probabilities
        F = softmax(mean_i u_i)                 averages = logits
        w_i = p_i,t (p_i,y / F_y + (1 - p_i,t) / F_t)
        v = (1 - share) a / (a's largest - second largest) + share sum_i w_i u_i / sum_i w_i
        loss = log sum_{c != y} exp(v_c) - v_y

    w_i is k times the derivative of log(F_t / F_y) by u_i,t: members that are close to their boundary weigh
    more. a is the log of the mean of the members' probabilities, or the mean of their logits. Where
    probabilities are averaged, members that are wrong already have weight 0, unless all are. The gradient
    takes s, t, w and the gap of a as constants, as the authors do. Their released code computes w with the
    sign of p_i,t reversed where the ensemble is right; this is the derivative itself.

    Args:
        logits: [N, k, C].
        labels: int [N].
        share: Of the reweighed members in v, in (0, 1].
        averages: ``probabilities`` or ``logits``.
    """
    count, members, _ = logits.shape
    rows = np.arange(count)
    gaps = _gap(logits)
    scale = np.maximum(1, gaps.max(axis=1) / _LARGEST_GAP)[:, np.newaxis, np.newaxis]
    scaled = logits / scale
    by_member = np.exp(log_softmax(scaled))
    of_probabilities = averages == "probabilities"
    ensemble = by_member.mean(axis=1) if of_probabilities else np.exp(log_softmax(scaled.mean(axis=1)))
    rivals = without_true(ensemble, labels).argmax(axis=1)
    true, rival = by_member[rows, :, labels], by_member[rows, :, rivals]
    least = np.finfo(np.float64).tiny
    total_true = np.maximum(ensemble[rows, labels], least)[:, np.newaxis]
    total_rival = np.maximum(ensemble[rows, rivals], least)[:, np.newaxis]
    weights = rival * (true / total_true + (1 - rival) / total_rival) + _LEAST_WEIGHT
    if of_probabilities:
        right = logits.argmax(axis=2) == labels[:, np.newaxis]
        weights = np.where(right | ~right.any(axis=1, keepdims=True), weights, 0)
    weights /= weights.sum(axis=1, keepdims=True)
    average = log_mean_probabilities(logits) if of_probabilities else logits.mean(axis=1)
    factor = (1 - share) / np.maximum(_gap(average), _LEAST_GAP)[:, np.newaxis]
    losses, slopes = log_odds(
        factor * average + share * (weights[:, :, np.newaxis] * scaled).sum(axis=1), labels
    )
    gradient = share * weights[:, :, np.newaxis] * slopes[:, np.newaxis] / scale
    if of_probabilities:
        return losses, gradient + through_log_mean_probabilities(logits, factor * slopes)
    return losses, gradient + (factor * slopes)[:, np.newaxis] / members


def _gap(scores: Array64) -> Array64:
    """Return the difference between the two largest scores along the last axis."""
    largest = np.partition(scores, -2, axis=-1)
    return np.asarray(largest[..., -1] - largest[..., -2])
