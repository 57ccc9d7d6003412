"""Negative-correlation penalty (Luo et al., "Defending Adversarial Examples by Negative Correlation
Ensemble"), in the paper's form and in that of the authors' released code."""

import dataclasses

import keras
import tensorflow as tf

from ncen_tf.base.errors import InputError
from ncen_tf.ensembles.gradients import cosines_to_mean, norm_deviations
from ncen_tf.ensembles.regularizer import GradientRegularizer, Penalty


def negative_correlation(values: tf.Tensor) -> tf.Tensor:
    """v_i * sum over j != i of v_j, for each member (Luo et al., Eq. 2 and 6). [N, k] -> [N, k]."""
    return values * (tf.reduce_sum(values, axis=1, keepdims=True) - values)


def l_cos(gradients: tf.Tensor) -> tf.Tensor:
    """L_cos,i = c_i * sum over j != i of c_j (Eq. 2, Alg. 1). [N, k, D] -> [N, k]."""
    return negative_correlation(cosines_to_mean(gradients))


def l_norm(gradients: tf.Tensor) -> tf.Tensor:
    """L_norm,i = d_i * sum over j != i of d_j (Eq. 6, Alg. 2). [N, k, D] -> [N, k].

    The deviations sum to 0, so this is exactly -d_i^2: a positive coefficient spreads the gradient
    magnitudes, a negative one balances them.
    """
    return negative_correlation(norm_deviations(gradients))


def released_cos(gradients: tf.Tensor) -> tf.Tensor:
    """log sum_i [exp(c_i) * sum over j != i of exp(c_j)], as the authors' code. [N, k, D] -> [N]."""
    products = negative_correlation(tf.exp(cosines_to_mean(gradients)))
    return tf.math.log(tf.reduce_sum(products, axis=1))


def released_norm(gradients: tf.Tensor) -> tf.Tensor:
    """log sum_i exp(L_norm,i / k), as the authors' code. [N, k, D] -> [N]."""
    members = gradients.shape[1]
    return tf.reduce_logsumexp(l_norm(gradients) / members, axis=1)


@keras.saving.register_keras_serializable("ncen_tf")
@dataclasses.dataclass(frozen=True)
class NCE(GradientRegularizer):
    """lambda_norm * L_norm + lambda_cos * L_cos, averaged over members (Luo et al., Eq. 10).

    Args:
        lambda_cos: weight of the direction term; any sign.
        lambda_norm: weight of the magnitude term; any sign.
        form: ``paper`` for the formulas, ``released`` for what the authors' code computes.

    Raises:
        InputError: a weight that is not finite, or an unknown form.
    """

    lambda_cos: float = 0.02
    lambda_norm: float = 0.02
    form: str = "paper"

    def __post_init__(self) -> None:
        if self.form not in ("paper", "released"):
            raise InputError(f"The form of NCE is 'paper' or 'released'; got {self.form!r}.")
        super().__post_init__()

    @property
    def term_names(self) -> tuple[str, ...]:
        return ("l_cos", "l_norm")

    def __call__(self, gradients: tf.Tensor) -> Penalty:
        if self.form == "paper":
            cos = tf.reduce_mean(l_cos(gradients), axis=1)
            norm = tf.reduce_mean(l_norm(gradients), axis=1)
        else:
            cos, norm = released_cos(gradients), released_norm(gradients)
        return Penalty(self.lambda_cos * cos + self.lambda_norm * norm, {"l_cos": cos, "l_norm": norm})
