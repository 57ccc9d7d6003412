"""Batch normalisation by TensorFlow's fused kernels, with a second derivative made of them too."""

from typing import Any

import tensorflow as tf

FUSED_DTYPES = (tf.float32, tf.bfloat16, tf.float16)
"""Of what is normalised; the kernels know no other."""


def fused_batch_norm(
    x: tf.Tensor, gamma: tf.Tensor, beta: tf.Tensor, epsilon: float
) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
    """Normalise a batch over all axes but the last (Ioffe & Szegedy, 2015), differentiable twice.

    With x^ = (x - <x>) r, r = (variance + epsilon)^-1/2, <a> the mean of a over the batch, and u what arrives
    at y = gamma x^ + beta, the kernel of the first derivative computes

        G(u) = gamma r (u - <u> - x^ <u x^>)

    and <u x^> and <u> with it. G is linear in u and its own adjoint, so where v arrives at G(u), the
    derivative by u is G(v), from the same kernel. The derivative by x is

        -gamma r^2 (<u x^> (v - <v>) + <v x^> (u - <u>) + x^ (<u v> - <u> <v> - 3 <u x^> <v x^>))

    TensorFlow's own derivative of the kernel takes the statistics anew, in some thirty passes over memory.

    Args:
        x: [N, ..., C] of :data:`FUSED_DTYPES`.
        gamma: float32 [C].
        beta: float32 [C].
        epsilon: added to the variance, > 0.

    Returns:
        y as x; the batch's mean and biased variance, float32 [C], as constants.

    Raises:
        LookupError: a third derivative is asked for, or a second one by gamma or beta first.
    """
    shape = tf.shape(x)
    images = tf.reshape(x, [shape[0], -1, 1, x.shape[-1]])  # the kernels take four axes
    # Variables of several replicas cannot be arguments of a custom gradient, their values can.
    y, mean, variance = _normalize(images, tf.identity(gamma), tf.identity(beta), epsilon)
    return tf.reshape(y, shape), tf.stop_gradient(mean), tf.stop_gradient(variance)


def frozen_batch_norm(
    x: tf.Tensor, gamma: tf.Tensor, beta: tf.Tensor, mean: tf.Tensor, variance: tf.Tensor, epsilon: float
) -> tf.Tensor:
    """Normalise by given statistics, as in inference: y = gamma r (x - mean) + beta.

    The derivative by x is u gamma r, the same kernel without a shift. TensorFlow's own derivative always
    takes sums over the batch too, which are in vain where only the image's gradient is wanted.

    Args:
        x: [N, ..., C] of :data:`FUSED_DTYPES`.
        gamma: float32 [C].
        beta: float32 [C].
        mean: float32 [C], a constant.
        variance: float32 [C], a constant.
        epsilon: added to the variance, > 0.

    Returns:
        y as x.
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

    images = tf.reshape(x, [shape[0], -1, 1, x.shape[-1]])  # the kernel takes four axes
    return tf.reshape(normalize(images, tf.identity(gamma), tf.identity(beta)), shape)


def _normalize(x: tf.Tensor, gamma: tf.Tensor, beta: tf.Tensor, epsilon: float) -> Any:
    size = tf.cast(tf.size(x) // x.shape[-1], gamma.dtype)

    @tf.custom_gradient
    def normalize(x: tf.Tensor, gamma: tf.Tensor, beta: tf.Tensor) -> tuple[Any, Any]:
        empty = tf.zeros([0], gamma.dtype)
        y, mean, unbiased, *reserved = tf.raw_ops.FusedBatchNormV3(
            x=x, scale=gamma, offset=beta, mean=empty, variance=empty, epsilon=epsilon, is_training=True
        )
        variance = unbiased * (size - 1) / size
        r = tf.math.rsqrt(variance + epsilon)

        def kernel(u: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
            """G(u), the sum of u x^ and that of u."""
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
                # Nothing arrives at the sums: _final refuses.
                by_u, v_dot_x, v_sum = kernel(v)
                sums = (_products(u, v), u_dot_x, v_dot_x, u_sum, v_sum)
                uv, ux, vx, u_mean, v_mean = (total / size for total in sums)
                covariance = uv - u_mean * v_mean
                for_v, for_u = -gamma * r**2 * ux, -gamma * r**2 * vx
                for_x = -gamma * r**3 * (covariance - 3 * ux * vx)
                rest = -for_v * v_mean - for_u * u_mean - for_x * mean
                for_v, for_u, for_x, rest = (tf.cast(c, x.dtype) for c in (for_v, for_u, for_x, rest))
                by_gamma = size * r * (covariance - ux * vx)
                derivatives = [by_u, for_v * v + for_u * u + for_x * x + rest, by_gamma]
                return [_final(derivative) for derivative in derivatives]

            return (by_x, u_dot_x, u_sum), second

        def gradient(u: tf.Tensor, *_: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
            by_x, by_gamma, by_beta = first(u, x, gamma)
            return by_x, _final(by_gamma), _final(by_beta)

        return (y, mean, variance), gradient

    return normalize(x, gamma, beta)


def _final(derivative: tf.Tensor) -> tf.Tensor:
    """The derivative itself, which refuses to be differentiated rather than be wrong."""
    message = "of fused batch normalisation there are two derivatives by its input, and one by gamma and beta"
    return tf.raw_ops.PreventGradient(input=derivative, message=message)


def _products(a: tf.Tensor, b: tf.Tensor) -> tf.Tensor:
    """Sums of a b in float32 [C]: a matrix product reads memory once, and channels are few."""
    a, b = (tf.reshape(tf.cast(t, tf.float32), [-1, t.shape[-1]]) for t in (a, b))
    return tf.linalg.diag_part(tf.matmul(a, b, transpose_a=True))
