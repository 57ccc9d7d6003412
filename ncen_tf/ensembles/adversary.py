"""The attack of adversarial training: projected gradient ascent, compiled with the training step."""

from collections.abc import Callable, Sequence
from typing import Any, Literal

import keras
import tensorflow as tf

from ncen_tf.ensembles.adversarial import AdversarialTraining
from ncen_tf.ensembles.penalties import log_mean_probabilities, member_cross_entropies, stack_logits

AttackedLoss = Literal["ensemble", "members"]
Losses = Callable[[tf.Tensor], tf.Tensor]
"""Member logits [N, k, classes] -> the losses to maximise, [N] or [N, k]."""

keras.saving.register_keras_serializable("ncen_tf")(AdversarialTraining)


def adversarial_images(
    settings: AdversarialTraining,
    members: Sequence[keras.Model],
    images: tf.Tensor,
    labels: tf.Tensor,
    key: tf.Tensor,
) -> list[tf.Tensor]:
    """Attack the first ``fraction`` of a batch.

    Args:
        settings: Form and attack.
        members: Models images -> logits [N, classes].
        images: Float [N, H, W, C] in [0, 1].
        labels: Integer [N].
        key: Key of the random start, as for ``tf.random.stateless_uniform``.

    Returns:
        k tensors [N, H, W, C], one for each member.
    """
    count = tf.shape(images)[0]
    attacked = tf.cast(tf.math.ceil(settings.fraction * tf.cast(count, tf.float32)), count.dtype)
    part, rest = images[:attacked], images[attacked:]
    if settings.form == "pgd":
        losses = cross_entropy_to_raise(labels[:attacked], settings.loss)
    else:
        clean = stack_logits(members, [part] * len(members), training=False)
        losses = divergence_to_raise(clean, settings.loss)
    found = ascend(settings, members, part, losses, key)
    return found if settings.fraction == 1 else [tf.concat([x, rest], 0) for x in found]


def ascend(
    settings: AdversarialTraining,
    members: Sequence[keras.Model],
    images: tf.Tensor,
    losses: Losses,
    key: tf.Tensor,
) -> list[tf.Tensor]:
    """Maximise losses by projected sign gradient steps within an Linf bound.

    The members run in inference mode, so that the batch statistics of intermediate images do not reach the
    moving statistics.

    Of ``settings``, the attack is taken; ``form``, ``fraction`` and ``beta`` are not used.

    Returns:
        k tensors [N, H, W, C] in [0, 1], within ``eps`` of ``images``; all the same for
        ``loss="ensemble"``.
    """
    eps, steps, step_size = settings.eps, settings.steps, settings.resolved_step_size
    count = len(members) if settings.loss == "members" else 1
    low, high = tf.maximum(images - eps, 0.0), tf.minimum(images + eps, 1.0)
    start = [tf.identity(images) for _ in range(count)]  # Copies keep the members' gradients apart.
    if settings.random_start:
        shape = tf.concat([[count], tf.shape(images)], 0)
        # The algorithm is named, because by default XLA draws other numbers than TensorFlow.
        noise = tf.random.stateless_uniform(shape, key, -eps, eps, images.dtype, alg="philox")
        start = tf.unstack(tf.clip_by_value(images + noise, low, high), count)

    def losses_at(points: Sequence[tf.Tensor]) -> tf.Tensor:
        seen = points if count > 1 else [*points] * len(members)
        return losses(stack_logits(members, seen, training=False))

    found = projected_ascent(start, [(low, high)] * count, losses_at, steps, step_size)
    return found if count > 1 else found * len(members)


def projected_ascent(
    start: Sequence[tf.Tensor],
    ranges: Sequence[tuple[tf.Tensor, tf.Tensor]],
    losses: Callable[[Sequence[tf.Tensor]], tf.Tensor],
    steps: int,
    step_size: float,
    momentum: float = 0.0,
) -> list[tf.Tensor]:
    """Maximise a sum of losses by sign gradient steps, clipped to a range.

    With momentum, the sign is that of a running sum of gradients, each divided by its L1 norm (Dong et al.,
    2018, "Boosting Adversarial Attacks with Momentum", Eq. 6).

    Args:
        start: Tensors [N, H, W, C], distinct ones.
        ranges: The lowest and the highest values of each.
        losses: Losses at such tensors, of which the sum is maximised.
        steps: Number of steps.
        step_size: Size of each step.
        momentum: Factor of the sum at each step.

    Returns:
        As many tensors as ``start``; gradients do not pass through them.
    """

    def step(number: tf.Tensor, points: list[tf.Tensor], sums: list[tf.Tensor]) -> Any:
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch(points)
            total = tf.reduce_sum(losses(points))
        directions = tape.gradient(total, points)
        if momentum:
            directions = [momentum * old + _unit(g) for old, g in zip(sums, directions, strict=True)]
        moved = [
            tf.clip_by_value(x + step_size * tf.sign(direction), low, high)
            for x, direction, (low, high) in zip(points, directions, ranges, strict=True)
        ]
        return number + 1, moved, directions if momentum else []

    state = (tf.constant(0), list(start), [tf.zeros_like(x) for x in start] if momentum else [])
    if steps == 1:
        _, found, _ = step(*state)
    else:
        _, found, _ = tf.while_loop(lambda number, *_: number < steps, step, state, parallel_iterations=1)
    return [tf.stop_gradient(x) for x in found]


def _unit(gradients: tf.Tensor) -> tf.Tensor:
    """Divide each example's gradient by its L1 norm. [N, H, W, C]."""
    norms = tf.reduce_sum(tf.abs(gradients), axis=(1, 2, 3), keepdims=True)
    return gradients / tf.maximum(norms, 1e-12)


def cross_entropy_to_raise(labels: tf.Tensor, loss: AttackedLoss) -> Losses:
    """Return the cross-entropy of the mean prediction, or of each member's, for integer labels [N]."""

    def losses(logits: tf.Tensor) -> tf.Tensor:
        if loss == "members":
            return member_cross_entropies(logits, labels)
        return -tf.gather(log_mean_probabilities(logits), labels, batch_dims=1)

    return losses


def divergence_to_raise(clean_logits: tf.Tensor, loss: AttackedLoss) -> Losses:
    """Return the KL divergence from the clean prediction: the mean one, or each member's."""

    def losses(logits: tf.Tensor) -> tf.Tensor:
        if loss == "members":
            return kl_divergence(tf.nn.log_softmax(clean_logits), tf.nn.log_softmax(logits))
        return kl_divergence(log_mean_probabilities(clean_logits), log_mean_probabilities(logits))

    return losses


def member_divergence(clean_logits: tf.Tensor, attacked_logits: tf.Tensor) -> tf.Tensor:
    """Compute the members' mean KL(clean || attacked), which TRADES adds: two of [N, k, classes] -> [N]."""
    logs = tf.nn.log_softmax(clean_logits), tf.nn.log_softmax(attacked_logits)
    return tf.reduce_mean(kl_divergence(*logs), axis=1)


def kl_divergence(log_p: tf.Tensor, log_q: tf.Tensor) -> tf.Tensor:
    """Compute KL(p || q) of distributions over the last axis, given as logarithms."""
    return tf.reduce_sum(tf.exp(log_p) * (log_p - log_q), axis=-1)
