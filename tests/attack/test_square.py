"""What Square shows to a target, and what it does not."""

import numpy as np
import numpy.typing as npt
import pytest
import tensorflow as tf

from ncen_tf.attack.objectives import Objective
from ncen_tf.attack.square import Square
from tests.attack.linear import LinearTarget, images_and_predictions, linear_target

Array = npt.NDArray[np.float32]


class RecordingTarget(LinearTarget):
    """Keeps every image that it is shown."""

    def __init__(self, target: LinearTarget) -> None:
        super().__init__(target.weights, target.bias)
        self.shown: list[Array] = []

    def member_logits(self, images: tf.Tensor) -> tf.Tensor:
        def record(x: Array) -> Array:
            self.shown.append(x)
            return x

        seen = tf.numpy_function(record, [images], tf.float32)
        return super().member_logits(tf.ensure_shape(seen, images.shape))


def test_no_image_is_shown_twice_in_a_row() -> None:
    """A target that answers the same to all: every proposal is refused, so the best stays the first."""
    target = RecordingTarget(LinearTarget(np.zeros((2, 12, 3)), np.array([1.0, 0.0, 0.0])))
    images = np.random.default_rng(0).uniform(0.2, 0.8, (5, 4, 3, 1)).astype(np.float32)
    objective = Objective(target, "ensemble")
    found = Square(eps=0.1, queries=400)(objective, tf.constant(images), tf.zeros(5, tf.int32), seed=0)
    first, *proposals = target.shown
    np.testing.assert_array_equal(found, first)
    for shown in proposals:
        # The images differ by more than their balls: what is shown belongs to the nearest one.
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
    (found,) = np.asarray(Square(eps=0.01, queries=60)(objective, tf.constant(images), labels, seed=seed))

    def margin(x: Array) -> float:
        probabilities = np.asarray(objective.log_probabilities(tf.constant(x[np.newaxis])))[0]
        return float(probabilities[labels[0]] - np.delete(probabilities, labels[0]).max())

    shown = [x for batch in list(target.shown) for x in batch]
    assert margin(found) == pytest.approx(min(margin(x) for x in shown), abs=1e-6)
    assert len(shown) > 10 or margin(found) < 0
