"""How an ensemble does on clean examples, and how its members' gradients relate there."""

import dataclasses

import numpy as np
import tensorflow as tf

from ncen_tf.ensembles.ensemble import Ensemble
from ncen_tf.ensembles.penalties import (
    cosines_to_mean,
    input_gradients,
    l2_norm,
    l_cos,
    l_norm,
    mean_probabilities,
    norm_deviations,
    pairwise_cosines,
)


@dataclasses.dataclass(frozen=True)
class Evaluation:
    """Means over the examples, in inference mode."""

    ace: float
    """Accuracy of the ensemble on clean examples, in [0, 1], as the paper's tables name it."""
    member_ace: list[float]
    ce: float
    """Mean over members of the cross-entropy on logits."""
    l_cos: float
    """Luo et al., Eq. 2, mean over members; measured whatever the ensemble was trained with."""
    l_norm: float
    """Luo et al., Eq. 6, mean over members."""
    pairwise_cosine: float
    """Mean cosine between the input gradients of two members."""
    cosine_to_mean: list[float]
    """c_i of each member (Eq. 1)."""
    norm_deviation: list[float]
    """d_i of each member (Eq. 7); they sum to 0."""
    norm_spread: float
    """Root mean square of d_i over members and examples."""
    gradient_norm: list[float]
    """|g_i| of each member: L2 norm of its cross-entropy's gradient with respect to the image."""


class Evaluator:
    """Measures one ensemble; compiled once, used after every epoch."""

    def __init__(self, ensemble: Ensemble) -> None:
        @tf.function(reduce_retracing=True)
        def totals(images: tf.Tensor, labels: tf.Tensor) -> dict[str, tf.Tensor]:
            logits, ce, gradients = input_gradients(
                ensemble.members, [images] * len(ensemble.members), labels
            )
            right = tf.argmax(mean_probabilities(logits), 1, tf.int32) == labels
            member_right = tf.argmax(logits, 2, tf.int32) == labels[:, tf.newaxis]
            deviations = norm_deviations(gradients)
            return {
                "ace": tf.math.count_nonzero(right),
                "member_ace": tf.math.count_nonzero(member_right, 0),
                "ce": tf.reduce_sum(tf.reduce_mean(ce, 1)),
                "l_cos": tf.reduce_sum(tf.reduce_mean(l_cos(gradients), 1)),
                "l_norm": tf.reduce_sum(tf.reduce_mean(l_norm(gradients), 1)),
                "pairwise_cosine": tf.reduce_sum(tf.reduce_mean(pairwise_cosines(gradients), 1)),
                "cosine_to_mean": tf.reduce_sum(cosines_to_mean(gradients), 0),
                "norm_deviation": tf.reduce_sum(deviations, 0),
                "squared_deviation": tf.reduce_sum(tf.reduce_mean(tf.square(deviations), 1)),
                "gradient_norm": tf.reduce_sum(l2_norm(gradients), 0),
            }

        self._totals = totals

    def measure(self, batches: tf.data.Dataset) -> Evaluation:
        """Evaluate on batches of (images float32 in [0, 1], labels int32)."""
        measured = [(len(labels), self._totals(images, labels)) for images, labels in batches]
        examples = sum(size for size, _ in measured)

        def mean(name: str) -> np.ndarray:
            total = np.sum([totals[name].numpy() for _, totals in measured], axis=0)
            return total / examples

        return Evaluation(
            ace=float(mean("ace")),
            member_ace=mean("member_ace").tolist(),
            ce=float(mean("ce")),
            l_cos=float(mean("l_cos")),
            l_norm=float(mean("l_norm")),
            pairwise_cosine=float(mean("pairwise_cosine")),
            cosine_to_mean=mean("cosine_to_mean").tolist(),
            norm_deviation=mean("norm_deviation").tolist(),
            norm_spread=float(np.sqrt(mean("squared_deviation"))),
            gradient_norm=mean("gradient_norm").tolist(),
        )
