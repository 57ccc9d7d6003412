"""Clean accuracy of an ensemble and its members."""

import dataclasses

import numpy as np
import tensorflow as tf

from ncen_tf.models.ensemble import Ensemble, mean_probabilities
from ncen_tf.training.nc_ensemble import member_cross_entropies


@dataclasses.dataclass(frozen=True)
class Accuracy:
    """Clean accuracies in [0, 1] and the members' mean cross-entropy on logits."""

    ace: float
    """Accuracy of the ensemble on clean examples, as the paper's tables name it."""
    member_ace: list[float]
    ce: float


class Evaluator:
    """Measures one ensemble, in inference mode; compiled once, used after every epoch."""

    def __init__(self, ensemble: Ensemble) -> None:
        @tf.function(reduce_retracing=True)
        def count(images: tf.Tensor, labels: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
            logits = ensemble(images, training=False)
            correct = tf.argmax(mean_probabilities(logits), 1, tf.int32) == labels
            member_correct = tf.argmax(logits, 2, tf.int32) == labels[:, tf.newaxis]
            ce = tf.reduce_sum(tf.reduce_mean(member_cross_entropies(logits, labels), 1))
            return tf.math.count_nonzero(correct), tf.math.count_nonzero(member_correct, 0), ce

        self._count = count

    def measure(self, batches: tf.data.Dataset) -> Accuracy:
        """Accuracies over batches of (images float32 in [0, 1], labels int32)."""
        counts = [(len(labels), *self._count(images, labels)) for images, labels in batches]
        examples = sum(size for size, *_ in counts)
        members = np.sum([member_correct for _, _, member_correct, _ in counts], axis=0) / examples
        return Accuracy(
            ace=sum(int(correct) for _, correct, _, _ in counts) / examples,
            member_ace=[float(accuracy) for accuracy in members],
            ce=sum(float(ce) for *_, ce in counts) / examples,
        )
