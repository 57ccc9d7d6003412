"""AutoZOOM: zeroth-order optimisation of a small change that is resized to the image, no gradients."""

from __future__ import annotations

from typing import ClassVar

import numpy as np
import numpy.typing as npt
from pydantic import Field

from ncen_tf.attack.attack import Array, Budget, Labels, MinimalPerturbation, sizes_of
from ncen_tf.attack.losses import Array64, margins_of
from ncen_tf.attack.objectives import Objective
from ncen_tf.base.settings import settings

# Adam (Kingma & Ba, 2015).
_BETA_1, _BETA_2, _TINY = 0.9, 0.999, 1e-8


@settings
class AutoZoom(MinimalPerturbation):
    """AutoZOOM-BiLIN, L2 (Tu et al., 2019, arXiv:1805.11770).

    Looks for a change z of 1/``reduction`` of the image's size, whose bilinear enlargement D(z) is added to
    the image and clipped. Adam minimises |D(z)|^2 + ``weight`` * max(margin, 0), with the margin between the
    true class and the best other one in the ensemble's log-probabilities, whatever the objective. The
    gradient is estimated from differences along random unit vectors: one until the image is broken, then
    ``vectors``, while the change is made smaller. Queries for an image stop when it is broken within ``eps``.
    """

    name: ClassVar[str] = "AutoZOOM"
    gradient_free: ClassVar[bool] = True
    queries: int = Field(default=5000, gt=0, description="Most forward passes for an image")
    reduction: int = Field(default=2, ge=1, description="Quotient of the sides of image and change")
    vectors: int = Field(default=5, ge=1, description="Number of random vectors once the image is broken")
    step_size: float = Field(default=0.01, gt=0, description="Learning rate of Adam on the change")
    weight: float = Field(default=10.0, gt=0, description="Weight of the margin beside the squared distance")

    def __call__(self, objective: Objective, images: Array, labels: Labels, seed: int) -> Array:
        count, height, width, channels = images.shape
        rows_up, columns_up = (_enlargement(size, -(-size // self.reduction)) for size in (height, width))
        small = (rows_up.shape[1], columns_up.shape[1], channels)
        size = int(np.prod(small))
        generator = np.random.default_rng(seed)
        change, mean, square = np.zeros((3, count, *small))
        best, nearest = images.copy(), np.full(count, np.inf)
        is_broken = np.zeros(count, bool)
        steps, used = np.zeros(count, int), np.zeros(count, int)

        def show(rows: npt.NDArray[np.intp], changes: Array64) -> tuple[Array, Array, Array]:
            """Query changed images: the images, their distances and their margins."""
            enlarged = np.einsum("ah,nhwc,bw->nabc", rows_up, changes, columns_up)
            shown = np.clip(images[rows] + enlarged, 0, 1).astype(np.float32)
            used[rows] += 1
            distances = sizes_of(shown - images[rows], self.norm)
            return shown, distances, margins_of(objective.log_probabilities(shown), labels[rows])

        def loss(distances: Array, margins: Array) -> Array:
            return np.square(distances) + np.float32(self.weight) * np.maximum(margins, 0)

        while True:
            vectors = np.where(is_broken, self.vectors, 1)
            rows = np.flatnonzero((nearest > self.eps) & (used < self.queries))
            if not len(rows):
                return self.within_eps(images, best)
            shown, distances, margins = show(rows, change[rows])
            nearer = (margins < 0) & (distances < nearest[rows])
            best[rows[nearer]], nearest[rows[nearer]] = shown[nearer], distances[nearer]
            is_broken[rows] |= margins < 0
            now = np.zeros(count)
            now[rows] = loss(distances, margins)
            rows = rows[(nearest[rows] > self.eps) & (used[rows] + vectors[rows] <= self.queries)]
            used[np.setdiff1d(np.flatnonzero(nearest > self.eps), rows)] = self.queries
            estimate = np.zeros_like(change)
            for number in range(int(vectors[rows].max(initial=0))):
                asked = rows[vectors[rows] > number]
                directions = generator.normal(size=(len(asked), *small))
                directions /= np.linalg.norm(directions.reshape(len(asked), -1), axis=1)[:, None, None, None]
                # Smoothing of 1 / size and a scale of size, as in section 3.3 of the paper.
                _, distances, margins = show(asked, change[asked] + directions / size)
                slopes = (loss(distances, margins) - now[asked]) * size * size / vectors[asked]
                estimate[asked] += slopes[:, None, None, None] * directions
            steps[rows] += 1
            mean[rows] += (1 - _BETA_1) * (estimate[rows] - mean[rows])
            square[rows] += (1 - _BETA_2) * (np.square(estimate[rows]) - square[rows])
            unbiased = (
                moment[rows] / (1 - beta ** steps[rows])[:, None, None, None]
                for moment, beta in ((mean, _BETA_1), (square, _BETA_2))
            )
            first, second = unbiased
            change[rows] -= self.step_size * first / (np.sqrt(second) + _TINY)

    def budget(self, classes: int, members: int) -> Budget:
        return Budget(0, self.queries)


def _enlargement(large: int, small: int) -> Array64:
    """Make the matrix [large, small] that resizes by linear interpolation between centres of pixels."""
    places = np.clip((np.arange(large) + 0.5) * small / large - 0.5, 0, small - 1)
    return np.maximum(1 - np.abs(places[:, np.newaxis] - np.arange(small)), 0)
