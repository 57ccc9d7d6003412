"""Square Attack: random search with square patches, no gradients."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, ClassVar

import numpy as np
import numpy.typing as npt

from ncen_tf.attack import square_windows
from ncen_tf.attack.attack import Attack, Norm
from ncen_tf.base.errors import InputError

if TYPE_CHECKING:
    import tensorflow as tf

    from ncen_tf.attack.objectives import Objective

Array = npt.NDArray[np.float32]

# Steps, of a budget of 10,000, after which the patches' area is halved (section 4.2 of the paper).
_HALVINGS = (10, 50, 200, 500, 1000, 2000, 4000, 6000, 8000)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Square(Attack):
    """Square Attack (Andriushchenko et al., 2020, arXiv:1912.00049).

    Lowers the margin between the true class and the best other one, in the ensemble's
    log-probabilities, whatever the objective. Queries for an image stop when it is broken; a proposal that
    changes nothing counts as one, but is not made.

    Args:
        norm: ``Linf`` or ``L2``.
        queries: most forward passes for an image.
        initial_area: share of the image that the first patches cover, in (0, 1].

    Raises:
        InputError: ``initial_area`` above 1.
    """

    name: ClassVar[str] = "Square"
    norm: Norm = "Linf"
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
        start, propose = (
            (_stripes, _with_patches) if self.norm == "Linf" else (square_windows.tiles, square_windows.moved)
        )
        best = start(generator, clean, self.eps)
        margins = _margins(objective, best, classes)
        height, width = clean.shape[1:3]
        for step in range(1, self.queries):
            rows = np.flatnonzero(margins >= 0)
            if not len(rows):
                break
            side = max(1, round(float(np.sqrt(self.area(step) * height * width))))
            candidates = propose(generator, clean[rows], best[rows], self.eps, side)
            # Small patches often set pixels to what they are: an image that was shown is not shown again.
            moved = (candidates != best[rows]).any(axis=(1, 2, 3))
            rows, candidates = rows[moved], candidates[moved]
            if not len(rows):
                continue
            new_margins = _margins(objective, candidates, classes[rows])
            better = new_margins < margins[rows]
            best[rows[better]], margins[rows[better]] = candidates[better], new_margins[better]
        return best

    def area(self, step: int) -> float:
        """Share of the image that a patch covers at a step, halved along the paper's schedule."""
        scaled = step / self.queries * 10_000
        return float(self.initial_area / 2 ** sum(scaled > halving for halving in _HALVINGS))


def _stripes(generator: np.random.Generator, clean: Array, eps: float) -> Array:
    """Vertical stripes of the size of eps, their signs drawn for each column and channel."""
    count, _, width, channels = clean.shape
    return _around(clean, generator.choice([-eps, eps], size=(count, 1, width, channels)))


def _with_patches(generator: np.random.Generator, clean: Array, best: Array, eps: float, side: int) -> Array:
    """One square of each image set to plus or minus eps in each channel."""
    count, height, width, channels = clean.shape
    side = min(side, height, width)
    rows = np.arange(height) - generator.integers(height - side + 1, size=(count, 1))
    columns = np.arange(width) - generator.integers(width - side + 1, size=(count, 1))
    in_rows, in_columns = ((offset >= 0) & (offset < side) for offset in (rows, columns))
    patches = (in_rows[:, :, np.newaxis] & in_columns[:, np.newaxis, :])[..., np.newaxis]
    signs = generator.choice([-eps, eps], size=(count, 1, 1, channels))
    return np.where(patches, _around(clean, signs), best)


def _around(clean: Array, change: npt.NDArray[np.floating]) -> Array:
    return np.clip(clean + change, 0.0, 1.0).astype(np.float32)


def _margins(objective: Objective, images: Array, labels: npt.NDArray[np.int32]) -> Array:
    scores = np.array(objective.answer(images))
    rows = np.arange(len(labels))
    true = scores[rows, labels]
    scores[rows, labels] = -np.inf
    return np.asarray(true - scores.max(axis=1))
