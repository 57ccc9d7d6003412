"""The inner maximisation of adversarial training, compiled with the training step."""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Literal

import keras
import tensorflow as tf

from ncen_tf.ensembles.ensemble import log_mean_probabilities

AdversaryLoss = Literal["ensemble", "members"]
Losses = Callable[[tf.Tensor], tf.Tensor]
"""Member logits [N, k, classes] -> what the adversary raises, [N] or [N, k]."""


@dataclasses.dataclass(frozen=True)
class Adversary:
    """Projected gradient ascent in an Linf ball.

    Several steps are Madry et al.'s (2018, "Towards Deep Learning Models Resistant to Adversarial Attacks"),
    one step from a random start Wong et al.'s (2020, "Fast is better than free").

    Members answer in inference mode: the batch statistics of half-made images must not reach the moving
    ones.

    Args:
        eps: radius, images being in [0, 1]; > 0.
        steps: gradient steps, >= 1.
        step_size: of each, > 0.
        random_start: begin at a uniformly drawn point of the ball, or at the image.
        loss: ``ensemble`` makes one image for all members, from the loss of their mean prediction;
            ``members`` makes one for each, from its own loss.
    """

    eps: float
    steps: int
    step_size: float
    random_start: bool = True
    loss: AdversaryLoss = "ensemble"

    def __call__(
        self, members: Sequence[keras.Model], images: tf.Tensor, losses: Losses, key: tf.Tensor
    ) -> list[tf.Tensor]:
        """An image for each member and example.

        Args:
            members: models images -> logits [N, classes].
            images: float [N, H, W, C] in [0, 1].
            losses: what to raise.
            key: of the random start, as for ``tf.random.stateless_uniform``.

        Returns:
            k tensors [N, H, W, C] in [0, 1], within ``eps`` of ``images``; for ``ensemble`` all the same.
        """
        count = len(members) if self.loss == "members" else 1
        low, high = tf.maximum(images - self.eps, 0.0), tf.minimum(images + self.eps, 1.0)
        start = [tf.identity(images) for _ in range(count)]  # Copies keep members' gradients apart.
        if self.random_start:
            shape = tf.concat([[count], tf.shape(images)], 0)
            # A named algorithm: by default XLA draws other numbers than TensorFlow.
            noise = tf.random.stateless_uniform(shape, key, -self.eps, self.eps, images.dtype, alg="philox")
            start = tf.unstack(tf.clip_by_value(images + noise, low, high), count)

        def ascend(step: tf.Tensor, *points: tf.Tensor) -> tuple[tf.Tensor, ...]:
            with tf.GradientTape(watch_accessed_variables=False) as tape:
                tape.watch(points)
                seen = points if count > 1 else points * len(members)
                logits = [member(x, training=False) for member, x in zip(members, seen, strict=True)]
                total = tf.reduce_sum(losses(tf.stack(logits, axis=1)))
            moved = [
                tf.clip_by_value(x + self.step_size * tf.sign(gradient), low, high)
                for x, gradient in zip(points, tape.gradient(total, points), strict=True)
            ]
            return (step + 1, *moved)

        if self.steps == 1:
            _, *found = ascend(tf.constant(0), *start)
        else:
            _, *found = tf.while_loop(
                lambda step, *_: step < self.steps, ascend, (tf.constant(0), *start), parallel_iterations=1
            )
        found = [tf.stop_gradient(x) for x in found]
        return found if count > 1 else found * len(members)


def cross_entropy_to_raise(labels: tf.Tensor, loss: AdversaryLoss) -> Losses:
    """Cross-entropy of the mean prediction, or of each member's. Labels: integer [N]."""

    def losses(logits: tf.Tensor) -> tf.Tensor:
        if loss == "members":
            labels_of_members = tf.repeat(labels[:, tf.newaxis], logits.shape[1], axis=1)
            return tf.nn.sparse_softmax_cross_entropy_with_logits(labels_of_members, logits)
        return -tf.gather(log_mean_probabilities(logits), labels, batch_dims=1)

    return losses


def divergence_to_raise(clean_logits: tf.Tensor, loss: AdversaryLoss) -> Losses:
    """KL divergence from the clean prediction, the mean one or each member's. Logits: [N, k, classes]."""

    def losses(logits: tf.Tensor) -> tf.Tensor:
        if loss == "members":
            return kl_divergence(tf.nn.log_softmax(clean_logits), tf.nn.log_softmax(logits))
        return kl_divergence(log_mean_probabilities(clean_logits), log_mean_probabilities(logits))

    return losses


def kl_divergence(log_p: tf.Tensor, log_q: tf.Tensor) -> tf.Tensor:
    """KL(p || q) of distributions over the last axis, given as logarithms."""
    return tf.reduce_sum(tf.exp(log_p) * (log_p - log_q), axis=-1)
