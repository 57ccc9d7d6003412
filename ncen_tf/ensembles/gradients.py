"""Cosines and magnitudes of members' input gradients, safe where a gradient vanishes."""

import numpy as np
import tensorflow as tf

# Where an example's gradients are scaled, their largest entry is 1.
EPSILON = 1e-12
SMALLEST_SCALE = 1e-12


def scale_gradients(gradients: tf.Tensor) -> tf.Tensor:
    """Scale each example's gradients [N, k, D] so that their largest entry is 1 in magnitude.

    Cosines and relative magnitudes do not change under a common factor, so treating the factor as a
    constant leaves their derivatives exact, while squares of gradients as small as 1e-12 (confident
    examples) no longer vanish beside the epsilon. Below that, everything fades to zero smoothly.
    """
    largest = tf.reduce_max(tf.abs(gradients), axis=(1, 2), keepdims=True)
    return gradients / tf.stop_gradient(tf.maximum(largest, SMALLEST_SCALE))


def l2_norm(vectors: tf.Tensor) -> tf.Tensor:
    """L2 norm over the last axis; epsilon inside the root keeps the derivative at zero finite."""
    return tf.sqrt(tf.reduce_sum(tf.square(vectors), axis=-1) + EPSILON)


def cosines_to_mean(gradients: tf.Tensor) -> tf.Tensor:
    """c_i: cosine of each member's gradient with the mean gradient (Luo et al., Eq. 1 and 3).

    Shape: [N, k, D] -> [N, k] in [-1, 1]; 0 where a gradient is zero.
    """
    scaled = scale_gradients(gradients)
    mean = tf.reduce_mean(scaled, axis=1, keepdims=True)
    return tf.reduce_sum(scaled * mean, axis=-1) / (l2_norm(scaled) * l2_norm(mean))


def norm_deviations(gradients: tf.Tensor) -> tf.Tensor:
    """d_i: each member's gradient norm relative to the members' mean, minus 1 (Luo et al., Eq. 7).

    Shape: [N, k, D] -> [N, k] in [-1, k-1]; sums to 0 over members.
    """
    norms = l2_norm(scale_gradients(gradients))
    mean = tf.reduce_mean(norms, axis=1, keepdims=True)
    return norms / mean - 1.0


def pairwise_cosines(gradients: tf.Tensor) -> tf.Tensor:
    """Cosine between the gradients of each two members i < j, in the order of ``itertools.combinations``.

    Shape: [N, k, D] -> [N, k(k-1)/2] in [-1, 1]; 0 where a gradient is zero.
    """
    scaled = scale_gradients(gradients)
    directions = scaled / l2_norm(scaled)[..., tf.newaxis]
    first, second = (tf.gather(directions, i, axis=1) for i in np.triu_indices(gradients.shape[1], k=1))
    return tf.reduce_sum(first * second, axis=-1)
