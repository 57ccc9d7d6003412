"""Square Attack: random search with square patches, no gradients."""

from __future__ import annotations

from typing import ClassVar

import numpy as np
import numpy.typing as npt
from pydantic import Field

from ncen_tf.attack.attack import Array, Attack, Labels, Norm
from ncen_tf.attack.iterative import lengths
from ncen_tf.attack.objectives import Objective
from ncen_tf.base.settings import settings

# Steps, of a budget of 10,000, after which the patches' area is halved (section 4.2 of the paper).
_HALVINGS = (10, 50, 200, 500, 1000, 2000, 4000, 6000, 8000)
_SIGNS = np.array([-1, 1], np.float32)
_TINY = np.float32(1e-12)
_LEAST_SIDE = 3


@settings
class Square(Attack):
    """Square Attack (Andriushchenko et al., 2020, arXiv:1912.00049).

    Lowers the margin between the true class and the best other one, in the ensemble's
    log-probabilities, whatever the objective. Queries for an image stop when it is broken; a proposal that
    changes nothing counts as one, but is not made.

    Args:
        eps: Perturbation bound.
        norm: ``Linf`` or ``L2``.
        queries: Most forward passes for an image.
        initial_area: Share of the image that the first patches cover, in (0, 1].
    """

    name: ClassVar[str] = "Square"
    gradient_free: ClassVar[bool] = True
    norms: ClassVar[tuple[Norm, ...]] = ("Linf", "L2")
    queries: int = Field(default=5000, gt=0, description="Most forward passes for an image")
    initial_area: float = Field(
        default=0.8, gt=0, le=1, description="Share of the image that the first patches cover"
    )

    def __call__(self, objective: Objective, images: Array, labels: Labels, seed: int) -> Array:
        clean, classes = images, labels
        generator = np.random.default_rng(seed)
        start, propose = (_stripes, _with_patches) if self.norm == "Linf" else (_tiles, _with_window)
        best = start(generator, clean, self.eps)
        margins = margins_of(objective, best, classes)
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
            new_margins = margins_of(objective, candidates, classes[rows])
            better = new_margins < margins[rows]
            best[rows[better]], margins[rows[better]] = candidates[better], new_margins[better]
        return best

    def area(self, step: int) -> float:
        """Return the share of the image that a patch covers at a step, halved along the paper's schedule."""
        scaled = step / self.queries * 10_000
        return float(self.initial_area / 2 ** sum(scaled > halving for halving in _HALVINGS))


def _stripes(generator: np.random.Generator, clean: Array, eps: float) -> Array:
    """Draw vertical stripes of the size of eps, their signs drawn for each column and channel."""
    count, _, width, channels = clean.shape
    return _around(clean, generator.choice([-eps, eps], size=(count, 1, width, channels)))


def _with_patches(generator: np.random.Generator, clean: Array, best: Array, eps: float, side: int) -> Array:
    """Set one square of each image to plus or minus eps in each channel."""
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


def margins_of(objective: Objective, images: Array, labels: Labels) -> Array:
    """Compute the margin between true class and best other one, in log-probabilities: [N]."""
    scores = objective.log_probabilities(images)
    rows = np.arange(len(labels))
    true = scores[rows, labels]
    scores[rows, labels] = -np.inf
    return np.asarray(true - scores.max(axis=1))


# In L2 (section 3.4 of the paper), a change is made of windows, each with a bump above and a dent below, or
# side by side. A proposal takes the budget from one window and spends it on another. Windows are at the same
# place in all images of a batch.


def _tiles(generator: np.random.Generator, clean: Array, eps: float) -> Array:
    """Cover images with 5 x 5 windows of random signs, at distance eps: float32 [N, H, W, C]."""
    count, height, width, channels = clean.shape
    side = max(min(height, width) // 5, 1)
    top, left = height % side // 2, width % side // 2
    change = np.zeros_like(clean)
    for row in range(top, height - side + 1, side):
        for column in range(left, width - side + 1, side):
            signs = generator.choice(_SIGNS, size=(count, 1, 1, channels))
            change[:, row : row + side, column : column + side] = signs * _window(generator, side)
    return _at_distance(clean, change, eps)


def _with_window(generator: np.random.Generator, clean: Array, best: Array, eps: float, side: int) -> Array:
    """Propose new images (Algorithm 3 of the paper): float32 [N, H, W, C] at distance eps.

    Args:
        generator: Source of places and signs.
        clean: float32 [N, H, W, C] in [0, 1].
        best: The best images so far.
        eps: Perturbation bound.
        side: Side of the windows; the next odd number within the image is taken.
    """
    count, height, width, channels = clean.shape
    side = min(max(side, _LEAST_SIDE) // 2 * 2 + 1, height, width)
    change = best - clean
    gains, loses = (_place(generator, height - side, width - side, side) for _ in range(2))
    unused = np.maximum(np.float32(eps**2) - np.square(lengths(change)), 0)
    spent = np.zeros((1, height, width, 1), bool)
    spent[gains] = spent[loses] = True
    available = np.square(change * spent).sum(axis=(1, 2), keepdims=True) + unused / channels
    signs = generator.choice(_SIGNS, size=(count, 1, 1, channels))
    bump = _unit(change[gains]) + signs * _window(generator, side)
    change[loses] = 0
    change[gains] = _unit(np.asarray(bump, np.float32)) * np.sqrt(available)
    return _at_distance(clean, change, eps)


def _window(generator: np.random.Generator, side: int) -> Array:
    """Make a bump and a dent of unit length together, side by side at random: [side, side, 1]."""
    upper = _bump(side // 2, side)
    both = np.concatenate([upper, -_bump(side - side // 2, side)])
    both /= np.linalg.norm(both)
    return (both.T if generator.random() < 0.5 else both)[..., np.newaxis]


def _bump(height: int, width: int) -> Array:
    """Make a bump of unit length: sum of 1 / (j + 1)^2 over j from the distance to its centre on."""
    rows = np.abs(np.arange(height) - height // 2)[:, np.newaxis]
    columns = np.abs(np.arange(width) - width // 2)
    shares = 1 / np.square(np.arange(max(height, width) // 2 + 1, dtype=np.float32) + 1)
    bump = np.cumsum(shares[::-1])[::-1][np.maximum(rows, columns)]
    return np.asarray(bump / max(np.linalg.norm(bump), _TINY), np.float32)


def _place(generator: np.random.Generator, rows: int, columns: int, side: int) -> tuple[slice, slice, slice]:
    row, column = int(generator.integers(rows + 1)), int(generator.integers(columns + 1))
    return slice(None), slice(row, row + side), slice(column, column + side)


def _unit(windows: Array) -> Array:
    """Scale each channel of each window to unit length: [N, h, w, C]."""
    return np.asarray(windows / (np.sqrt(np.square(windows).sum(axis=(1, 2), keepdims=True)) + _TINY))


def _at_distance(clean: Array, change: Array, eps: float) -> Array:
    return np.clip(clean + change * np.float32(eps) / (lengths(change) + _TINY), 0, 1)
