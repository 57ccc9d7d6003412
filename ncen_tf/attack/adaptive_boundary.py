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
    margins_of,
    of_ensemble,
    scale_together,
    without_true,
)
from ncen_tf.attack.minimum_norm import LEAST_MARGIN
from ncen_tf.attack.objectives import Objective
from ncen_tf.attack.target_classes import choice_budget, choose_targets
from ncen_tf.base.settings import settings

_OVERSHOOT = 1.05
"""How far a step goes, as a multiple of the way to the linearised boundary: eta of the paper."""
_LARGEST_SHARE = 0.1
"""Most of a step that is taken from the clean image instead of from the present one: alpha_max."""
_TINY = 1e-8
_LIKELIEST = -1
"""In place of a target class: the likeliest wrong one at the present image."""


@settings
class TargetedAdaptiveBoundary(Attack):
    """FAB-T: the targeted fast adaptive boundary attack (Croce & Hein, 2020, arXiv:1907.02044, Algorithm 1).

    A run goes towards one wrong class. Each step leads to the point where a linear model of the ensemble's
    log-probabilities has the boundary of that class. Part of the step starts from the clean image, so that
    the way ends near it. There are no random numbers, and no step size. There is a run for each of the wrong
    classes that :func:`choose_targets` gives.

    As in AutoAttack, a run starts at the clean image. Unlike there, an image on the wrong side of the
    boundary is moved back step by step, until it is on the right side, and an example is dropped at the first
    image within eps that breaks it. Where gradients mislead, this matters: of 89 images of
    ``exports/reference`` in L2, 110 steps towards the likeliest wrong class break 66, and 20 with a single
    move back after each gradient.
    """

    name: ClassVar[str] = "FAB-T"
    norms: ClassVar[tuple[Norm, ...]] = ("Linf", "L2")
    kept: ClassVar[float] = 0.9
    """Share of its change that an image on the wrong side keeps when it is moved back: beta."""
    farthest: ClassVar[float] = np.inf
    """Multiple of eps to which such an image is moved back at once if it is beyond."""
    steps: int = Field(default=100, gt=0, description="Number of gradient steps of a run")
    targets: int = Field(default=9, gt=0, description="Number of wrong classes that are tried, at most")

    def __call__(self, objective: Objective, images: Array, labels: Labels, seed: int) -> Array:
        found = _Found(objective, images, labels)
        for targets in choose_targets(objective, images, labels, self.norm, self.targets).T:
            found.run(self, targets, images.copy(), self.steps)
        return found.adversarials

    def budget(self, classes: int, members: int) -> Budget:
        steps, choice = self.steps * min(self.targets, classes - 1), choice_budget(classes, self.targets)
        return Budget(steps + choice.gradients, steps + choice.queries)


@settings
class AdaptiveBoundary(TargetedAdaptiveBoundary):
    """FAB with few gradients: runs towards several classes, most of which end early.

    The paper's untargeted attack steps to the nearest boundary of all classes, for which each step costs a
    gradient of every class. Here a step costs one gradient. Runs go towards the nearest classes, see
    :func:`choose_targets`, and one towards the class that is likeliest at the present image, which changes on
    the way. After every ``round_steps`` steps the half that came nearest to the clean image on the wrong side
    goes on, until one is left (successive halving; Jamieson & Talwalkar, 2016, arXiv:1502.07943).

    An image on the wrong side is moved back faster than in the paper, and at once to 1.6 eps from beyond:
    where gradients are short, the first step leads to several eps. Of 96 images of ``exports/reference`` in
    L2, 30 steps towards the likeliest class break 63 in this way, and 8 in the paper's.
    """

    name: ClassVar[str] = "FAB"
    kept: ClassVar[float] = 0.85
    farthest: ClassVar[float] = 1.6
    steps: int = Field(default=60, gt=0, description="Number of gradient steps of the run that is left")
    targets: int = Field(default=3, gt=0, description="Number of wrong classes with a run of their own")
    round_steps: int = Field(default=10, gt=0, description="Number of steps after which half of the runs end")

    def __call__(self, objective: Objective, images: Array, labels: Labels, seed: int) -> Array:
        found = _Found(objective, images, labels)
        chosen = choose_targets(objective, images, labels, self.norm, self.targets)
        targets = np.stack([*chosen.T, np.full_like(labels, _LIKELIEST)])
        x, nearest = np.stack([images] * len(targets)), np.full(targets.shape, np.inf)
        for runs, steps in self._rounds(len(targets)):
            best = np.argsort(nearest, axis=0, kind="stable")[:runs]
            targets, nearest = (np.take_along_axis(values, best, axis=0) for values in (targets, nearest))
            x = np.take_along_axis(x, best[..., None, None, None], axis=0)
            for run in range(runs):
                nearest[run] = np.minimum(nearest[run], found.run(self, targets[run], x[run], steps))
        return found.adversarials

    def budget(self, classes: int, members: int) -> Budget:
        runs, choice = min(self.targets, classes - 1) + 1, choice_budget(classes, self.targets)
        steps = sum(runs * steps for runs, steps in self._rounds(runs))
        return Budget(steps + choice.gradients, steps + choice.queries)

    def _rounds(self, runs: int) -> Iterable[tuple[int, int]]:
        """Yield the number of runs and the steps of each in one round after the other."""
        left = self.steps
        while left:
            steps = min(self.round_steps, left) if runs > 1 else left
            yield runs, steps
            left, runs = left - steps, max(runs // 2, 1)


class _Found:
    """The adversarial images that runs have found so far."""

    def __init__(self, objective: Objective, images: Array, labels: Labels) -> None:
        self.objective, self.images, self.labels = objective, images, labels
        self.adversarials = images.copy()
        self.rows = np.arange(len(images))
        """The examples that remain."""

    def run(self, attack: TargetedAdaptiveBoundary, targets: Labels, x: Array, steps: int) -> Array:
        """Take steps towards the targets [N] from x [N, H, W, C], which is changed in place.

        Returns:
            float32 [N], the size of the smallest change that led to a wrong class; infinite where none did.
        """
        nearest = np.full(len(x), np.inf, np.float32)
        for _ in range(steps):
            if not len(self.rows):
                break
            rows, clean, labels = self.rows, self.images[self.rows], self.labels[self.rows]
            margins, gap, slope = _linearise(self.objective, x[rows], labels, targets[rows])
            sizes = sizes_of(x[rows] - clean, attack.norm)
            wrong = margins > LEAST_MARGIN
            nearest[rows[wrong]] = np.minimum(nearest[rows], sizes)[wrong]
            broken = wrong & (sizes <= attack.eps)
            self.adversarials[rows[broken]] = x[rows[broken]]
            kept = np.minimum(attack.kept, attack.farthest * attack.eps / np.maximum(sizes, _TINY))
            back = clean + kept.astype(np.float32)[:, None, None, None] * (x[rows] - clean)
            ahead = _step(x[rows], clean, gap, slope, attack.norm)
            x[rows] = np.where(margins[:, None, None, None] > 0, back, ahead)
            self.rows = rows[~broken]
        return nearest


def _linearise(
    objective: Objective, x: Array, labels: Labels, targets: Labels
) -> tuple[Array, Array64, Array]:
    """Compare log-probabilities with that of the true class: of the best wrong class, and of the target.

    Returns:
        Margins [N], above 0 where a wrong class is predicted; then the difference of the target [N] and its
        gradient [N, H, W, C], both up to the same positive factor.
    """

    def loss(logits: Array64) -> LossAndGradient:
        likeliest = without_true(log_mean_probabilities(logits), labels).argmax(axis=1)
        aims = np.where(targets == _LIKELIEST, likeliest, targets)
        return scale_together(*of_ensemble(difference, logits, labels, aims))

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
