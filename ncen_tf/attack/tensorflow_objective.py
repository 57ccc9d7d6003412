"""An objective as TensorFlow function, for attacks that are written in TensorFlow."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import tensorflow as tf

from ncen_tf.attack.attack import Array
from ncen_tf.attack.losses import ObjectiveName
from ncen_tf.attack.objectives import Objective
from ncen_tf.ensembles.penalties import log_mean_probabilities, mean_probabilities
from ncen_tf.targets.target import Target

_LEAST_REST = 1e-12


def member_average_columns(logits: tf.Tensor) -> tf.Tensor:
    """Compute columns whose softmax cross-entropy is the members' averaged cross-entropy (Luo et al., Eq. 3).

    [N, k, C] -> [N, C + 1]. With L = mean_i log_softmax(z_i), the columns are L and log(1 - sum_c exp(L_c)):
    they sum to one after exp, so the cross-entropy at y is -L_y, whatever loss the attack has built in.
    """
    log_mean = tf.reduce_mean(tf.nn.log_softmax(logits), axis=1)
    rest = 1.0 - tf.reduce_sum(tf.exp(log_mean), axis=1, keepdims=True)
    # Where members agree, rounding may leave rest <= 0. Only its value is raised: with its derivative
    # cut off too, confident examples would have no gradient and would look robust.
    rest += tf.stop_gradient(tf.maximum(rest, _LEAST_REST) - rest)
    return tf.concat([log_mean, tf.math.log(rest)], axis=1)


def stacked_softmax(logits: tf.Tensor) -> tf.Tensor:
    """Compute the softmax of the mean of the members' softmax: [N, k, C] -> [N, C].

    The released code of Luo et al. attacks it as logits; see :func:`ncen_tf.attack.losses.stacked_softmax`.
    """
    return tf.nn.softmax(mean_probabilities(logits))


COLUMNS: dict[ObjectiveName, Callable[[tf.Tensor], tf.Tensor]] = {
    "member_average": member_average_columns,
    "ensemble": log_mean_probabilities,
    "stacked_softmax": stacked_softmax,
}
"""What gradient attacks maximise the softmax cross-entropy of: logits [N, k, C] -> [N, C] or [N, C + 1]."""


class TensorFlowObjective:
    """An objective that TensorFlow differentiates, compiled once for all batch sizes.

    Called with images [N, H, W, C], it returns the columns that gradient attacks maximise the cross-entropy
    of: [N, C + 1] for ``member_average``, else [N, C].

    Args:
        target: What is attacked. Of a TensorFlow target its own function is taken; any other is called from
            TensorFlow's graph.
        name: Of the objective.
    """

    def __init__(self, target: Target, name: ObjectiveName) -> None:
        self._columns = COLUMNS[name]
        self._passes = [tf.Variable(0, trainable=False, dtype=tf.int64) for _ in range(2)]
        function = getattr(target, "tensorflow_logits", None) or _function_of(target)

        def counted_logits(images: tf.Tensor) -> tf.Tensor:
            queries, gradients = self._passes
            count = tf.shape(images, out_type=tf.int64)[0] * target.calls
            queries.assign_add(count)

            @tf.custom_gradient
            def counted(x: tf.Tensor) -> tuple[tf.Tensor, Any]:
                def backward(upstream: tf.Tensor) -> tf.Tensor:
                    # An eager tape drops what its result does not depend on.
                    with tf.control_dependencies([gradients.assign_add(count)]):
                        return tf.identity(upstream)

                return tf.identity(x), backward

            return tf.ensure_shape(function(counted(images)), [None, target.members, target.classes])

        self.cleverhans_gradient: Any = None
        """What CleverHans attacks compile."""
        signature = [tf.TensorSpec([None, *target.image_shape], tf.float32)]
        self._logits = tf.function(counted_logits, input_signature=signature)

    def __call__(self, images: tf.Tensor) -> tf.Tensor:
        return self._columns(self._logits(images))

    def log_probabilities(self, images: tf.Tensor) -> tf.Tensor:
        """Compute the ensemble's log-probabilities [N, C], whatever the objective."""
        return log_mean_probabilities(self._logits(images))

    def take_passes(self) -> tuple[int, int]:
        """Return how many forward and backward passes were made, one for each image, and start anew."""
        counts = int(self._passes[0]), int(self._passes[1])
        for variable in self._passes:
            variable.assign(0)
        return counts


def attack_in_tensorflow(objective: Objective, attack: Callable[[TensorFlowObjective], tf.Tensor]) -> Array:
    """Run an attack on the objective as a TensorFlow function, and count its passes as the objective's.

    What is compiled for the objective is kept in it.
    """
    if objective.compiled is None:
        objective.compiled = TensorFlowObjective(objective.target, objective.name)
    try:
        return np.asarray(attack(objective.compiled))
    finally:
        objective.count(*objective.compiled.take_passes())


def _function_of(target: Target) -> Callable[[tf.Tensor], tf.Tensor]:
    """Make a differentiable TensorFlow function of a target that computes outside TensorFlow."""
    pull_backs: dict[int, Callable[[Array], Array]] = {}

    def forward(images: Array) -> tuple[Array, np.int64]:
        logits, pull_back = target.linearize(images)
        number = max(pull_backs, default=0) + 1
        pull_backs.clear()  # Forward passes without a backward pass must not pile up.
        pull_backs[number] = pull_back
        return logits, np.int64(number)

    def backward(number: np.int64, images: Array, cotangent: Array) -> Array:
        pull_back = pull_backs.get(int(number)) or target.linearize(images)[1]
        return pull_back(cotangent)

    @tf.custom_gradient
    def logits_of(images: tf.Tensor) -> tuple[tf.Tensor, Any]:
        logits, number = tf.numpy_function(forward, [images], [tf.float32, tf.int64])

        def gradient(cotangent: tf.Tensor) -> tf.Tensor:
            found = tf.numpy_function(backward, [number, images, cotangent], tf.float32)
            return tf.ensure_shape(found, images.shape)

        return logits, gradient

    return logits_of
