"""Auto-PGD: gradient ascent with momentum that chooses its own step sizes."""

from __future__ import annotations

import abc
import dataclasses
from collections.abc import Iterable
from typing import TYPE_CHECKING, ClassVar

import numpy as np
import numpy.typing as npt

from ncen_tf.attack.attack import Attack, Norm
from ncen_tf.attack.balls import direction, project, random_start
from ncen_tf.base.errors import InputError

if TYPE_CHECKING:
    import tensorflow as tf

    from ncen_tf.attack.objectives import Objective
    from ncen_tf.attack.standing import Loss, Standing

Array = npt.NDArray[np.float32]
Losses = npt.NDArray[np.float64]
Mask = npt.NDArray[np.bool_]

_MOMENTUM = 0.75  # share of the new step, alpha of Eq. 2
_RHO = 0.75  # share of rising steps below which a step size is halved, condition 1


@dataclasses.dataclass(frozen=True, kw_only=True)
class AutoPgd(Attack):
    """Auto-PGD (Croce & Hein, 2020, arXiv:2003.01690, section 3), on losses that a subclass names.

    Steps start at 2 eps. At checkpoints, the step of an example whose loss rose too seldom or reached
    nothing new is halved, and it goes on from its best image. Where paper and the authors' implementation
    differ, this follows the implementation: an example that has just been compared for the first time is
    not halved for want of a new best, and rises are counted along the images that were visited.
    An example is dropped at the first image that breaks it.

    Args:
        norm: ``Linf`` or ``L2``.
        steps: gradient steps of a run.
        restarts: runs for each loss, each from a new random start.
    """

    norm: Norm = "Linf"
    steps: int = 100
    restarts: int = 1

    least_classes: ClassVar[int] = 2
    """That the losses are defined for."""

    def __call__(self, objective: Objective, images: tf.Tensor, labels: tf.Tensor, seed: int) -> Array:
        from ncen_tf.attack.standing import Standing

        if objective.target.classes < self.least_classes:
            raise InputError(
                f"{self.name} needs at least {self.least_classes} classes; {objective.target.description} "
                f"has {objective.target.classes}."
            )
        generator = np.random.default_rng(seed)
        standing = Standing(objective, images, labels)
        for loss in self.losses(standing):
            for _ in range(self.restarts):
                if len(standing.rows):
                    self._climb(standing, loss, generator)
        return standing.adversarials

    @abc.abstractmethod
    def losses(self, standing: Standing) -> Iterable[Loss]:
        """What is raised, one after the other, by the examples that still stand."""

    def _climb(self, standing: Standing, loss: Loss, generator: np.random.Generator) -> None:
        clean = standing.clean[standing.rows]
        x = random_start(generator, clean, self.eps, self.norm)
        losses, gradients, kept = standing.differentiate(x, loss)
        climb = _Climb.begin(clean[kept], x[kept], losses, gradients, 2 * self.eps)
        checked = 0
        for step in range(1, self.steps):
            if not len(standing.rows):
                return
            climb.move(self.eps, self.norm, 1.0 if step == 1 else _MOMENTUM)
            losses, gradients, kept = standing.differentiate(climb.x, loss)
            climb.keep(kept)
            climb.observe(losses, gradients)
            if step in checkpoints(self.steps):
                climb.halve_steps(step - checked)
                checked = step
        climb.move(self.eps, self.norm, 1.0 if self.steps == 1 else _MOMENTUM)
        climb.keep(standing.query(climb.x))
        standing.leave(climb.best)


def checkpoints(steps: int) -> list[int]:
    """Steps w_j = ceil(p_j N) after which step sizes are reconsidered.

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
    """Where the standing examples are; the first axis of every array is the example."""

    clean: Array
    x: Array
    previous: Array
    loss: Losses
    gradient: Array
    best: Array
    best_loss: Losses
    best_gradient: Array
    checked_loss: Losses
    """Best loss at the last checkpoint."""
    step_size: Array
    """[n, 1, 1, 1]."""
    rises: npt.NDArray[np.int32]
    """Steps since the last checkpoint that raised the loss."""
    halved: Mask
    """Whether the step size was halved at the last checkpoint."""

    @classmethod
    def begin(cls, clean: Array, x: Array, loss: Losses, gradient: Array, step_size: float) -> _Climb:
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
        """Forget all other examples."""
        for field in dataclasses.fields(self):
            setattr(self, field.name, getattr(self, field.name)[kept])

    def move(self, eps: float, norm: Norm, share: float) -> None:
        """One step (Eq. 2 of the paper): ``share`` of it up the gradient, the rest along the last step."""
        ahead = project(self.x + self.step_size * direction(self.gradient, norm), self.clean, eps, norm)
        moved = self.x + share * (ahead - self.x) + (1 - share) * (self.x - self.previous)
        self.previous, self.x = self.x, project(moved, self.clean, eps, norm)

    def observe(self, loss: Losses, gradient: Array) -> None:
        """Take in what was found where the last step led."""
        self.rises += loss > self.loss
        self.loss, self.gradient = loss, gradient
        better = loss > self.best_loss
        self.best[better], self.best_gradient[better] = self.x[better], gradient[better]
        self.best_loss[better] = loss[better]

    def halve_steps(self, since: int) -> None:
        """At a checkpoint, ``since`` steps after the last: conditions 1 and 2 of the paper."""
        oscillates = self.rises <= _RHO * since
        stuck = ~self.halved & (self.best_loss <= self.checked_loss)
        self.halved = oscillates | stuck
        self.step_size[self.halved] /= 2
        self.x[self.halved] = self.best[self.halved]
        self.gradient[self.halved] = self.best_gradient[self.halved]
        self.checked_loss = self.best_loss.copy()
        self.rises[:] = 0
