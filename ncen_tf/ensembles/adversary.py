"""Images that a training step searches for, by projected gradient ascent compiled with it.

They are those of adversarial training, of TRS and of DVERGE. Throughout, members are models of images float
[N, H, W, C] in [0, 1] -> logits [N, classes], labels are integers [N], and a key is one of
``tf.random.stateless_uniform``.
"""

import functools
from collections.abc import Callable, Sequence
from typing import Any, Literal

import keras
import tensorflow as tf

from ncen_tf.ensembles.penalties import (
    CrossEntropyOn,
    Penalty,
    input_gradients,
    l2_norm,
    log_mean_probabilities,
    member_cross_entropies,
    pairwise_cosines,
    stack_logits,
)
from ncen_tf.ensembles.regularizers import DVERGE, TRS, AdversarialTraining

AttackedLoss = Literal["ensemble", "members"]
Losses = Callable[[tf.Tensor], tf.Tensor]
"""Member logits [N, k, classes] -> the losses to maximise, [N] or [N, k]."""

for _class in (AdversarialTraining, TRS, DVERGE):
    keras.saving.register_keras_serializable("ncen_tf")(_class)


def adversarial_images(
    settings: AdversarialTraining,
    members: Sequence[keras.Model],
    images: tf.Tensor,
    labels: tf.Tensor,
    key: tf.Tensor,
) -> list[tf.Tensor]:
    """Attack the first ``fraction`` of a batch, and return an image batch for each member."""
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
    moving statistics. Of ``settings``, ``form``, ``fraction`` and ``beta`` are not used.

    Returns:
        k tensors [N, H, W, C] in [0, 1], within ``eps`` of ``images``; all the same for
        ``loss="ensemble"``.
    """
    eps, steps, step_size = settings.eps, settings.steps, settings.resolved_step_size
    count = len(members) if settings.loss == "members" else 1
    low, high = _within(eps, images)
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

    ``start`` are distinct tensors, and ``ranges`` the lowest and the highest values of each.

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


def _within(eps: float, images: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """Return the lowest and the highest images within an Linf bound."""
    return tf.maximum(images - eps, 0.0), tf.minimum(images + eps, 1.0)


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


# TRS


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

    ``gradients`` [N, k, H*W*C] are the g_i at ``images``, a batch for each member.
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
    ranges = [_within(eps, x) for x in images]
    # Copies: the members may be given the same tensor.
    start = [tf.identity(x) for x in images]
    return projected_ascent(start, ranges, lengths, regularizer.steps, eps / 3)


# DVERGE


def distilled_images(
    regularizer: DVERGE, members: Sequence[keras.Model], images: tf.Tensor, key: tf.Tensor
) -> list[tf.Tensor]:
    """Change each image so that a layer of a member sees the next image of the batch in it.

    Each member draws a layer of its own. The members run in inference mode.

    Returns:
        k tensors like ``images``, within ``eps`` of them.
    """
    found = []
    for index, member in enumerate(members):
        extractors = feature_extractors(member)
        layer = tf.random.stateless_uniform(
            [], tf.random.fold_in(key, index), maxval=len(extractors), dtype=tf.int32, alg="philox"
        )
        # A branch for each layer, so that layers above it are not computed.
        branches = [functools.partial(distill, regularizer, features, images) for features in extractors]
        found.append(tf.switch_case(layer, branches))
    return found


def distill(regularizer: DVERGE, features: keras.Model, images: tf.Tensor) -> tf.Tensor:
    """Minimise the squared distance of each image's features from those of the image before it.

    By projected sign descent with momentum 1. ``features`` maps images to features of any shape.
    """
    eps, steps = regularizer.eps, regularizer.steps
    wanted = features(tf.roll(images, 1, axis=0), training=False)

    def closeness(points: Sequence[tf.Tensor]) -> tf.Tensor:
        return -tf.reduce_sum(tf.math.squared_difference(features(points[0], training=False), wanted))

    step_size = regularizer.step_size or eps / steps
    (found,) = projected_ascent([images], [_within(eps, images)], closeness, steps, step_size, momentum=1.0)
    return found


def feature_extractors(member: keras.Model) -> list[keras.Model]:
    """Make models from images to the outputs of a member's residual blocks, before the activation.

    A member without ``Add`` layers gives the outputs of its convolutions instead, and one without these its
    logits.
    """
    for kind in (keras.layers.Add, keras.layers.Conv2D):
        found = [layer for layer in member.layers if isinstance(layer, kind)]
        if found:
            return [keras.Model(member.inputs, layer.output) for layer in found]
    return [member]
