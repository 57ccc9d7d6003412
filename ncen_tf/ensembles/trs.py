"""Transferability reduced smooth training: the penalty, and the search for steep places near images."""

from collections.abc import Sequence

import keras
import tensorflow as tf

from ncen_tf.ensembles.adversary import projected_ascent
from ncen_tf.ensembles.penalties import (
    CrossEntropyOn,
    Penalty,
    input_gradients,
    l2_norm,
    pairwise_cosines,
)
from ncen_tf.ensembles.regularizers import TRS

keras.saving.register_keras_serializable("ncen_tf")(TRS)


def trs_penalty(
    regularizer: TRS,
    members: Sequence[keras.Model],
    images: Sequence[tf.Tensor],
    labels: tf.Tensor,
    gradients: tf.Tensor,
    ce_on: CrossEntropyOn,
    training: bool,
) -> Penalty:
    """Compute lambda_sim * mean_{i<j} |cos(g_i, g_j)| + lambda_smooth * mean_i |g_i(x_i)|.

    Args:
        regularizer: Weights and search.
        members: Models images -> logits [N, classes].
        images: Float [N, H, W, C] for each member.
        labels: Integer [N].
        gradients: g_i at the images, [N, k, H*W*C].
        ce_on: What the cross-entropy is computed on.
        training: Whether the members run in training mode.
    """
    steep = steepest_images(regularizer, members, images, labels, ce_on)
    _, _, at_steep = input_gradients(members, steep, labels, ce_on, training)
    similarity = tf.reduce_mean(tf.abs(pairwise_cosines(gradients)), axis=1)
    steepness = tf.reduce_mean(l2_norm(at_steep), axis=1)
    value = regularizer.lambda_sim * similarity + regularizer.lambda_smooth * steepness
    return Penalty(value, {"similarity": similarity, "steepness": steepness})


def steepest_images(
    regularizer: TRS,
    members: Sequence[keras.Model],
    images: Sequence[tf.Tensor],
    labels: tf.Tensor,
    ce_on: CrossEntropyOn,
) -> list[tf.Tensor]:
    """Search, within ``eps`` of each member's images, where its input gradient is longest.

    The search takes projected sign gradient steps of eps / 3 from the images themselves. The members run in
    inference mode.

    Returns:
        k tensors [N, H, W, C] in [0, 1].
    """

    def lengths(points: Sequence[tf.Tensor]) -> tf.Tensor:
        return l2_norm(input_gradients(members, points, labels, ce_on)[2])

    eps = regularizer.eps
    ranges = [(tf.maximum(x - eps, 0.0), tf.minimum(x + eps, 1.0)) for x in images]
    # Copies: the members may be given the same tensor.
    start = [tf.identity(x) for x in images]
    return projected_ascent(start, ranges, lengths, regularizer.steps, eps / 3)
