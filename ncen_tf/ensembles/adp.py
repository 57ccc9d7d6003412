"""Adaptive diversity promoting (Pang et al., 2019, "Improving Adversarial Robustness via Promoting Ensemble
Diversity")."""

import dataclasses

import keras
import tensorflow as tf

from ncen_tf.base.errors import InputError
from ncen_tf.ensembles.ensemble import mean_probabilities
from ncen_tf.ensembles.regularizer import Penalty, PredictionRegularizer

# On the diagonal of the Gram matrix: where members agree it is singular, and its logarithm and that
# logarithm's derivative have no bound. It changes log det by less than 1e-3 once det is above 1e-2.
JITTER = 1e-5


def ensemble_entropy(logits: tf.Tensor) -> tf.Tensor:
    """H of the mean probabilities, in nats (Pang et al., section 3.3). [N, k, classes] -> [N]."""
    probabilities = mean_probabilities(logits)
    return -tf.reduce_sum(tf.math.xlogy(probabilities, probabilities), axis=1)


def log_ensemble_diversity(logits: tf.Tensor, labels: tf.Tensor) -> tf.Tensor:
    """log det(M^T M), M's columns being members' non-true-class probabilities, L2-normalised (Eq. 4).

    Shape: [N, k, classes], integer [N] -> [N] in [k log 1e-5, 0].
    """
    true = tf.one_hot(labels, logits.shape[2], on_value=True, off_value=False, dtype=tf.bool)[:, tf.newaxis]
    others = tf.where(true, logits.dtype.min, logits)
    # Probabilities up to a factor, which normalising removes: confident members do not underflow.
    unnormalized = tf.exp(others - tf.reduce_max(others, axis=2, keepdims=True))
    columns = unnormalized / tf.norm(unnormalized, axis=2, keepdims=True)
    gram = tf.matmul(columns, columns, transpose_b=True)
    return tf.linalg.logdet(gram + JITTER * tf.eye(logits.shape[1], dtype=logits.dtype))


@keras.saving.register_keras_serializable("ncen_tf")
@dataclasses.dataclass(frozen=True)
class ADP(PredictionRegularizer):
    """-alpha * H(mean probabilities) - beta * log det(M^T M) (Pang et al., Eq. 5).

    Pang et al. add it to the sum of the members' cross-entropies; here, as for every regularizer, it
    is added to their mean.

    Args:
        alpha: weight of the entropy.
        beta: weight of the diversity.

    Raises:
        InputError: when called with as many members as classes: their columns have a dimension less.
    """

    alpha: float = 2.0
    beta: float = 0.5

    @property
    def term_names(self) -> tuple[str, ...]:
        return ("entropy", "log_diversity")

    def __call__(self, logits: tf.Tensor, labels: tf.Tensor) -> Penalty:
        if logits.shape[1] >= logits.shape[2]:
            raise InputError(
                f"ADP needs fewer members than classes; got {logits.shape[1]} and {logits.shape[2]}."
            )
        entropy, diversity = ensemble_entropy(logits), log_ensemble_diversity(logits, labels)
        value = -self.alpha * entropy - self.beta * diversity
        return Penalty(value, {"entropy": entropy, "log_diversity": diversity})
