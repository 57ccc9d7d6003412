"""Gradient alignment loss (Kariyappa & Qureshi, 2019, "Improving Adversarial Robustness of Ensembles with
Diversity Training")."""

import dataclasses

import keras
import tensorflow as tf

from ncen_tf.ensembles.gradients import pairwise_cosines
from ncen_tf.ensembles.regularizer import GradientRegularizer, Penalty


def coherence(gradients: tf.Tensor) -> tf.Tensor:
    """log sum over i < j of exp(cos(g_i, g_j)): a smooth maximum. [N, k, D] -> [N]."""
    return tf.reduce_logsumexp(pairwise_cosines(gradients), axis=1)


@keras.saving.register_keras_serializable("ncen_tf")
@dataclasses.dataclass(frozen=True)
class GAL(GradientRegularizer):
    """coefficient * log sum over i < j of exp(cos(g_i, g_j)).

    Args:
        coefficient: weight of the term; Luo et al. compare with 0.5.
    """

    coefficient: float = 0.5

    @property
    def term_names(self) -> tuple[str, ...]:
        return ("coherence",)

    def __call__(self, gradients: tf.Tensor) -> Penalty:
        term = coherence(gradients)
        return Penalty(self.coefficient * term, {"coherence": term})
