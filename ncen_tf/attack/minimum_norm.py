"""Attacks that look for the nearest adversarial image along the gradient, without a given radius."""

from __future__ import annotations

import abc
import dataclasses
from typing import ClassVar, NamedTuple

import numpy as np
import numpy.typing as npt
from pydantic import Field

from ncen_tf.attack.attack import Array, Budget, Labels, MinimalPerturbation, Norm, sizes_of
from ncen_tf.attack.iterative import direction, lengths
from ncen_tf.attack.losses import Array64, LossAndGradient, margin, of_ensemble, scale_together
from ncen_tf.attack.objectives import Mask, Objective
from ncen_tf.base.settings import settings

LEAST_MARGIN = 1e-4
"""By which a wrong class must win, in logits: rounding in another batch does not undo it."""
_TINY = 1e-12


class Answer(NamedTuple):
    """What the target says about images."""

    adversarial: Mask
    """[N], whether another class wins."""
    loss: Array64
    """[N], margin by which another class wins, scaled like the gradient."""
    gradient: Array
    """[N, H, W, C]."""


@dataclasses.dataclass
class Walk:
    """The images that a search has reached; the first axis of every array is the example."""

    clean: Array
    x: Array
    bound: Array
    """[N], radius of the ball that x is in, or another threshold of the attack."""
    nearest: Array
    distance: Array
    """[N], size of the change of ``nearest``; infinite until an adversarial image is found."""

    def observe(self, adversarial: Mask, norm: Norm) -> None:
        """Keep the adversarial ones of x that are nearer than those before."""
        sizes = sizes_of(self.x - self.clean, norm)
        nearer = adversarial & (sizes < self.distance)
        self.nearest[nearer], self.distance[nearer] = self.x[nearer], sizes[nearer]


@settings
class MinimumNorm(MinimalPerturbation):
    """Base of searches for the nearest adversarial image, on margins of the ensemble's log-probabilities."""

    steps: int = Field(default=100, gt=0, description="Number of gradient steps")
    first_bound: ClassVar[float] = 0.0

    def __call__(self, objective: Objective, images: Array, labels: Labels, seed: int) -> Array:
        count = len(images)
        distance = np.full(count, np.inf, np.float32)
        bound = np.full(count, self.first_bound, np.float32)
        walk = Walk(images, images, bound, images.copy(), distance)
        for step in range(self.steps):
            answer = _ask(objective, walk.x, labels)
            walk.observe(answer.adversarial, self.norm)
            falling = (1 + np.cos(np.pi * step / self.steps)) / 2  # from 1 to 0
            walk.x = np.clip(images + self.move(walk, answer, np.float32(falling)), 0, 1)
        return self.within_eps(images, walk.nearest)

    def budget(self, classes: int, members: int) -> Budget:
        return Budget(self.steps, self.steps)

    @abc.abstractmethod
    def move(self, walk: Walk, answer: Answer, falling: np.float32) -> Array:
        """Return the next change of the images [N, H, W, C], and set the bounds of the walk.

        Args:
            walk: The images so far.
            answer: What the target says about ``walk.x``.
            falling: Falls from 1 to 0 over the steps, as a cosine.
        """


@settings
class FastMinimumNorm(MinimumNorm):
    """FMN (Pintor et al., 2021, arXiv:2102.12827, Algorithm 1): gradient steps inside a ball whose radius
    shrinks while the image is adversarial and grows while it is not.

    Until an image is adversarial, the radius is the distance of the linearised boundary, as in the paper, but
    grows at least like that of later steps: [0, 1] may cut off what the linear model counts on.
    """

    name: ClassVar[str] = "FMN"
    norms: ClassVar[tuple[Norm, ...]] = ("Linf", "L2", "L1", "L0")
    norm: Norm = "Linf"
    step_size: float = Field(
        default=1.0, gt=0, description="First L2 size of a step; it falls to a hundredth"
    )
    rate: float = Field(
        default=0.05, gt=0, lt=1, description="First relative change of the radius; it falls to a fiftieth"
    )

    def move(self, walk: Walk, answer: Answer, falling: np.float32) -> Array:
        rate = self.rate * (0.02 + 0.98 * falling)
        change = walk.x - walk.clean
        larger, smaller = walk.bound * (1 + rate), walk.bound * (1 - rate)
        if self.norm == "L0":
            larger = np.maximum(walk.bound + 1, np.floor(larger))
            smaller = np.minimum(walk.bound - 1, np.floor(smaller))
        dual: Norm = {"Linf": "L1", "L2": "L2", "L1": "Linf", "L0": "Linf"}[self.norm]  # type: ignore[assignment]
        missing = np.abs(answer.loss) + 2 * LEAST_MARGIN
        to_boundary = missing / np.maximum(sizes_of(answer.gradient, dual), _TINY)
        linearised = np.minimum(sizes_of(change, self.norm) + to_boundary, change[0].size)
        outside = np.where(np.isfinite(walk.distance), larger, np.maximum(larger, linearised))
        inside = np.minimum(smaller, walk.distance)
        walk.bound = np.where(answer.adversarial, inside, outside).astype(np.float32)
        step = np.float32(self.step_size) * (np.float32(0.01) + np.float32(0.99) * falling)
        return to_ball(change + step * direction(answer.gradient, "L2"), walk.bound, self.norm)


@settings
class DecoupledDirectionNorm(MinimumNorm):
    """DDN, L2 (Rony et al., 2019, arXiv:1811.09600, Algorithm 1): steps turn the direction of the change, and
    its length shrinks while the image is adversarial and grows while it is not.
    """

    name: ClassVar[str] = "DDN"
    first_bound: ClassVar[float] = 1.0
    rate: float = Field(default=0.05, gt=0, lt=1, description="Relative change of the length in a step")

    def move(self, walk: Walk, answer: Answer, falling: np.float32) -> Array:
        walk.bound = walk.bound * np.where(answer.adversarial, 1 - self.rate, 1 + self.rate).astype(
            np.float32
        )
        step = np.float32(0.01) + np.float32(0.99) * falling
        change = walk.x - walk.clean + step * direction(answer.gradient, "L2")
        unit = change / np.maximum(lengths(change), np.float32(_TINY))
        return np.asarray(walk.bound[:, None, None, None] * unit, np.float32)


@settings
class SigmaZero(MinimumNorm):
    """Sigma-zero, L0 (Cinà et al., 2025, arXiv:2402.01879, Algorithm 1): steps on the margin and on a smooth
    count of the changed values, of which small ones are set back.

    ``eps`` is the largest number of changed values. A value is one channel of one pixel.
    """

    name: ClassVar[str] = "sigma-zero"
    norms: ClassVar[tuple[Norm, ...]] = ("L0",)
    norm: Norm = "L0"
    steps: int = Field(default=300, gt=0, description="Number of gradient steps")
    step_size: float = Field(default=1.0, gt=0, description="First Linf size of a step; it falls to 0")
    sigma: float = Field(
        default=1e-3,
        gt=0,
        description="Smoothness of the count, the sum of d^2 / (d^2 + sigma) over changes d",
    )
    first_bound: ClassVar[float] = 0.3
    """First size below which a change is set back."""
    rate: float = Field(
        default=0.01, gt=0, description="Change of that size in a step, relative to the step's"
    )

    def move(self, walk: Walk, answer: Answer, falling: np.float32) -> Array:
        change = walk.x - walk.clean
        # The margin pulls only while the image is classified correctly.
        pull = np.where(answer.adversarial[:, None, None, None], 0, answer.gradient)
        count_slope = 2 * change * self.sigma / np.square(np.square(change) + self.sigma) / change[0].size
        descent = count_slope - pull
        step = np.float32(self.step_size) * falling
        largest = np.maximum(np.abs(descent).max(axis=(1, 2, 3), keepdims=True), _TINY)
        moved = np.clip(walk.clean + change - step * descent / largest, 0, 1) - walk.clean
        signs = np.where(answer.adversarial, 1, -1)
        walk.bound = np.maximum(walk.bound + np.float32(self.rate) * step * signs, 0).astype(np.float32)
        return np.where(np.abs(moved) < walk.bound[:, None, None, None], 0, moved).astype(np.float32)


def to_ball(change: Array, radius: Array, norm: Norm) -> Array:
    """Project changes [N, H, W, C] onto balls of radius [N] around 0: the nearest point in L2."""
    flat, radius = change.reshape(len(change), -1), radius[:, np.newaxis]
    if norm == "Linf":
        projected = np.clip(flat, -radius, radius)
    elif norm == "L2":
        projected = flat * np.minimum(
            1, radius / np.maximum(np.linalg.norm(flat, axis=1, keepdims=True), _TINY)
        )
    elif norm == "L0":
        order = np.argsort(-np.abs(flat), axis=1, kind="stable")
        projected = np.where(np.argsort(order, axis=1) < radius, flat, 0)
    else:
        projected = np.sign(flat) * np.maximum(np.abs(flat) - _l1_threshold(np.abs(flat), radius), 0)
    return np.asarray(projected.reshape(change.shape), np.float32)


def _l1_threshold(sizes: Array, radius: Array) -> npt.NDArray[np.float64]:
    """Find what all sizes [N, D] must lose for those above 0 to sum to the radius (Duchi et al., 2008)."""
    falling = -np.sort(-sizes.astype(np.float64), axis=1)
    excess = (np.cumsum(falling, axis=1) - radius) / np.arange(1, sizes.shape[1] + 1)
    last = np.sum(falling > excess, axis=1, keepdims=True) - 1
    return np.maximum(np.take_along_axis(excess, np.maximum(last, 0), axis=1), 0)


def _ask(objective: Objective, x: Array, labels: Labels) -> Answer:
    def loss(logits: Array64) -> LossAndGradient:
        return scale_together(*of_ensemble(margin, logits, labels))

    _, losses, gradients = objective.ascend(x, loss)
    return Answer(losses > LEAST_MARGIN, losses, gradients)
