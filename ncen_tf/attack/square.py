"""Square Attack: random search with square patches, no gradients."""

from __future__ import annotations

from typing import ClassVar

import numpy as np
import numpy.typing as npt
from pydantic import Field

from ncen_tf.attack.attack import Array, Attack, Budget, Labels, Norm
from ncen_tf.attack.iterative import lengths
from ncen_tf.attack.losses import margins_of
from ncen_tf.attack.objectives import Objective, Rows
from ncen_tf.attack.randomness import Keys, image_keys, places, signs, uniforms
from ncen_tf.base.settings import settings

# Steps, of a budget of 10,000, after which the patches' area is halved (section 4.2 of the paper).
_HALVINGS = (10, 50, 200, 500, 1000, 2000, 4000, 6000, 8000)
_TINY = np.float32(1e-12)
_LEAST_SIDE = 3


@settings
class Square(Attack):
    """Square Attack (Andriushchenko et al., 2020, arXiv:1912.00049).

    Lowers the margin between the true class and the best other one, in the ensemble's
    log-probabilities, whatever the objective. Queries for an image stop when it is broken; a proposal that
    changes nothing counts as one, but is not made.
    """

    name: ClassVar[str] = "Square"
    gradient_free: ClassVar[bool] = True
    seeded_by_image: ClassVar[bool] = True
    norms: ClassVar[tuple[Norm, ...]] = ("Linf", "L2")
    queries: int = Field(default=5000, gt=0, description="Most forward passes for an image")
    initial_area: float = Field(
        default=0.8, gt=0, le=1, description="Share of the image that the first patches cover"
    )

    def __call__(self, objective: Objective, images: Array, labels: Labels, seed: int) -> Array:
        clean, classes = images, labels
        keys = image_keys(clean, f"{self.name} {self.queries}", seed)
        start, propose = (_stripes, _with_patches) if self.norm == "Linf" else (_tiles, _with_window)
        best = start(keys, clean, self.eps)
        left = margins_of(objective.log_probabilities(best), classes)
        height, width = clean.shape[1:3]
        for step in range(1, self.queries):
            rows = np.flatnonzero(left >= 0)
            if not len(rows):
                break
            side = max(1, round(float(np.sqrt(self.area(step) * height * width))))
            candidates = propose(keys[rows], step, clean[rows], best[rows], self.eps, side)
            # Small patches often set pixels to what they are: an image that was shown is not shown again.
            moved = (candidates != best[rows]).any(axis=(1, 2, 3))
            rows, candidates = rows[moved], candidates[moved]
            if not len(rows):
                continue
            new = margins_of(objective.log_probabilities(candidates), classes[rows])
            better = new < left[rows]
            best[rows[better]], left[rows[better]] = candidates[better], new[better]
        return best

    def budget(self, classes: int, members: int) -> Budget:
        return Budget(0, self.queries)

    def area(self, step: int) -> float:
        """Return the share of the image that a patch covers at a step, halved along the paper's schedule."""
        scaled = step / self.queries * 10_000
        return float(self.initial_area / 2 ** sum(scaled > halving for halving in _HALVINGS))


def _stripes(keys: Keys, clean: Array, eps: float) -> Array:
    """Draw vertical stripes of the size of eps, their signs drawn for each column and channel."""
    _, _, width, channels = clean.shape
    return _around(clean, eps * signs(uniforms(keys, 0, (1, width, channels))))


def _with_patches(keys: Keys, draw: int, clean: Array, best: Array, eps: float, side: int) -> Array:
    """Set one square of each image to plus or minus eps in each channel."""
    _, height, width, channels = clean.shape
    side = min(side, height, width)
    numbers = uniforms(keys, draw, (2 + channels,))
    rows = np.arange(height) - places(numbers[:, :1], height - side + 1)
    columns = np.arange(width) - places(numbers[:, 1:2], width - side + 1)
    in_rows, in_columns = ((offset >= 0) & (offset < side) for offset in (rows, columns))
    patches = (in_rows[:, :, np.newaxis] & in_columns[:, np.newaxis, :])[..., np.newaxis]
    change = eps * signs(numbers[:, np.newaxis, np.newaxis, 2:])
    return np.where(patches, _around(clean, change), best)


def _around(clean: Array, change: npt.NDArray[np.floating]) -> Array:
    return np.clip(clean + change, 0.0, 1.0).astype(np.float32)


# In L2 (section 3.4 of the paper), a change is made of windows, each with a bump above and a dent below, or
# side by side. A proposal takes the budget from one window and spends it on another.


def _tiles(keys: Keys, clean: Array, eps: float) -> Array:
    """Cover images with 5 x 5 windows of random signs, at distance eps: float32 [N, H, W, C]."""
    _, height, width, channels = clean.shape
    side = max(min(height, width) // 5, 1)
    top, left = height % side // 2, width % side // 2
    rows, columns = range(top, height - side + 1, side), range(left, width - side + 1, side)
    numbers = uniforms(keys, 0, (len(rows), len(columns), 1, 1, 1 + channels))
    change = np.zeros_like(clean)
    for i, row in enumerate(rows):
        for j, column in enumerate(columns):
            windows = signs(numbers[:, i, j, ..., 1:]) * _windows(numbers[:, i, j, ..., 0], side)
            change[:, row : row + side, column : column + side] = windows
    return _at_distance(clean, change, eps)


def _with_window(keys: Keys, draw: int, clean: Array, best: Array, eps: float, side: int) -> Array:
    """Propose new images (Algorithm 3 of the paper): float32 [N, H, W, C] at distance eps.

    Args:
        keys: Of the images' random numbers.
        draw: Number of the proposal.
        clean: float32 [N, H, W, C] in [0, 1].
        best: The best images so far.
        eps: Perturbation bound.
        side: Side of the windows; the next odd number within the image is taken.
    """
    count, height, width, channels = clean.shape
    side = min(max(side, _LEAST_SIDE) // 2 * 2 + 1, height, width)
    numbers = uniforms(keys, draw, (5 + channels,))[:, np.newaxis, np.newaxis]
    change = best - clean
    gains, loses = (_place(numbers[..., at : at + 2], height, width, side) for at in (0, 2))
    unused = np.maximum(np.float32(eps**2) - np.square(lengths(change)), 0)
    spent = np.zeros((count, height, width, 1), bool)
    spent[gains] = spent[loses] = True
    available = np.square(change * spent).sum(axis=(1, 2), keepdims=True) + unused / channels
    bump = _unit(change[gains]) + signs(numbers[..., 5:]) * _windows(numbers[..., 4], side)
    change[loses] = 0
    change[gains] = _unit(np.asarray(bump, np.float32)) * np.sqrt(available)
    return _at_distance(clean, change, eps)


def _windows(numbers: npt.NDArray[np.float64], side: int) -> Array:
    """Make a bump and a dent of unit length together, side by side where a number is below a half.

    Args:
        numbers: [N, 1, 1], uniform.
        side: Side of the windows.

    Returns:
        [N, side, side, 1].
    """
    upper = _bump(side // 2, side)
    both = np.concatenate([upper, -_bump(side - side // 2, side)])
    both /= np.linalg.norm(both)
    return np.where(numbers < 0.5, both.T, both)[..., np.newaxis]


def _bump(height: int, width: int) -> Array:
    """Make a bump of unit length: sum of 1 / (j + 1)^2 over j from the distance to its centre on."""
    rows = np.abs(np.arange(height) - height // 2)[:, np.newaxis]
    columns = np.abs(np.arange(width) - width // 2)
    shares = 1 / np.square(np.arange(max(height, width) // 2 + 1, dtype=np.float32) + 1)
    bump = np.cumsum(shares[::-1])[::-1][np.maximum(rows, columns)]
    return np.asarray(bump / max(np.linalg.norm(bump), _TINY), np.float32)


def _place(numbers: npt.NDArray[np.float64], height: int, width: int, side: int) -> tuple[Rows, Rows, Rows]:
    """Choose the square of each image that a window covers: indices into [N, H, W]."""
    along = np.arange(side)
    rows = places(numbers[..., 0], height - side + 1) + along[:, np.newaxis]
    columns = places(numbers[..., 1], width - side + 1) + along
    return np.arange(len(numbers))[:, np.newaxis, np.newaxis], rows, columns


def _unit(windows: Array) -> Array:
    """Scale each channel of each window to unit length: [N, h, w, C]."""
    return np.asarray(windows / (np.sqrt(np.square(windows).sum(axis=(1, 2), keepdims=True)) + _TINY))


def _at_distance(clean: Array, change: Array, eps: float) -> Array:
    return np.clip(clean + change * np.float32(eps) / (lengths(change) + _TINY), 0, 1)
