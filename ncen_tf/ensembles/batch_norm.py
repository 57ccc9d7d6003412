"""Batch normalisation that can be differentiated twice."""

from typing import Any

import keras
import tensorflow as tf

from ncen_tf.ensembles.fused_batch_norm import FUSED_DTYPES, frozen_batch_norm, fused_batch_norm


@keras.saving.register_keras_serializable("ncen_tf")
class BatchNorm(keras.layers.Layer):
    """Batch normalisation over the last axis with correct second derivatives (Ioffe & Szegedy, 2015).

    ``keras.layers.BatchNormalization`` takes its moments from ``tf.nn.moments``, which stops the
    gradient at the mean inside the variance. That changes no first derivative, but a penalty on input
    gradients, differentiated with respect to the weights, comes out wrong without a warning. Here
    the variance is the mean of ``squared_difference(x, mean)``, differentiable to any order; what is in
    float32 or less and on one replica goes through :func:`fused_batch_norm`, differentiable twice.

    Shape: float [N, ..., C] -> the same shape. Statistics are float32 (float64 for float64 input)
    whatever the compute precision; moving statistics use the biased variance.

    Args:
        momentum: share of the old moving statistics kept at each training step, in [0, 1).
        epsilon: added to the variance, > 0.
        synchronized: under ``tf.distribute``, take the moments over the global batch instead of each
            replica's share.
    """

    def __init__(
        self,
        momentum: float = 0.9,
        epsilon: float = 1e-5,
        synchronized: bool = False,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.momentum = momentum
        self.epsilon = epsilon
        self.synchronized = synchronized

    def build(self, input_shape: tuple[int | None, ...]) -> None:
        channels = (input_shape[-1],)
        # No autocast: normalising needs full precision under mixed_bfloat16 too.
        self.gamma = self.add_weight(channels, "ones", autocast=False, name="gamma")
        self.beta = self.add_weight(channels, "zeros", autocast=False, name="beta")
        self.moving_mean = self._moving_statistic("zeros", channels, "moving_mean")
        self.moving_variance = self._moving_statistic("ones", channels, "moving_variance")

    def _moving_statistic(self, initializer: str, shape: tuple[int | None, ...], name: str) -> keras.Variable:
        # On-read, which add_weight does not offer: every replica updates its own statistics without
        # waiting for the others, and their mean is what is saved.
        return keras.Variable(
            keras.initializers.get(initializer),
            shape=shape,
            dtype=self.variable_dtype,
            trainable=False,
            autocast=False,
            synchronization="on_read",
            aggregation="mean",
            name=name,
        )

    def call(self, inputs: tf.Tensor, training: bool | None = None) -> tf.Tensor:
        if not training or not self.trainable:  # Frozen layers do not change, as in Keras.
            moving = self.moving_mean.value, self.moving_variance.value
            if inputs.dtype == self.variable_dtype:
                return self._scale_and_shift(inputs, *moving)
            # Casts cost more than the arithmetic; without any, nothing is gained.
            return frozen_batch_norm(inputs, self.gamma.value, self.beta.value, *moving, self.epsilon)
        if not self._spans_replicas() and inputs.dtype in FUSED_DTYPES and self.variable_dtype == "float32":
            outputs, mean, variance = fused_batch_norm(
                inputs, self.gamma.value, self.beta.value, self.epsilon
            )
        else:
            mean, variance = self._moments(tf.cast(inputs, self.variable_dtype))
            outputs = self._scale_and_shift(inputs, mean, variance)
        for moving, batch in ((self.moving_mean, mean), (self.moving_variance, variance)):
            moving.assign(self.momentum * moving.value + (1 - self.momentum) * batch)
        return outputs

    def _scale_and_shift(self, inputs: tf.Tensor, mean: tf.Tensor, variance: tf.Tensor) -> tf.Tensor:
        x = tf.cast(inputs, self.variable_dtype)
        scale = self.gamma.value * tf.math.rsqrt(variance + self.epsilon)
        return tf.cast(x * scale + (self.beta.value - mean * scale), self.compute_dtype)

    def _spans_replicas(self) -> bool:
        replica = tf.distribute.get_replica_context()
        return self.synchronized and replica is not None and replica.num_replicas_in_sync > 1

    def _moments(self, x: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        axes = list(range(x.shape.rank - 1))
        if not self._spans_replicas():
            mean = tf.reduce_mean(x, axes)
            return mean, tf.reduce_mean(tf.math.squared_difference(x, mean), axes)
        # Replicas can hold shares of different size, so sums are reduced, not means.
        replica = tf.distribute.get_replica_context()
        values = tf.cast(tf.size(x) / tf.shape(x)[-1], x.dtype)
        total, values = replica.all_reduce("SUM", [tf.reduce_sum(x, axes), values])
        mean = total / values
        deviation = tf.reduce_sum(tf.math.squared_difference(x, mean), axes)
        return mean, replica.all_reduce("SUM", deviation) / values

    def get_config(self) -> dict[str, Any]:
        return super().get_config() | {
            "momentum": self.momentum,
            "epsilon": self.epsilon,
            "synchronized": self.synchronized,
        }
