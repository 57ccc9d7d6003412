"""Auto-PGD: gradient ascent with momentum that chooses its own step sizes."""

from __future__ import annotations

import abc
import dataclasses
from collections.abc import Iterable
from typing import ClassVar

import numpy as np
import numpy.typing as npt
from pydantic import Field

from ncen_tf.attack.attack import Array, Attack, Budget, Labels, Norm
from ncen_tf.attack.iterative import MOMENTUM_SHARE, random_start, step_with_momentum
from ncen_tf.attack.losses import (
    Array64,
    LossAndGradient,
    ensemble_log_odds,
    log_odds,
    logit_ratio,
    of_ensemble,
    targeted_logit_ratio,
)
from ncen_tf.attack.objectives import Loss, Mask, Objective, RemainingExamples, Rows
from ncen_tf.attack.randomness import image_keys
from ncen_tf.attack.target_classes import choice_budget, choose_targets
from ncen_tf.base.settings import settings

_RHO = 0.75  # share of rising steps below which a step size is halved, condition 1


@settings
class AutoPgd(Attack):
    """Auto-PGD (Croce & Hein, 2020, arXiv:2003.01690, section 3), on losses that a subclass names.

    Steps start at 2 eps. At checkpoints, the step of an example whose loss rose too seldom or reached no
    new maximum is halved, and it goes on from its best image. Where paper and the authors' implementation
    differ, this follows the implementation: an example that has just been compared for the first time is
    not halved for want of a new best, and rises are counted along the images that were visited.
    An example is dropped at the first image that breaks it.
    """

    norms: ClassVar[tuple[Norm, ...]] = ("Linf", "L2")
    seeded_by_image: ClassVar[bool] = True
    steps: int = Field(default=100, gt=0, description="Number of gradient steps of a run")
    restarts: int = Field(default=1, gt=0, description="Number of runs for each loss, each from a new start")

    def __call__(self, objective: Objective, images: Array, labels: Labels, seed: int) -> Array:
        self.check_target(objective.target)
        keys = image_keys(images, f"{self.name} {self.steps}", seed)
        remaining = RemainingExamples(objective, images, labels)
        runs = (loss for loss in self.losses(remaining) for _ in range(self.restarts))
        for run, loss in enumerate(runs):
            if len(remaining.rows):
                start = random_start(keys[remaining.rows], run, images[remaining.rows], self.eps, self.norm)
                self._climb(remaining, loss, start)
        return remaining.adversarials

    def budget(self, classes: int, members: int) -> Budget:
        runs = self.restarts * self.number_of_losses(classes, members)
        return Budget(runs * self.steps, runs * (self.steps + 1))

    def number_of_losses(self, classes: int, members: int) -> int:
        """Return how many losses are maximised on a target with so many classes and members."""
        return 1

    @abc.abstractmethod
    def losses(self, remaining: RemainingExamples) -> Iterable[Loss]:
        """List the losses that are maximised one after the other, by the examples that remain."""

    def _climb(self, remaining: RemainingExamples, loss: Loss, x: Array) -> None:
        clean = remaining.clean[remaining.rows]
        losses, gradients, kept = remaining.ascend(x, loss)
        climb = _Climb.begin(clean[kept], x[kept], losses, gradients, 2 * self.eps)
        checked = 0
        for step in range(1, self.steps):
            if not len(remaining.rows):
                return
            climb.move(self.eps, self.norm, 1.0 if step == 1 else MOMENTUM_SHARE)
            losses, gradients, kept = remaining.ascend(climb.x, loss)
            climb.keep(kept)
            climb.observe(losses, gradients)
            if step in checkpoints(self.steps):
                climb.halve_steps(step - checked)
                checked = step
        climb.move(self.eps, self.norm, 1.0 if self.steps == 1 else MOMENTUM_SHARE)
        climb.keep(remaining.query(climb.x))
        remaining.keep(climb.best)


@settings
class AutoPgdCrossEntropy(AutoPgd):
    """APGD-CE: on the ensemble's cross-entropy, by way of its log-odds, whatever the objective."""

    name: ClassVar[str] = "APGD-CE"

    def losses(self, remaining: RemainingExamples) -> Iterable[Loss]:
        yield lambda logits, rows: ensemble_log_odds(logits, remaining.labels[rows])


@settings
class AutoPgdLogitRatio(AutoPgd):
    """APGD-DLR: on the difference of logits ratio of the ensemble's log-probabilities."""

    name: ClassVar[str] = "APGD-DLR"
    least_classes: ClassVar[int] = 3

    def losses(self, remaining: RemainingExamples) -> Iterable[Loss]:
        yield lambda logits, rows: of_ensemble(logit_ratio, logits, remaining.labels[rows])


@settings
class AutoPgdTargeted(AutoPgd):
    """APGD-T: on the targeted DLR of one wrong class after the other, see :func:`choose_targets`."""

    name: ClassVar[str] = "APGD-T"
    least_classes: ClassVar[int] = 4
    targets: int = Field(default=9, gt=0, description="Number of wrong classes that are tried, at most")

    def budget(self, classes: int, members: int) -> Budget:
        climbs, choice = super().budget(classes, members), choice_budget(classes, self.targets)
        return Budget(climbs.gradients + choice.gradients, climbs.queries + choice.queries)

    def number_of_losses(self, classes: int, members: int) -> int:
        return min(self.targets, classes - 1)

    def losses(self, remaining: RemainingExamples) -> Iterable[Loss]:
        def towards(targets: Labels) -> Loss:
            return lambda logits, rows: of_ensemble(targeted_logit_ratio, logits, labels[rows], targets[rows])

        labels = remaining.labels
        chosen = choose_targets(remaining.objective, remaining.clean, labels, self.norm, self.targets)
        for targets in chosen.T:
            yield towards(targets)


@settings
class MeanLogitTransfer(AutoPgd):
    """APGD-CE on the classifier whose logits are the mean of the members' logits.

    Where one member's certainty hides what the others would give away, the mean of logits still has a
    slope. Every image is shown to the ensemble itself. Refuses a single classifier, which would be its own
    surrogate.
    """

    name: ClassVar[str] = "Transfer-mean-logit"
    least_members: ClassVar[int] = 2

    def losses(self, remaining: RemainingExamples) -> Iterable[Loss]:
        def loss(logits: Array64, rows: Rows) -> LossAndGradient:
            losses, slopes = log_odds(logits.mean(axis=1), remaining.labels[rows])
            members = logits.shape[1]
            return losses, np.repeat(slopes[:, np.newaxis] / members, members, axis=1)

        yield loss


@settings
class MemberTransfer(AutoPgd):
    """APGD-CE on one member after the other; ``steps`` and ``restarts`` are for each member.

    Every image is shown to the ensemble itself. Refuses a single classifier.
    """

    name: ClassVar[str] = "Transfer-members"
    least_members: ClassVar[int] = 2

    def number_of_losses(self, classes: int, members: int) -> int:
        return members

    def losses(self, remaining: RemainingExamples) -> Iterable[Loss]:
        def of(member: int) -> Loss:
            def loss(logits: Array64, rows: Rows) -> LossAndGradient:
                slopes = np.zeros_like(logits)
                losses, slopes[:, member] = log_odds(logits[:, member], remaining.labels[rows])
                return losses, slopes

            return loss

        return (of(member) for member in range(remaining.objective.target.members))


def checkpoints(steps: int) -> list[int]:
    """Return the steps w_j = ceil(p_j N) after which step sizes are reconsidered.

    p_1 = 0.22 and p_{j+1} = p_j + max(p_j - p_{j-1} - 0.03, 0.06) (section 3.1 of the paper).
    """
    percent, gap, found = 22, 22, []
    while percent <= 100:
        found.append(-(-percent * steps // 100))
        gap = max(gap - 3, 6)
        percent += gap
    return found


@dataclasses.dataclass
class _Climb:
    """The state of the remaining examples; the first axis of every array is the example."""

    clean: Array
    x: Array
    previous: Array
    loss: Array64
    gradient: Array
    best: Array
    best_loss: Array64
    best_gradient: Array
    checked_loss: Array64
    """Best loss at the last checkpoint."""
    step_size: Array
    """[n, 1, 1, 1]."""
    rises: npt.NDArray[np.int32]
    """Steps since the last checkpoint that raised the loss."""
    halved: Mask
    """Whether the step size was halved at the last checkpoint."""

    @classmethod
    def begin(cls, clean: Array, x: Array, loss: Array64, gradient: Array, step_size: float) -> _Climb:
        count = len(x)
        return cls(
            clean=clean,
            x=x,
            previous=x,
            loss=loss,
            gradient=gradient,
            best=x.copy(),
            best_loss=loss.copy(),
            best_gradient=gradient.copy(),
            checked_loss=loss.copy(),
            step_size=np.full((count, 1, 1, 1), step_size, np.float32),
            rises=np.zeros(count, np.int32),
            halved=np.ones(count, bool),
        )

    def keep(self, kept: Mask) -> None:
        """Drop all other examples."""
        for field in dataclasses.fields(self):
            setattr(self, field.name, getattr(self, field.name)[kept])

    def move(self, eps: float, norm: Norm, share: float) -> None:
        """Make one step (Eq. 2): ``share`` of it up the gradient, the rest along the last step."""
        moved = step_with_momentum(
            self.x, self.previous, self.gradient, self.step_size, self.clean, eps, norm, share
        )
        self.previous, self.x = self.x, moved

    def observe(self, loss: Array64, gradient: Array) -> None:
        """Record loss and gradient of the images that the last step led to."""
        self.rises += loss > self.loss
        self.loss, self.gradient = loss, gradient
        better = loss > self.best_loss
        self.best[better], self.best_gradient[better] = self.x[better], gradient[better]
        self.best_loss[better] = loss[better]

    def halve_steps(self, since: int) -> None:
        """Apply conditions 1 and 2 of the paper at a checkpoint, ``since`` steps after the last."""
        oscillates = self.rises <= _RHO * since
        stuck = ~self.halved & (self.best_loss <= self.checked_loss)
        self.halved = oscillates | stuck
        self.step_size[self.halved] /= 2
        self.x[self.halved] = self.best[self.halved]
        self.gradient[self.halved] = self.best_gradient[self.halved]
        self.checked_loss = self.best_loss.copy()
        self.rises[:] = 0
