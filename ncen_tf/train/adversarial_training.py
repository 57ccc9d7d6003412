"""What a training step does with adversarial images."""

import dataclasses
from collections.abc import Sequence
from typing import Any, Literal

import keras
import tensorflow as tf

from ncen_tf.train.adversary import (
    Adversary,
    cross_entropy_to_raise,
    divergence_to_raise,
    kl_divergence,
)

Form = Literal["pgd", "trades"]


@keras.saving.register_keras_serializable("ncen_tf")
@dataclasses.dataclass(frozen=True)
class AdversarialTraining:
    """Train on the adversary's images, or hold predictions on them to those on clean ones.

    ``pgd`` puts them in place of the clean images (Madry et al., 2018), for cross-entropy and regularizer
    alike. ``trades`` keeps both on the clean images and adds beta times the members' mean KL divergence
    from their prediction on the clean image to that on the adversarial one (Zhang et al., 2019,
    "Theoretically Principled Trade-off between Robustness and Accuracy", Eq. 5).

    Args:
        adversary: the inner maximisation, of cross-entropy for ``pgd``, of the divergence for ``trades``.
        form: ``pgd`` or ``trades``.
        fraction: share of each batch, its first images, that is attacked; in (0, 1].
        beta: weight of the divergence, ``trades`` only.
    """

    adversary: Adversary
    form: Form = "pgd"
    fraction: float = 1.0
    beta: float = 6.0

    def attack(
        self, members: Sequence[keras.Model], images: tf.Tensor, labels: tf.Tensor, key: tf.Tensor
    ) -> list[tf.Tensor]:
        """Images [N, H, W, C] for each member, the first ``fraction`` of them adversarial.

        Args:
            members: models images -> logits [N, classes].
            images: float [N, H, W, C] in [0, 1].
            labels: integer [N].
            key: of the adversary's random start.
        """
        count = tf.shape(images)[0]
        attacked = tf.cast(tf.math.ceil(self.fraction * tf.cast(count, tf.float32)), count.dtype)
        part, rest = images[:attacked], images[attacked:]
        if self.form == "pgd":
            losses = cross_entropy_to_raise(labels[:attacked], self.adversary.loss)
        else:
            clean = tf.stack([member(part, training=False) for member in members], axis=1)
            losses = divergence_to_raise(clean, self.adversary.loss)
        found = self.adversary(members, part, losses, key)
        return found if self.fraction == 1 else [tf.concat([x, rest], 0) for x in found]

    def divergence(self, clean_logits: tf.Tensor, attacked_logits: tf.Tensor) -> tf.Tensor:
        """Members' mean KL(clean || attacked), what ``trades`` adds: two of [N, k, classes] -> [N]."""
        logs = tf.nn.log_softmax(clean_logits), tf.nn.log_softmax(attacked_logits)
        return tf.reduce_mean(kl_divergence(*logs), axis=1)

    def get_config(self) -> dict[str, Any]:
        return dataclasses.asdict(self)

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> "AdversarialTraining":
        return cls(**config | {"adversary": Adversary(**config["adversary"])})
