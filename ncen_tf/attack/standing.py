"""The examples of a batch that are still right, and the images that broke the others."""

from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import tensorflow as tf

from ncen_tf.attack.objectives import Objective
from ncen_tf.base.errors import InputError
from ncen_tf.ensembles.penalties import log_mean_probabilities

Array = npt.NDArray[np.float32]
Rows = npt.NDArray[np.intp]
Loss = Callable[[tf.Tensor, Rows], tf.Tensor]
"""Member logits, float64 [n, k, C], and which n examples of the batch they are of -> losses [n] to raise."""


class Standing:
    """One adversarial image is enough: an example is dropped at the first one that the ensemble gets wrong.

    Args:
        objective: whose target is attacked; what it maximises plays no part.
        images: float32 [N, H, W, C] in [0, 1].
        labels: int [N].
    """

    def __init__(self, objective: Objective, images: tf.Tensor, labels: tf.Tensor) -> None:
        self.objective = objective
        self.clean: Array = np.asarray(images)
        self.labels = np.asarray(labels)
        self.adversarials = self.clean.copy()
        """[N, H, W, C]: what broke an example, or what was left of it by :meth:`leave`."""
        self.rows: Rows = np.arange(len(self.clean))
        """[n], the examples that stand."""

    def query(self, x: Array) -> npt.NDArray[np.bool_]:
        """Show images of the standing examples to the ensemble and drop those that it gets wrong.

        Args:
            x: float32 [n, H, W, C].

        Returns:
            [n], which of them still stand.

        Raises:
            InputError: an answer of NaN.
        """
        if not len(x):
            return np.ones(0, bool)
        return self._drop_broken(x, self.objective.answer(tf.constant(x)))

    def differentiate(
        self, x: Array, loss: Loss
    ) -> tuple[npt.NDArray[np.float64], Array, npt.NDArray[np.bool_]]:
        """The same as :meth:`query`, and losses and gradients by one forward and one backward pass.

        Each gradient is scaled so that it enters the target with a largest component of 1, for the target
        computes in float32, where the gradients of examples that it is sure of would vanish.

        Returns:
            Losses [m] and directions of gradients [m, H, W, C] of the m examples that still stand, and which
            of the n these are.

        Raises:
            InputError: an answer or a gradient of NaN.
        """
        point = tf.constant(x)
        with tf.GradientTape() as through_target:
            through_target.watch(point)
            logits = self.objective.member_logits(point)
        precise = tf.cast(logits, tf.float64)
        with tf.GradientTape() as tape:
            tape.watch(precise)
            losses = loss(precise, self.rows)
        slopes = tape.gradient(losses, precise)
        largest = tf.reduce_max(tf.abs(slopes), axis=[1, 2], keepdims=True)
        slopes = tf.cast(tf.math.divide_no_nan(slopes, largest), tf.float32)
        gradients = through_target.gradient(logits, point, output_gradients=slopes)
        if np.isnan(gradients).any():  # infinity still has a sign
            raise self._undefined("gradient")
        kept = self._drop_broken(x, log_mean_probabilities(logits))
        return losses.numpy()[kept], gradients.numpy()[kept], kept

    def leave(self, x: Array) -> None:
        """Keep images that did not break the standing examples: float32 [n, H, W, C]."""
        self.adversarials[self.rows] = x

    def _drop_broken(self, x: Array, scores: tf.Tensor) -> npt.NDArray[np.bool_]:
        if np.isnan(scores).any():  # the largest of which would be class 0
            raise self._undefined("answer")
        right = np.argmax(scores, axis=1) == self.labels[self.rows]
        self.adversarials[self.rows[~right]] = x[~right]
        self.rows = self.rows[right]
        return right

    def _undefined(self, what: str) -> InputError:
        return InputError(
            f"{self.objective.target.description} gives NaN as its {what} at an image inside the ball: "
            "nothing can be measured on it."
        )
