"""An ensemble: members side by side, predicting the mean of their softmax outputs."""

import math
from collections.abc import Sequence
from typing import Any

import keras
import tensorflow as tf

from ncen_tf.ensembles.resnet import build_resnet
from ncen_tf.ensembles.structures import member_depth, parse_architecture


@keras.saving.register_keras_serializable("ncen_tf")
class Ensemble(keras.Model):
    """Members that see the same images; trainable by :class:`ncen_tf.train.NCEnsemble`.

    Shape: images float [N, H, W, C] in [0, 1] -> member logits float32 [N, k, classes].

    Args:
        members: at least two models, each images -> logits [N, classes].
    """

    def __init__(self, members: Sequence[keras.Model], **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.members = list(members)
        self.built = True

    def call(self, images: tf.Tensor, training: bool | None = None) -> tf.Tensor:
        return tf.stack([member(images, training=training) for member in self.members], axis=1)

    def predict_probabilities(self, images: tf.Tensor) -> tf.Tensor:
        """The ensemble's class probabilities [N, classes] for images [N, H, W, C] in [0, 1]."""
        return mean_probabilities(self(images, training=False))

    def get_config(self) -> dict[str, Any]:
        members = [keras.saving.serialize_keras_object(member) for member in self.members]
        return {"name": self.name, "members": members}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> "Ensemble":
        members = [keras.saving.deserialize_keras_object(m) for m in config.pop("members")]
        return cls(members, **config)


def mean_probabilities(member_logits: tf.Tensor) -> tf.Tensor:
    """Mean over members of their softmax: [N, k, classes] -> [N, classes]."""
    return tf.reduce_mean(tf.nn.softmax(member_logits), axis=1)


def log_mean_probabilities(member_logits: tf.Tensor) -> tf.Tensor:
    """Logarithm of :func:`mean_probabilities`, accurate however small: [N, k, classes] -> [N, classes]."""
    log_probabilities = tf.nn.log_softmax(member_logits)
    return tf.reduce_logsumexp(log_probabilities, axis=1) - math.log(member_logits.shape[1])


def build_ensemble(
    architecture: Sequence[str],
    image_shape: tuple[int, int, int],
    classes: int = 10,
    *,
    sync_batch_norm: bool = False,
    seed: int | None = None,
    ensemble_class: type[Ensemble] = Ensemble,
) -> Ensemble:
    """Ensemble of fresh ResNets.

    Args:
        architecture: member names, e.g. ``("resnet20",) * 3``.
        image_shape: (H, W, C).
        classes: number of classes.
        sync_batch_norm: batch statistics over all replicas.
        seed: each member draws its own initial weights from it.
        ensemble_class: :class:`Ensemble` or a subclass.

    Raises:
        InputError: fewer than two members or an unknown name.
    """
    names = parse_architecture(list(architecture))
    members = [
        build_resnet(
            member_depth(name),
            image_shape,
            classes,
            sync_batch_norm=sync_batch_norm,
            seed=None if seed is None else seed * 1000 + index,
            name=f"member_{index}_{name}",
        )
        for index, name in enumerate(names)
    ]
    return ensemble_class(members)
