"""Attacks that take steps along the gradient, and what such steps are made of."""

from __future__ import annotations

import math
from typing import ClassVar

import numpy as np
import numpy.typing as npt
from pydantic import Field

from ncen_tf.attack.attack import Array, Attack, Budget, Labels, Norm
from ncen_tf.attack.losses import CROSS_ENTROPIES, Array64, LossAndGradient, ensemble_log_odds
from ncen_tf.attack.objectives import Mask, Objective, RemainingExamples
from ncen_tf.attack.randomness import Keys, image_keys, normals, uniforms
from ncen_tf.base.settings import settings

MOMENTUM_SHARE = 0.75
"""Share of a step of Auto-PGD that goes up the gradient; the rest goes along the last step."""
_TINY = np.float32(1e-12)


@settings
class IterativeGradient(Attack):
    """Gradient steps, each projected onto the perturbation bound (Madry et al., 2018, arXiv:1706.06083).

    Subclasses choose loss, start, momentum and restarts.
    """

    norms: ClassVar[tuple[Norm, ...]] = ("Linf", "L2")
    random_start: ClassVar[bool] = False
    stops_when_broken: ClassVar[bool] = False
    """Whether an example is dropped at the first image that breaks it."""
    restarts: ClassVar[int] = 1
    decay: ClassVar[float | None] = None
    """Share of the accumulated gradient that the next step keeps; ``None`` accumulates nothing."""

    steps: int = Field(default=40, gt=0, description="Number of gradient steps of a run")
    step_size: float = Field(default=0.01, gt=0, description="Size of each step, in the norm")

    def __call__(self, objective: Objective, images: Array, labels: Labels, seed: int) -> Array:
        generator = np.random.default_rng(seed)
        keys = image_keys(images, self.name, seed) if self.random_start else np.empty(0, np.uint64)
        remaining = RemainingExamples(objective, images, labels)
        for run in range(self.restarts):
            x = clean = images[remaining.rows]
            if self.random_start:
                x = random_start(keys[remaining.rows], run, clean, self.eps, self.norm)
            momentum = np.zeros_like(clean)
            for _ in range(self.steps):
                if not len(remaining.rows):
                    return remaining.adversarials
                gradients, remain = self.gradients(remaining, x, generator)
                x, clean, momentum = x[remain], clean[remain], momentum[remain]
                if self.decay is not None:
                    scale = np.abs(gradients).mean(axis=(1, 2, 3), keepdims=True)
                    momentum = np.float32(self.decay) * momentum + gradients / np.maximum(scale, _TINY)
                    gradients = momentum
                x = project(x + self.step_size * direction(gradients, self.norm), clean, self.eps, self.norm)
            remaining.keep(x[remaining.query(x)] if self.stops_when_broken else x)
        return remaining.adversarials

    def budget(self, classes: int, members: int) -> Budget:
        return Budget(self.restarts * self.steps, self.restarts * (self.steps + self.stops_when_broken))

    def loss(self, objective: Objective, logits: Array64, labels: Labels) -> LossAndGradient:
        """Compute what is maximised; by default the objective's cross-entropy."""
        return CROSS_ENTROPIES[objective.name](logits, labels)

    def gradients(
        self, remaining: RemainingExamples, x: Array, generator: np.random.Generator
    ) -> tuple[Array, Mask]:
        """Compute gradients of the examples that remain, and which of the x these are."""
        objective, labels = remaining.objective, remaining.labels[remaining.rows]
        if self.stops_when_broken:
            return remaining.ascend(x, lambda logits, _: self.loss(objective, logits, labels))[1:]
        _, _, gradients = objective.ascend(x, lambda logits: self.loss(objective, logits, labels))
        return gradients, np.ones(len(x), bool)


@settings
class RandomStartPgd(IterativeGradient):
    """PGD on the objective's cross-entropy from one random start."""

    name: ClassVar[str] = "PGD"
    random_start: ClassVar[bool] = True


@settings
class RestartedPgd(IterativeGradient):
    """PGD on the ensemble's log-odds, whatever the objective, from several random starts.

    The defaults are PGD-50-10 of Wong et al. (2020, arXiv:2001.03994), who step eps / 4. An example is
    dropped at the first image that breaks it.
    """

    name: ClassVar[str] = "PGD-restarts"
    seeded_by_image: ClassVar[bool] = True
    random_start: ClassVar[bool] = True
    stops_when_broken: ClassVar[bool] = True
    step_size: float = Field(kw_only=True, gt=0, description="Size of each step, in the norm")
    steps: int = Field(default=50, gt=0, description="Number of gradient steps of a run")
    restarts: int = Field(default=10, gt=0, description="Number of runs, each from a new random start")  # type: ignore[misc]

    def loss(self, objective: Objective, logits: Array64, labels: Labels) -> LossAndGradient:
        return ensemble_log_odds(logits, labels)


@settings
class MomentumIterative(IterativeGradient):
    """Momentum iterative FGSM (Dong et al., 2018, arXiv:1710.06081); no random start."""

    name: ClassVar[str] = "MI-FGSM"
    decay: float = Field(default=1.0, gt=0, description="Share of the accumulated gradient that a step keeps")  # type: ignore[misc]


@settings
class DiverseInput(MomentumIterative):
    """Diverse-input MI-FGSM (Xie et al., 2019, arXiv:1803.06978), for transfer to other models.

    The original enlarges images, which a network of fixed input size cannot take: here, as is usual
    for such networks, they are shrunk and padded with zeros to their old size.
    """

    name: ClassVar[str] = "DIM"
    norms: ClassVar[tuple[Norm, ...]] = ("Linf",)
    probability: float = Field(
        default=0.5, gt=0, le=1, description="Probability of a changed copy at each step"
    )
    least_scale: float = Field(default=0.9, gt=0, le=1, description="Relative size of the smallest copy")

    def gradients(
        self, remaining: RemainingExamples, x: Array, generator: np.random.Generator
    ) -> tuple[Array, Mask]:
        if generator.random() >= self.probability:
            return super().gradients(remaining, x, generator)
        height, width = x.shape[1:3]
        scale = generator.uniform(self.least_scale, 1.0)
        rows, columns = (_nearest(size, math.ceil(scale * size)) for size in (height, width))
        top = int(generator.integers(height - len(rows) + 1))
        left = int(generator.integers(width - len(columns) + 1))
        inside = (slice(None), slice(top, top + len(rows)), slice(left, left + len(columns)))
        picked = (slice(None), rows[:, np.newaxis], columns)
        shrunk = np.zeros_like(x)
        shrunk[inside] = x[picked]
        shrunk_gradients, remain = super().gradients(remaining, shrunk, generator)
        gradients = np.zeros_like(x)
        gradients[picked] = shrunk_gradients[inside]  # A shrunk image takes each pixel once at most.
        return gradients, remain


def _nearest(size: int, smaller: int) -> npt.NDArray[np.intp]:
    """Indices of the pixels that nearest-neighbour resizing keeps, centres aligned."""
    return np.floor((np.arange(smaller) + 0.5) * (size / smaller)).astype(int)


def random_start(keys: Keys, run: int, clean: Array, eps: float, norm: Norm) -> Array:
    """Draw images within the bound: uniform in Linf, in uniform directions at distance eps in L2.

    Args:
        keys: uint64 [N], of the images' random numbers.
        run: Number of the run that starts here.
        clean: float32 [N, H, W, C] in [0, 1].
        eps: Perturbation bound.
        norm: ``Linf`` or ``L2``.
    """
    shape = clean.shape[1:]
    if norm == "Linf":
        change = (eps * (2 * uniforms(keys, run, shape) - 1)).astype(np.float32)
    else:
        change = np.float32(eps) * direction(normals(keys, run, shape), norm)
    return project(clean + change, clean, eps, norm)


def direction(gradient: Array, norm: Norm) -> Array:
    """Return the fastest step of size 1: the sign (Linf) or unit vector (L2) of each gradient."""
    if norm == "Linf":
        return np.sign(gradient)
    # Scaled first: squares of small gradients vanish in float32.
    largest = np.abs(gradient).max(axis=(1, 2, 3), keepdims=True)
    scaled = gradient / np.maximum(largest, np.finfo(np.float32).tiny)
    return scaled / np.maximum(lengths(scaled), np.float32(1))


def project(x: Array, clean: Array, eps: float, norm: Norm) -> Array:
    """Move images to within eps of the clean ones and into [0, 1]: float32 [N, H, W, C].

    In L2, x is pulled towards the clean image first and clipped to [0, 1] then, which satisfies both but
    is not always the nearest such point (the same as in Croce & Hein's implementation).
    """
    if norm == "Linf":
        x = np.clip(x, clean - np.float32(eps), clean + np.float32(eps))
    else:
        change = x - clean
        x = clean + change * np.minimum(1, np.float32(eps) / np.maximum(lengths(change), 1e-12))
    return np.clip(x, 0, 1)


def step_with_momentum(
    x: Array,
    previous: Array,
    gradient: Array,
    step_size: Array | np.float32,
    clean: Array,
    eps: float,
    norm: Norm,
    share: float,
) -> Array:
    """Make one step of Auto-PGD (Croce & Hein, 2020, Eq. 2): up the gradient, and along the last step.

    Args:
        x: float32 [N, H, W, C].
        previous: The images before the last step.
        gradient: float32 [N, H, W, C].
        step_size: In the norm, one for all or [N, 1, 1, 1].
        clean: The images that the bound is around.
        eps: Perturbation bound.
        norm: ``Linf`` or ``L2``.
        share: Of the step up the gradient, in [0, 1].
    """
    ahead = project(x + step_size * direction(gradient, norm), clean, eps, norm)
    return project(x + share * (ahead - x) + (1 - share) * (x - previous), clean, eps, norm)


def lengths(change: Array) -> Array:
    """Compute the Euclidean norm of each image: [N, H, W, C] -> [N, 1, 1, 1]."""
    return np.asarray(np.sqrt(np.square(change).sum(axis=(1, 2, 3), keepdims=True)))
