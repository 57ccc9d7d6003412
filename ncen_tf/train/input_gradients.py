"""Members' cross-entropies and their gradients with respect to the images."""

from collections.abc import Sequence
from typing import Literal

import keras
import tensorflow as tf

CrossEntropyOn = Literal["logits", "probabilities"]


def member_cross_entropies(
    member_logits: tf.Tensor, labels: tf.Tensor, ce_on: CrossEntropyOn = "logits"
) -> tf.Tensor:
    """Cross-entropy of each member on each example: [N, k, classes], int [N] -> [N, k].

    ``ce_on="probabilities"`` feeds the softmax output to the cross-entropy as if it were logits: what
    the authors' released code does.
    """
    scores = member_logits if ce_on == "logits" else tf.nn.softmax(member_logits)
    labels = tf.repeat(labels[:, tf.newaxis], scores.shape[1], axis=1)
    return tf.nn.sparse_softmax_cross_entropy_with_logits(labels, scores)


def input_gradients(
    members: Sequence[keras.Model],
    images: Sequence[tf.Tensor],
    labels: tf.Tensor,
    ce_on: CrossEntropyOn = "logits",
    training: bool = False,
) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
    """Gradient of each member's cross-entropy with respect to the images, itself differentiable.

    Args:
        members: models images -> logits [N, classes].
        images: float [N, H, W, C] for each member.
        labels: integer [N].
        ce_on: what the cross-entropy is taken on.
        training: BatchNorm mode.

    Returns:
        Logits [N, k, classes], cross-entropies [N, k] and gradients [N, k, H*W*C].
    """
    # Members may see the same tensor: copies let one reverse pass keep their gradients apart.
    copies = [tf.identity(x) for x in images]
    with tf.GradientTape(watch_accessed_variables=False) as tape:
        tape.watch(copies)
        outputs = [member(x, training=training) for member, x in zip(members, copies, strict=True)]
        logits = tf.stack(outputs, axis=1)
        ce = member_cross_entropies(logits, labels, ce_on)
        total = tf.reduce_sum(ce)
    flat = [tf.reshape(gradient, [tf.shape(labels)[0], -1]) for gradient in tape.gradient(total, copies)]
    return logits, ce, tf.ensure_shape(tf.stack(flat, axis=1), [None, len(members), None])
