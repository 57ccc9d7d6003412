"""Square Attack: random search with square patches, no gradients."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, ClassVar

import numpy as np
import numpy.typing as npt

from ncen_tf.attacks.attack import Attack, Norm
from ncen_tf.errors import InputError

if TYPE_CHECKING:
    import tensorflow as tf

    from ncen_tf.attacks.objectives import Objective

Array = npt.NDArray[np.float32]

# Steps, of a budget of 10,000, after which the patches' area is halved (section 4.2 of the paper).
_HALVINGS = (10, 50, 200, 500, 1000, 2000, 4000, 6000, 8000)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Square(Attack):
    """Square Attack, Linf (Andriushchenko et al., 2020, arXiv:1912.00049).

    Lowers the margin between the true class and the best other one, in the ensemble's
    log-probabilities, whatever the objective. Stops early when all of a batch is broken.

    Args:
        queries: most forward passes for an image.
        initial_area: share of the image that the first patches cover, in (0, 1].

    Raises:
        InputError: ``initial_area`` above 1.
    """

    name: ClassVar[str] = "Square"
    norm: ClassVar[Norm] = "Linf"
    gradient_free: ClassVar[bool] = True
    queries: int = 5000
    initial_area: float = 0.8

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.initial_area > 1:
            raise InputError(f"{self.name}: initial_area is at most 1; got {self.initial_area:g}.")

    def __call__(self, objective: Objective, images: tf.Tensor, labels: tf.Tensor, seed: int) -> Array:
        clean, classes = np.asarray(images), np.asarray(labels)
        generator = np.random.default_rng(seed)
        count, height, width, channels = clean.shape
        stripes = generator.choice([-self.eps, self.eps], size=(count, 1, width, channels))
        best = self._around(clean, np.broadcast_to(stripes, clean.shape))
        margins = _margins(objective, best, classes)
        for step in range(1, self.queries):
            if (margins < 0).all():
                break
            area = self.area(step) * height * width
            side = int(np.clip(round(float(np.sqrt(area))), 1, min(height, width)))
            patches = _random_patches(generator, count, height, width, side)
            signs = generator.choice([-self.eps, self.eps], size=(count, 1, 1, channels))
            candidates = np.where(patches, self._around(clean, signs), best)
            new_margins = _margins(objective, candidates, classes)
            better = (new_margins < margins) & (margins >= 0)
            best[better], margins[better] = candidates[better], new_margins[better]
        return best

    def area(self, step: int) -> float:
        """Share of the image that a patch covers at a step, halved along the paper's schedule."""
        scaled = step / self.queries * 10_000
        return float(self.initial_area / 2 ** sum(scaled > halving for halving in _HALVINGS))

    def _around(self, clean: Array, change: npt.NDArray[np.floating]) -> Array:
        return np.clip(clean + change, 0.0, 1.0).astype(np.float32)


def _random_patches(
    generator: np.random.Generator, count: int, height: int, width: int, side: int
) -> npt.NDArray[np.bool_]:
    """One square of ones for each image: [N, H, W, 1]."""
    rows = np.arange(height) - generator.integers(height - side + 1, size=(count, 1))
    columns = np.arange(width) - generator.integers(width - side + 1, size=(count, 1))
    in_rows, in_columns = ((offset >= 0) & (offset < side) for offset in (rows, columns))
    return (in_rows[:, :, np.newaxis] & in_columns[:, np.newaxis, :])[..., np.newaxis]


def _margins(objective: Objective, images: Array, labels: npt.NDArray[np.int32]) -> Array:
    scores = np.array(objective.log_probabilities(images))
    rows = np.arange(len(labels))
    true = scores[rows, labels]
    scores[rows, labels] = -np.inf
    return np.asarray(true - scores.max(axis=1))
