"""Square Attack: what it shows to a target, and in L2 its windows, its start and its proposals."""

import numpy as np
import numpy.typing as npt
import pytest

from ncen_tf.attack.objectives import Objective
from ncen_tf.attack.square import Square, _tiles, _windows, _with_window
from tests.attack.helpers import LinearTarget, images_and_predictions, linear_target

Array = npt.NDArray[np.float32]


class RecordingTarget(LinearTarget):
    """Keeps every image that it is shown."""

    def __init__(self, target: LinearTarget) -> None:
        super().__init__(target.weights, target.bias)
        self.shown: list[Array] = []

    def logits(self, images: Array) -> Array:
        self.shown.append(images.copy())
        return super().logits(images)


def test_no_image_is_shown_twice_in_a_row() -> None:
    """A target that answers the same to all: every proposal is refused, so the best stays the first."""
    target = RecordingTarget(LinearTarget(np.zeros((2, 12, 3)), np.array([1.0, 0.0, 0.0])))
    images = np.random.default_rng(0).uniform(0.2, 0.8, (5, 4, 3, 1)).astype(np.float32)
    objective = Objective(target, "ensemble")
    found = Square(eps=0.1, queries=400)(objective, images, np.zeros(5, np.int32), seed=0)
    first, *proposals = target.shown
    np.testing.assert_array_equal(found, first)
    for shown in proposals:
        # The images differ by more than their perturbation bounds: what is shown belongs to the nearest one.
        nearest = np.abs(shown[:, np.newaxis] - images).max(axis=(2, 3, 4)).argmin(axis=1)
        assert (shown != first[nearest]).any(axis=(1, 2, 3)).all()
    # One pixel is set to one of two values at a time for most of the search, and every other time it has it.
    assert 0.4 * 5 * 400 < objective.queries < 0.75 * 5 * 400


@pytest.mark.parametrize("seed", range(5))
def test_the_best_that_was_shown_is_found(seed: int) -> None:
    """Margins of what was shown, computed anew: none is lower than that of what is returned."""
    target = RecordingTarget(linear_target(scale=1.0, seed=seed))
    images, labels = images_and_predictions(target, 1, seed=seed + 10)
    objective = Objective(target, "ensemble")
    (found,) = Square(eps=0.01, queries=60)(objective, images, labels, seed=seed)

    def margin(x: Array) -> float:
        probabilities = objective.log_probabilities(x[np.newaxis])[0]
        return float(probabilities[labels[0]] - np.delete(probabilities, labels[0]).max())

    shown = [x for batch in list(target.shown) for x in batch]
    assert margin(found) == pytest.approx(min(margin(x) for x in shown), abs=1e-6)
    assert len(shown) > 10 or margin(found) < 0


def paper_bump(h1: int, h2: int) -> np.ndarray:
    """eta of the paper's section 3.4 for h1 >= h2, indices from 1."""
    n = h1 // 2
    bump = np.zeros((h1, h2))
    for r in range(1, h1 + 1):
        for s in range(1, h2 + 1):
            far = max(abs(r - h1 // 2 - 1), abs(s - h2 // 2 - 1))
            bump[r - 1, s - 1] = sum(1 / (n + 1 - k) ** 2 for k in range(n - far + 1))
    return bump / np.linalg.norm(bump)


@pytest.mark.parametrize("side", [3, 5, 8, 11])
def test_a_window_is_a_bump_and_a_dent(side: int) -> None:
    upright = np.concatenate([paper_bump(side, side // 2).T, -paper_bump(side, side - side // 2).T])
    upright /= np.linalg.norm(upright)
    numbers = np.random.default_rng(0).uniform(size=(20, 1, 1))
    found = list(_windows(numbers, side)[..., 0])
    turned = [bool(np.allclose(w, upright.T, atol=1e-6)) for w in found]
    for one, is_turned in zip(found, turned, strict=True):
        np.testing.assert_allclose(one, upright.T if is_turned else upright, atol=1e-6)
    assert 3 < sum(turned) < 17


def test_images_start_and_stay_on_the_sphere() -> None:
    clean = np.full((6, 28, 28, 3), 0.5, np.float32)  # far enough from 0 and 1 not to be clipped
    keys = np.arange(6, dtype=np.uint64)
    best = _tiles(keys, clean, 1.0)
    for draw, side in enumerate((25, 12, 4, 1), start=1):
        previous, best = best, _with_window(keys, draw, clean, best, 1.0, side)
        np.testing.assert_allclose(np.linalg.norm((best - clean).reshape(6, -1), axis=1), 1, rtol=1e-5)
        odd = max(side, 3) // 2 * 2 + 1
        for image in range(6):  # all but two windows is what it was, up to a factor
            before, after = previous[image] - clean[image], best[image] - clean[image]
            changed = np.abs(before) > 1e-3
            factor = np.median(after[changed] / before[changed]) if side < 25 else 0
            elsewhere = np.any(np.abs(after - factor * before) > 1e-5, axis=-1)
            assert elsewhere.sum() <= 2 * odd**2


def test_what_was_clipped_away_is_spent_again() -> None:
    clean, keys = np.zeros((4, 28, 28, 1), np.float32), np.arange(4, dtype=np.uint64)
    start = _tiles(keys, clean, 1.0)
    lengths = np.linalg.norm(start.reshape(4, -1), axis=1)
    assert np.all(lengths < 0.9)
    proposals = _with_window(keys, 1, clean, start, 1.0, 9)
    assert proposals.min() >= 0
    assert np.all(np.linalg.norm(proposals.reshape(4, -1), axis=1) <= 1 + 1e-5)


def test_an_image_smaller_than_five_pixels_works() -> None:
    clean, keys = np.full((2, 4, 3, 1), 0.5, np.float32), np.arange(2, dtype=np.uint64)
    best = _with_window(keys, 1, clean, _tiles(keys, clean, 0.3), 0.3, 3)
    np.testing.assert_allclose(np.linalg.norm((best - clean).reshape(2, -1), axis=1), 0.3, rtol=1e-5)
