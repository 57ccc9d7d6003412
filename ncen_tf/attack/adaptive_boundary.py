"""FAB: steps to the linearised boundary of a class, drawn towards the clean image."""

from collections.abc import Iterable
from typing import ClassVar

import numpy as np
from pydantic import Field

from ncen_tf.attack.attack import Array, Attack, Budget, Labels, Norm, sizes_of
from ncen_tf.attack.losses import (
    Array64,
    LossAndGradient,
    difference,
    log_mean_probabilities,
    margin,
    margins_of,
    of_ensemble,
    scale_together,
)
from ncen_tf.attack.minimum_norm import LEAST_MARGIN
from ncen_tf.attack.objectives import Objective
from ncen_tf.attack.target_classes import choice_budget, choose_targets
from ncen_tf.base.settings import settings

_OVERSHOOT = 1.05
"""How far a step goes, as a multiple of the way to the linearised boundary: eta of the paper."""
_KEPT = 0.9
"""Share of its change that an image on the wrong side keeps: beta."""
_LARGEST_SHARE = 0.1
"""Most of a step that is taken from the clean image instead of from the present one: alpha_max."""
_TINY = 1e-8


@settings
class AdaptiveBoundary(Attack):
    """FAB: the fast adaptive boundary attack (Croce & Hein, 2020, arXiv:1907.02044, Algorithm 1).

    Each step goes to the point where a linear model of the ensemble's log-probabilities has the boundary of a
    wrong class. Part of the step starts from the clean image, so that the way ends near it. There are no
    random numbers, and no step size.

    The class is the likeliest wrong one at the present image. The paper linearises the boundaries of all
    classes and takes the nearest, for which each step costs a gradient of every class.

    As in AutoAttack, a run starts at the clean image. Unlike there, an image on the wrong side of the
    boundary is moved back step by step, until it is on the right side, and an example is dropped at the first
    image within eps that breaks it. Where gradients mislead, this matters: of 89 images of
    ``exports/reference`` in L2, 110 steps break 66, and 20 with a single move back after each gradient.
    """

    name: ClassVar[str] = "FAB"
    norms: ClassVar[tuple[Norm, ...]] = ("Linf", "L2")
    steps: int = Field(default=100, gt=0, description="Number of gradient steps of a run")

    def __call__(self, objective: Objective, images: Array, labels: Labels, seed: int) -> Array:
        adversarials, rows = images.copy(), np.arange(len(images))
        for targets in self.runs(objective, images, labels):
            x = images[rows]
            for _ in range(self.steps):
                if not len(rows):
                    return adversarials
                clean, true = images[rows], labels[rows]
                margins, gap, slope = _linearise(
                    objective, x, true, None if targets is None else targets[rows]
                )
                found = (margins > LEAST_MARGIN) & (sizes_of(x - clean, self.norm) <= self.eps)
                adversarials[rows[found]] = x[found]
                back = clean + np.float32(_KEPT) * (x - clean)
                ahead = _step(x, clean, gap, slope, self.norm)
                x = np.where(margins[:, None, None, None] > 0, back, ahead)[~found]
                rows = rows[~found]
        return adversarials

    def runs(self, objective: Objective, images: Array, labels: Labels) -> Iterable[Labels | None]:
        """Yield the target classes [N] of one run after the other; ``None`` for the likeliest wrong class."""
        return [None]

    def budget(self, classes: int, members: int) -> Budget:
        return Budget(self.steps, self.steps)


@settings
class TargetedAdaptiveBoundary(AdaptiveBoundary):
    """FAB-T: FAB for one wrong class after the other, see :func:`choose_targets`."""

    name: ClassVar[str] = "FAB-T"
    targets: int = Field(default=9, gt=0, description="Number of wrong classes that are tried, at most")

    def runs(self, objective: Objective, images: Array, labels: Labels) -> Iterable[Labels | None]:
        return choose_targets(objective, images, labels, self.norm, self.targets).T

    def budget(self, classes: int, members: int) -> Budget:
        steps, choice = self.steps * min(self.targets, classes - 1), choice_budget(classes, self.targets)
        return Budget(steps + choice.gradients, steps + choice.queries)


def _linearise(
    objective: Objective, x: Array, labels: Labels, targets: Labels | None
) -> tuple[Array, Array64, Array]:
    """Compare log-probabilities with that of the true class: of the best wrong class, and of the target.

    Returns:
        Margins [N], above 0 where a wrong class is predicted; then the difference of the target [N] and its
        gradient [N, H, W, C], both up to the same positive factor. Without targets, the target is the
        likeliest wrong class.
    """

    def loss(logits: Array64) -> LossAndGradient:
        if targets is None:
            return scale_together(*of_ensemble(margin, logits, labels))
        return scale_together(*of_ensemble(difference, logits, labels, targets))

    logits, gap, slope = objective.ascend(x, loss)
    return -margins_of(log_mean_probabilities(logits), labels), gap, slope


def _step(x: Array, clean: Array, gap: Array64, slope: Array, norm: Norm) -> Array:
    """Step from x, and from the clean image, to where the linear model has the boundary."""
    shape, (x, clean, slope) = x.shape, (values.reshape(len(values), -1) for values in (x, clean, slope))
    gap_of_clean = gap + np.einsum("nd,nd->n", slope, clean - x, dtype=np.float64)
    from_x = change_to_plane(x, slope, -gap, norm)
    from_clean = change_to_plane(clean, slope, -gap_of_clean, norm)
    near, far = (np.maximum(sizes_of(change, norm), _TINY) for change in (from_x, from_clean))
    share = np.minimum(near / (near + far), _LARGEST_SHARE)[:, np.newaxis]
    moved = (1 - share) * (x + _OVERSHOOT * from_x) + share * (clean + _OVERSHOOT * from_clean)
    return np.clip(moved, 0, 1).astype(np.float32).reshape(shape)


def change_to_plane(x: Array, slope: Array, gain: Array64, norm: Norm) -> Array64:
    """Compute the smallest change that gains so much along a slope, within [0, 1].

    Every value moves at its own speed, 1 in Linf and |slope| in L2, until it reaches 0 or 1. The time at
    which the gain is complete follows from the order in which values get there.

    Args:
        x: float32 [N, D] in [0, 1].
        slope: float32 [N, D].
        gain: float64 [N]: slope . change. If [0, 1] does not allow it, the change is the one with the largest
            gain of this sign.
        norm: ``Linf`` or ``L2``, in which the change is smallest.

    Returns:
        float64 [N, D]; x + change is in [0, 1].
    """
    x64, steepness = x.astype(np.float64), np.abs(slope).astype(np.float64)
    towards = np.sign(gain)[:, np.newaxis] * np.sign(slope)
    room = np.where(towards > 0, 1 - x64, x64)
    speed = np.sign(steepness) if norm == "Linf" else steepness
    arrival = np.divide(room, speed, out=np.zeros_like(speed), where=speed > 0)
    order = np.argsort(arrival, axis=1)
    times = np.take_along_axis(arrival, order, axis=1)
    gained = np.take_along_axis(steepness * room, order, axis=1)
    rate = np.take_along_axis(steepness * speed, order, axis=1)
    before = np.cumsum(gained, axis=1) - gained  # by the values that arrive earlier
    rates = np.cumsum(rate[:, ::-1], axis=1)[:, ::-1]  # of those that do not
    wanted = np.abs(gain)[:, np.newaxis]
    # The first arrival at which the gain is complete; if there is none, the last one.
    complete = before + rates * times >= wanted
    first = np.where(complete.any(axis=1), complete.argmax(axis=1), complete.shape[1] - 1)[:, np.newaxis]
    missing, pace = (np.take_along_axis(v, first, axis=1) for v in (wanted - before, rates))
    time = np.divide(missing, pace, out=np.zeros_like(pace), where=pace > 0)
    return np.asarray(towards * np.minimum(time * speed, room))
