"""Gradient phase and magnitude regularization (Dabouei et al., 2020, "Exploiting Joint Robustness to
Adversarial Perturbations")."""

import dataclasses

import keras
import tensorflow as tf

from ncen_tf.ensembles.gradients import l2_norm, pairwise_cosines
from ncen_tf.ensembles.regularizer import GradientRegularizer, Penalty


def l_div(gradients: tf.Tensor) -> tf.Tensor:
    """Mean over i < j of (cos(g_i, g_j) + 1/(k-1))^2: zero where k directions are as far apart as can be.

    Shape: [N, k, D] -> [N].
    """
    target = -1.0 / (gradients.shape[1] - 1)
    return tf.reduce_mean(tf.square(pairwise_cosines(gradients) - target), axis=1)


def l_eq(gradients: tf.Tensor) -> tf.Tensor:
    """Variance over members of |g_i|, in the units of the gradients, so their scale matters.

    Shape: [N, k, D] -> [N].
    """
    norms = l2_norm(gradients)
    return tf.reduce_mean(tf.square(norms - tf.reduce_mean(norms, axis=1, keepdims=True)), axis=1)


@keras.saving.register_keras_serializable("ncen_tf")
@dataclasses.dataclass(frozen=True)
class GPMR(GradientRegularizer):
    """lambda_div * L_div + lambda_eq * L_eq.

    Args:
        lambda_div: weight of the direction term; 0.1 for FashionMNIST, 0.04 for CIFAR-10 (Luo et al.).
        lambda_eq: weight of the magnitude term.
    """

    lambda_div: float = 0.1
    lambda_eq: float = 10.0

    @property
    def term_names(self) -> tuple[str, ...]:
        return ("l_div", "l_eq")

    def __call__(self, gradients: tf.Tensor) -> Penalty:
        div, eq = l_div(gradients), l_eq(gradients)
        return Penalty(self.lambda_div * div + self.lambda_eq * eq, {"l_div": div, "l_eq": eq})
