"""What a training step minimises: losses of examples, the images that they are of, and gradients."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import keras
import tensorflow as tf

from ncen_tf.ensembles.adversary import (
    adversarial_images,
    distilled_images,
    member_divergence,
    trs_penalty,
)
from ncen_tf.ensembles.inputs import weighted
from ncen_tf.ensembles.penalties import (
    gradient_penalty,
    input_gradients,
    member_cross_entropies,
    prediction_penalty,
    stack_logits,
)
from ncen_tf.ensembles.regularizers import DVERGE, TRS, GradientRegularizer, PredictionRegularizer

if TYPE_CHECKING:
    from ncen_tf.ensembles.ensemble import Ensemble


def losses_per_example(
    ensemble: Ensemble, images: Sequence[tf.Tensor], labels: tf.Tensor, training: bool
) -> tuple[tf.Tensor, dict[str, tf.Tensor], tf.Tensor]:
    """Compute the loss of each example, its parts, and the members' logits.

    ``images`` has a batch float [N, H, W, C] for each member.

    Returns:
        Loss [N]; ``{"ce": [N], term: [N], ...}``; logits [N, k, classes].
    """
    members, regularizer, ce_on, penalty = ensemble.members, ensemble.regularizer, ensemble.ce_on, None
    if isinstance(regularizer, GradientRegularizer):
        logits, ce, gradients = input_gradients(members, images, labels, ce_on, training)
        if isinstance(regularizer, TRS):
            penalty = trs_penalty(regularizer, members, images, labels, gradients, ce_on, training)
        else:
            penalty = gradient_penalty(regularizer, gradients)
    else:
        logits = stack_logits(members, images, training)
        ce = member_cross_entropies(logits, labels, ce_on)
        if isinstance(regularizer, PredictionRegularizer):
            penalty = prediction_penalty(regularizer, logits, labels)
    ce = tf.reduce_mean(ce, axis=1)
    if penalty is None:
        return ce, {"ce": ce}, logits
    return ce + penalty.value, {"ce": ce} | penalty.terms, logits


def members_own_loss(ensemble: Ensemble) -> tf.Tensor | None:
    """Sum the losses that the members carry, of their weights and of their last call."""
    own = [tf.cast(loss, keras.config.floatx()) for loss in ensemble.losses]
    return tf.add_n(own) if own else None


def loss_and_gradients(
    ensemble: Ensemble,
    images: tf.Tensor,
    labels: tf.Tensor,
    weights: tf.Tensor | None,
    global_batch: tf.Tensor,
    key: tf.Tensor,
) -> tuple[list[tf.Tensor], tf.Tensor, dict[str, tf.Tensor], tf.Tensor]:
    """Compute what a training step needs before it changes the weights.

    Args:
        ensemble: Compiled.
        images: Float [N, H, W, C].
        labels: Integer [N].
        weights: Weight of each example [N]; ``None`` for 1.
        global_batch: Number of images over all replicas.
        key: :func:`attack_key` of the replica.

    Returns:
        Gradients of the trainable variables, times the loss scale of the optimizer; loss [N]; its named
        parts; logits [N, k, classes].
    """
    settings = ensemble.adversarial_training
    passes, attacked = training_views(ensemble, images, labels, key)
    with tf.GradientTape() as tape:
        losses, parts, logits = losses_per_example(ensemble, passes[0], labels, training=True)
        for views in passes[1:]:
            losses += losses_per_example(ensemble, views, labels, training=True)[0]
            parts["ce"] = losses / len(passes)
        members_own = members_own_loss(ensemble)
        if settings is not None and settings.form == "trades":
            divergence = member_divergence(logits, stack_logits(ensemble.members, attacked, training=True))
            losses += settings.beta * divergence
            parts["divergence"] = divergence
        losses, parts = weighted(losses, parts, weights)
        # The optimizer sums over replicas, so each contributes its share of the global mean.
        loss = tf.reduce_sum(losses) / tf.cast(global_batch, losses.dtype)
        if members_own is not None:
            loss += members_own / tf.distribute.get_strategy().num_replicas_in_sync
            losses += members_own
        loss = ensemble.optimizer.scale_loss(loss)
    return tape.gradient(loss, ensemble.trainable_variables), losses, parts, logits


def training_views(
    ensemble: Ensemble, images: tf.Tensor, labels: tf.Tensor, key: tf.Tensor
) -> tuple[list[Sequence[tf.Tensor]], Sequence[tf.Tensor]]:
    """Make the images that each member is trained on, and the adversarial ones (or the clean ones again).

    The members pass over the batch once, or with DVERGE once for each other member: in pass r, member i
    sees the images of member i + r. Arguments are those of :func:`loss_and_gradients`.
    """
    members, settings = ensemble.members, ensemble.adversarial_training
    clean = [images] * len(members)
    passes: list[Sequence[tf.Tensor]] = []
    attacked: Sequence[tf.Tensor] = clean
    if settings is not None:
        attacked = adversarial_images(settings, members, images, labels, key)
        passes.append(attacked if settings.form == "pgd" else clean)
    if isinstance(ensemble.regularizer, DVERGE):
        # The key of the first replica: all of them draw the same layers.
        found = distilled_images(ensemble.regularizer, members, images, attack_key(ensemble, 0))
        passes += [found[shift:] + found[:shift] for shift in range(1, len(found))]
    return passes or [clean], attacked


def attack_key(ensemble: Ensemble, replica: tf.Tensor | int) -> tf.Tensor:
    """Return the key of the attack's random starts.

    It depends on seed, step and replica alone, so that a resumed run repeats them.
    """
    step = tf.cast(ensemble.optimizer.iterations, tf.int32)
    return tf.random.fold_in(tf.stack([ensemble.seed, replica]), step)
