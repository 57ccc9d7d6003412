"""Batch normalisation that can be differentiated twice, by TensorFlow's fused kernels where possible."""

import contextlib
import os
from collections.abc import Iterator
from contextvars import ContextVar
from typing import Any

import keras
import tensorflow as tf

from ncen_tf.base.environment import processor_flags

_has_images: ContextVar[tf.Tensor | None] = ContextVar("has_images", default=None)

FUSED_DTYPES = (tf.float32, tf.bfloat16, tf.float16)
"""Types of inputs that the fused kernels accept."""

_limited = os.environ.get("ONEDNN_MAX_CPU_ISA", "").upper().startswith("AVX2")
FORWARD_KERNEL_IS_SLOW = "avx2" in processor_flags() and ("avx512f" not in processor_flags() or _limited)
"""Whether the fused kernel of the value in float32 may be slower than separate operations: oneDNN's takes
up to twice as long on an Intel Xeon limited to AVX2, and as long on an AMD EPYC with AVX2."""


@keras.saving.register_keras_serializable("ncen_tf")
class BatchNorm(keras.layers.Layer):
    """Batch normalisation over the last axis with correct second derivatives (Ioffe & Szegedy, 2015).

    ``keras.layers.BatchNormalization`` takes its moments from ``tf.nn.moments``, which stops the
    gradient at the mean inside the variance. That changes no first derivative, but a penalty on input
    gradients, differentiated with respect to the weights, comes out wrong without a warning. Here
    the variance is the mean of ``squared_difference(x, mean)``, differentiable to any order; inputs in
    float32 or less on one replica go through :func:`fused_batch_norm`, which is differentiable twice.

    Inputs are float [N, ..., C], outputs have the same shape. Statistics are float32 (float64 for float64
    input) whatever the compute precision; moving statistics use the biased variance. A frozen layer
    (``trainable = False``) runs in inference mode, as in Keras.

    Args:
        momentum: Share of the old moving statistics that each training step keeps, in [0, 1).
        epsilon: Value added to the variance, > 0.
        synchronized: Under ``tf.distribute``, take the moments over the global batch instead of each
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
        # Synchronized on read, which add_weight does not offer: every replica updates its own statistics
        # without waiting for the others, and their mean is what is saved.
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
        if not training or not self.trainable:
            moving = self.moving_mean.value, self.moving_variance.value
            if inputs.dtype == self.variable_dtype:
                return self._scale_and_shift(inputs, *moving)
            # In half precision the casts would cost more than the arithmetic.
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
        # Replicas can hold shares of different sizes, so sums are reduced, not means.
        replica, has_images = tf.distribute.get_replica_context(), _has_images.get()
        counted = tf.ones([], x.dtype) if has_images is None else tf.cast(has_images, x.dtype)
        values = counted * tf.cast(tf.size(x) / tf.shape(x)[-1], x.dtype)
        total, values = replica.all_reduce("SUM", [counted * tf.reduce_sum(x, axes), values])
        mean = total / values
        deviation = counted * tf.reduce_sum(tf.math.squared_difference(x, mean), axes)
        variance = replica.all_reduce("SUM", deviation) / values
        # What stands in for an image must not reach the images of other replicas through the moments.
        own = [tf.stop_gradient(v) + counted * (v - tf.stop_gradient(v)) for v in (mean, variance)]
        return own[0], own[1]

    def get_config(self) -> dict[str, Any]:
        return super().get_config() | {
            "momentum": self.momentum,
            "epsilon": self.epsilon,
            "synchronized": self.synchronized,
        }


@contextlib.contextmanager
def replica_has_images(has_images: tf.Tensor) -> Iterator[None]:
    """Leave this replica out of the moments that replicas share where ``has_images``, a scalar, is False."""
    token = _has_images.set(has_images)
    try:
        yield
    finally:
        _has_images.reset(token)


def fused_batch_norm(
    x: tf.Tensor, gamma: tf.Tensor, beta: tf.Tensor, epsilon: float
) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
    """Normalise a batch over all axes but the last (Ioffe & Szegedy, 2015), differentiable twice.

    Let x^ = (x - <x>) r with r = (variance + epsilon)^-1/2, <a> the mean of a over the batch, and u the
    gradient with respect to y = gamma x^ + beta. The kernel of the first derivative computes

        G(u) = gamma r (u - <u> - x^ <u x^>)

    and with it <u x^> and <u>. G is linear in u and its own adjoint, so for a gradient v with respect to
    G(u), the derivative by u is G(v), from the same kernel. The derivative by x is

        -gamma r^2 (<u x^> (v - <v>) + <v x^> (u - <u>) + x^ (<u v> - <u> <v> - 3 <u x^> <v x^>))

    TensorFlow's own derivative of the kernel computes the statistics again, in some thirty passes over
    memory.

    Args:
        x: [N, ..., C] of :data:`FUSED_DTYPES`.
        gamma: float32 [C].
        beta: float32 [C].
        epsilon: Value added to the variance, > 0.

    Returns:
        y with the shape and type of x; mean and biased variance of the batch, float32 [C], as constants.

    Raises:
        LookupError: A third derivative is asked for, or a second one by gamma or beta first.
    """
    shape = tf.shape(x)
    images = tf.reshape(x, [shape[0], -1, 1, x.shape[-1]])  # The kernels take four axes.
    # Variables of several replicas cannot be arguments of a custom gradient, but their values can.
    y, mean, variance = _normalize(images, tf.identity(gamma), tf.identity(beta), epsilon)
    return tf.reshape(y, shape), tf.stop_gradient(mean), tf.stop_gradient(variance)


def frozen_batch_norm(
    x: tf.Tensor, gamma: tf.Tensor, beta: tf.Tensor, mean: tf.Tensor, variance: tf.Tensor, epsilon: float
) -> tf.Tensor:
    """Normalise by given statistics, as in inference: y = gamma r (x - mean) + beta.

    The derivative by x is u gamma r, the same kernel without a shift. TensorFlow's own derivative always
    computes sums over the batch too, which are not needed where only the image's gradient is.

    Arguments are those of :func:`fused_batch_norm`; mean and variance, float32 [C], are constants.
    """
    shape = tf.shape(x)
    mean, variance = tf.stop_gradient(mean), tf.stop_gradient(variance)
    zero = tf.zeros_like(mean)

    def kernel(x: tf.Tensor, gamma: tf.Tensor, beta: tf.Tensor, mean: tf.Tensor) -> tf.Tensor:
        return tf.raw_ops.FusedBatchNormV3(
            x=x, scale=gamma, offset=beta, mean=mean, variance=variance, epsilon=epsilon, is_training=False
        ).y

    @tf.custom_gradient
    def normalize(x: tf.Tensor, gamma: tf.Tensor, beta: tf.Tensor) -> tuple[Any, Any]:
        def gradient(u: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
            normalized = kernel(x, tf.ones_like(gamma), zero, mean)
            total = tf.reduce_sum(tf.cast(u, beta.dtype), [0, 1, 2])
            return kernel(u, gamma, zero, zero), _products(u, normalized), total

        return kernel(x, gamma, beta, mean), gradient

    images = tf.reshape(x, [shape[0], -1, 1, x.shape[-1]])  # The kernel takes four axes.
    return tf.reshape(normalize(images, tf.identity(gamma), tf.identity(beta)), shape)


def _normalize(x: tf.Tensor, gamma: tf.Tensor, beta: tf.Tensor, epsilon: float) -> Any:
    size = tf.cast(tf.size(x) // x.shape[-1], gamma.dtype)

    @tf.custom_gradient
    def normalize(x: tf.Tensor, gamma: tf.Tensor, beta: tf.Tensor) -> tuple[Any, Any]:
        empty = tf.zeros([0], gamma.dtype)
        if x.dtype == tf.float32 and not tf.config.list_logical_devices("GPU") and FORWARD_KERNEL_IS_SLOW:
            mean = tf.reduce_mean(x, [0, 1, 2])
            variance = tf.reduce_mean(tf.math.squared_difference(x, mean), [0, 1, 2])
            r = tf.math.rsqrt(variance + epsilon)
            y = _standardize(x, mean, gamma * r, beta)
            reserved = [mean, variance, empty]
        else:
            y, mean, unbiased, *reserved = tf.raw_ops.FusedBatchNormV3(
                x=x, scale=gamma, offset=beta, mean=empty, variance=empty, epsilon=epsilon, is_training=True
            )
            variance = unbiased * (size - 1) / size
            r = tf.math.rsqrt(variance + epsilon)

        def kernel(u: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
            """Compute G(u), the sum of u x^ and the sum of u."""
            a, b, c = reserved
            derivatives = tf.raw_ops.FusedBatchNormGradV3(
                y_backprop=u,
                x=x,
                scale=gamma,
                reserve_space_1=a,
                reserve_space_2=b,
                reserve_space_3=c,
                epsilon=epsilon,
                is_training=True,
            )
            return derivatives.x_backprop, derivatives.scale_backprop, derivatives.offset_backprop

        @tf.custom_gradient
        def first(u: tf.Tensor, x: tf.Tensor, gamma: tf.Tensor) -> tuple[Any, Any]:
            by_x, u_dot_x, u_sum = kernel(u)

            def second(v: tf.Tensor, *_: tf.Tensor) -> list[tf.Tensor]:
                # The sums have no gradient: _final refuses to differentiate them.
                by_u, v_dot_x, v_sum = kernel(v)
                sums = (_products(u, v), u_dot_x, v_dot_x, u_sum, v_sum)
                uv, ux, vx, u_mean, v_mean = (total / size for total in sums)
                covariance = uv - u_mean * v_mean
                for_v, for_u = -gamma * r**2 * ux, -gamma * r**2 * vx
                for_x = -gamma * r**3 * (covariance - 3 * ux * vx)
                rest = -for_v * v_mean - for_u * u_mean - for_x * mean
                by_x = _linear([v, u, x], [for_v, for_u, for_x], rest)
                derivatives = [by_u, by_x, size * r * (covariance - ux * vx)]
                return [_final(derivative) for derivative in derivatives]

            return (by_x, u_dot_x, u_sum), second

        def gradient(u: tf.Tensor, *_: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
            by_x, by_gamma, by_beta = first(u, x, gamma)
            return by_x, _final(by_gamma), _final(by_beta)

        return (y, mean, variance), gradient

    return normalize(x, gamma, beta)


# XLA makes one pass over memory of each of these, where TensorFlow makes up to six.
@tf.function(jit_compile=True)
def _standardize(x: tf.Tensor, mean: tf.Tensor, factor: tf.Tensor, beta: tf.Tensor) -> tf.Tensor:
    return (x - mean) * factor + beta


@tf.function(jit_compile=True)
def _linear(tensors: list[tf.Tensor], factors: list[tf.Tensor], constant: tf.Tensor) -> tf.Tensor:
    """Add up tensors [..., C] times factors [C], and a constant [C]."""
    total = tf.cast(constant, tensors[0].dtype)
    for tensor, factor in zip(tensors, factors, strict=True):
        total += tensor * tf.cast(factor, tensor.dtype)
    return total


def _final(derivative: tf.Tensor) -> tf.Tensor:
    """Return the derivative, which raises when it is differentiated instead of being wrong."""
    message = "of fused batch normalisation there are two derivatives by its input, and one by gamma and beta"
    return tf.raw_ops.PreventGradient(input=derivative, message=message)


def _products(a: tf.Tensor, b: tf.Tensor) -> tf.Tensor:
    """Sum a b in float32 [C], by a matrix product: it reads memory once, and channels are few."""
    a, b = (tf.reshape(tf.cast(t, tf.float32), [-1, t.shape[-1]]) for t in (a, b))
    return tf.linalg.diag_part(tf.matmul(a, b, transpose_a=True))
