"""Formulas of the regularizers, on members' input gradients and predictions.

Throughout, k members classify N examples: logits are [N, k, classes], labels integers [N], and gradients
[N, k, D] with D = H*W*C.
"""

import math
from collections.abc import Sequence
from typing import Literal, NamedTuple

import keras
import numpy as np
import tensorflow as tf

from ncen_tf.base.errors import InputError
from ncen_tf.ensembles.regularizers import (
    ADP,
    GAL,
    GPMR,
    NCE,
    NCL,
    GradientRegularizer,
    PredictionRegularizer,
)

CrossEntropyOn = Literal["logits", "probabilities"]

EPSILON = 1e-12
"""Added inside square roots. The largest entry of an example's scaled gradients is 1."""
SMALLEST_SCALE = 1e-12
"""Gradients below this are not scaled to 1, but fade to 0."""
JITTER = 1e-5
"""Added to the diagonal of ADP's Gram matrix, which is singular where members agree: the logarithm and its
derivative would have no bound. It changes log det by less than 1e-3 once det is above 1e-2."""

for _class in (NCE, GAL, GPMR, ADP, NCL):
    keras.saving.register_keras_serializable("ncen_tf")(_class)


class Penalty(NamedTuple):
    """A penalty for each example, and its terms."""

    value: tf.Tensor
    """[N], weighted by the coefficients, added to the cross-entropy."""
    terms: dict[str, tf.Tensor]
    """Term name -> [N] without coefficients; the names are the regularizer's ``term_names``."""


def gradient_penalty(regularizer: GradientRegularizer, gradients: tf.Tensor) -> Penalty:
    """Compute a penalty on the members' input gradients."""
    if callable(regularizer):
        penalty: Penalty = regularizer(gradients)
        return penalty
    match regularizer:
        case NCE(lambda_cos=a, lambda_norm=b, form=form):
            if form == "paper":
                cos = tf.reduce_mean(l_cos(gradients), axis=1)
                norm = tf.reduce_mean(l_norm(gradients), axis=1)
            else:
                cos, norm = released_cos(gradients), released_norm(gradients)
            return Penalty(a * cos + b * norm, {"l_cos": cos, "l_norm": norm})
        case GAL(coefficient=a):
            term = coherence(gradients)
            return Penalty(a * term, {"coherence": term})
        case GPMR(lambda_div=a, lambda_eq=b):
            div, eq = l_div(gradients), l_eq(gradients)
            return Penalty(a * div + b * eq, {"l_div": div, "l_eq": eq})
    raise InputError(f"{type(regularizer).__name__} must have a method __call__(gradients) -> Penalty.")


def prediction_penalty(regularizer: PredictionRegularizer, logits: tf.Tensor, labels: tf.Tensor) -> Penalty:
    """Compute a penalty on the members' logits.

    Raises:
        InputError: ADP is used with as many members as classes.
    """
    if callable(regularizer):
        penalty: Penalty = regularizer(logits, labels)
        return penalty
    if isinstance(regularizer, NCL):
        correlation = prediction_correlation(logits)
        return Penalty(regularizer.coefficient * correlation, {"correlation": correlation})
    if not isinstance(regularizer, ADP):
        raise InputError(
            f"{type(regularizer).__name__} must have a method __call__(logits, labels) -> Penalty."
        )
    if logits.shape[1] >= logits.shape[2]:
        raise InputError(
            f"ADP needs fewer members than classes; got {logits.shape[1]} and {logits.shape[2]}."
        )
    entropy, diversity = ensemble_entropy(logits), log_ensemble_diversity(logits, labels)
    value = -regularizer.alpha * entropy - regularizer.beta * diversity
    return Penalty(value, {"entropy": entropy, "log_diversity": diversity})


# Predictions


def mean_probabilities(member_logits: tf.Tensor) -> tf.Tensor:
    """Average the members' softmax: [N, k, classes] -> [N, classes]."""
    return tf.reduce_mean(tf.nn.softmax(member_logits), axis=1)


def log_mean_probabilities(member_logits: tf.Tensor) -> tf.Tensor:
    """Compute log :func:`mean_probabilities` without underflow: [N, k, classes] -> [N, classes]."""
    log_probabilities = tf.nn.log_softmax(member_logits)
    return tf.reduce_logsumexp(log_probabilities, axis=1) - math.log(member_logits.shape[1])


def member_cross_entropies(
    member_logits: tf.Tensor, labels: tf.Tensor, ce_on: CrossEntropyOn = "logits"
) -> tf.Tensor:
    """Compute the cross-entropy of each member on each example, [N, k].

    With ``probabilities``, the softmax output is passed to the cross-entropy as if it were logits, which is
    what the authors' released code does.
    """
    scores = member_logits if ce_on == "logits" else tf.nn.softmax(member_logits)
    labels = tf.repeat(labels[:, tf.newaxis], scores.shape[1], axis=1)
    return tf.nn.sparse_softmax_cross_entropy_with_logits(labels, scores)


def ensemble_entropy(logits: tf.Tensor) -> tf.Tensor:
    """Compute the entropy of the mean probabilities (Pang et al., section 3.3). [N, k, classes] -> [N]."""
    probabilities = mean_probabilities(logits)
    return -tf.reduce_sum(tf.math.xlogy(probabilities, probabilities), axis=1)


def log_ensemble_diversity(logits: tf.Tensor, labels: tf.Tensor) -> tf.Tensor:
    """Compute log det(M^T M) (Pang et al., Eq. 4).

    The columns of M are the members' probabilities of the wrong classes, L2-normalised.

    Returns:
        [N], in [k log 1e-5, 0].
    """
    true = tf.one_hot(labels, logits.shape[2], on_value=True, off_value=False, dtype=tf.bool)[:, tf.newaxis]
    others = tf.where(true, logits.dtype.min, logits)
    # Probabilities up to a factor, which the normalisation removes, so that they do not underflow.
    unnormalized = tf.exp(others - tf.reduce_max(others, axis=2, keepdims=True))
    columns = unnormalized / tf.norm(unnormalized, axis=2, keepdims=True)
    gram = tf.matmul(columns, columns, transpose_b=True)
    return tf.linalg.logdet(gram + JITTER * tf.eye(logits.shape[1], dtype=logits.dtype))


def prediction_correlation(logits: tf.Tensor) -> tf.Tensor:
    """Compute the mean over members of (F_i - Fbar) . sum_{j != i} (F_j - Fbar) (Liu & Yao, Eq. 4).

    F_i are probabilities. The deviations sum to 0, so the sum of the others is -(F_i - Fbar).

    Returns:
        [N], in [-1, 0].
    """
    probabilities = tf.nn.softmax(logits)
    deviations = probabilities - tf.reduce_mean(probabilities, axis=1, keepdims=True)
    return -tf.reduce_mean(tf.reduce_sum(tf.square(deviations), axis=2), axis=1)


# Input gradients


def input_gradients(
    members: Sequence[keras.Model],
    images: Sequence[tf.Tensor],
    labels: tf.Tensor,
    ce_on: CrossEntropyOn = "logits",
    training: bool = False,
) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
    """Differentiate each member's cross-entropy with respect to its images.

    The result can itself be differentiated. ``images`` has a batch float [N, H, W, C] for each member.

    Returns:
        Logits, cross-entropies [N, k] and gradients.
    """
    # The members may get the same tensor: copies keep their gradients apart in one reverse pass.
    copies = [tf.identity(x) for x in images]
    with tf.GradientTape(watch_accessed_variables=False) as tape:
        tape.watch(copies)
        logits = stack_logits(members, copies, training)
        ce = member_cross_entropies(logits, labels, ce_on)
        total = tf.reduce_sum(ce)
    size = math.prod(images[0].shape[1:])
    flat = [tf.reshape(gradient, [tf.shape(labels)[0], size]) for gradient in tape.gradient(total, copies)]
    return logits, ce, tf.ensure_shape(tf.stack(flat, axis=1), [None, len(members), None])


def stack_logits(members: Sequence[keras.Model], images: Sequence[tf.Tensor], training: bool) -> tf.Tensor:
    """Compute the logits of members that each get their own images, in Keras's float type."""
    outputs = [member(x, training=training) for member, x in zip(members, images, strict=True)]
    return tf.stack([tf.cast(logits, keras.config.floatx()) for logits in outputs], axis=1)


def scale_gradients(gradients: tf.Tensor) -> tf.Tensor:
    """Scale each example's gradients so that their largest entry is 1 in magnitude.

    Cosines and relative magnitudes do not change under a common factor, so treating the factor as a
    constant leaves their derivatives exact, while squares of gradients as small as 1e-12 (confident
    examples) no longer vanish beside :data:`EPSILON`.
    """
    largest = tf.reduce_max(tf.abs(gradients), axis=(1, 2), keepdims=True)
    return gradients / tf.stop_gradient(tf.maximum(largest, SMALLEST_SCALE))


def l2_norm(vectors: tf.Tensor) -> tf.Tensor:
    """Compute the L2 norm over the last axis, with a finite derivative at zero."""
    return tf.sqrt(tf.reduce_sum(tf.square(vectors), axis=-1) + EPSILON)


def cosines_to_mean(gradients: tf.Tensor) -> tf.Tensor:
    """Compute c_i, the cosine of each member's gradient with the mean gradient (Luo et al., Eq. 1 and 3).

    Returns:
        [N, k] in [-1, 1]; 0 where a gradient is zero.
    """
    scaled = scale_gradients(gradients)
    mean = tf.reduce_mean(scaled, axis=1, keepdims=True)
    return tf.reduce_sum(scaled * mean, axis=-1) / (l2_norm(scaled) * l2_norm(mean))


def norm_deviations(gradients: tf.Tensor) -> tf.Tensor:
    """Compute d_i, each member's gradient norm relative to the mean norm, minus 1 (Luo et al., Eq. 7).

    Returns:
        [N, k] in [-1, k-1], with sum 0 over the members.
    """
    norms = l2_norm(scale_gradients(gradients))
    mean = tf.reduce_mean(norms, axis=1, keepdims=True)
    return norms / mean - 1.0


def pairwise_cosines(gradients: tf.Tensor) -> tf.Tensor:
    """Compute the cosine between the gradients of each two members i < j.

    Returns:
        [N, k(k-1)/2] in [-1, 1], in the order of ``itertools.combinations``; 0 where a gradient is zero.
    """
    scaled = scale_gradients(gradients)
    directions = scaled / l2_norm(scaled)[..., tf.newaxis]
    first, second = (tf.gather(directions, i, axis=1) for i in np.triu_indices(gradients.shape[1], k=1))
    return tf.reduce_sum(first * second, axis=-1)


def negative_correlation(values: tf.Tensor) -> tf.Tensor:
    """Compute v_i * sum over j != i of v_j for each member (Luo et al., Eq. 2 and 6). [N, k] -> [N, k]."""
    return values * (tf.reduce_sum(values, axis=1, keepdims=True) - values)


def l_cos(gradients: tf.Tensor) -> tf.Tensor:
    """Compute L_cos,i = c_i * sum over j != i of c_j (Luo et al., Eq. 2, Alg. 1). [N, k, D] -> [N, k]."""
    return negative_correlation(cosines_to_mean(gradients))


def l_norm(gradients: tf.Tensor) -> tf.Tensor:
    """Compute L_norm,i = d_i * sum over j != i of d_j (Luo et al., Eq. 6, Alg. 2). [N, k, D] -> [N, k].

    The deviations sum to 0, so this is exactly -d_i^2: a positive coefficient spreads the gradient
    magnitudes, a negative one balances them.
    """
    return negative_correlation(norm_deviations(gradients))


def released_cos(gradients: tf.Tensor) -> tf.Tensor:
    """Compute log sum_i [exp(c_i) * sum over j != i of exp(c_j)], as the authors' code. [N, k, D] -> [N]."""
    products = negative_correlation(tf.exp(cosines_to_mean(gradients)))
    return tf.math.log(tf.reduce_sum(products, axis=1))


def released_norm(gradients: tf.Tensor) -> tf.Tensor:
    """Compute log sum_i exp(L_norm,i / k), as the authors' code. [N, k, D] -> [N]."""
    members = gradients.shape[1]
    return tf.reduce_logsumexp(l_norm(gradients) / members, axis=1)


def coherence(gradients: tf.Tensor) -> tf.Tensor:
    """Compute log sum over i < j of exp(cos(g_i, g_j)) (Kariyappa & Qureshi). [N, k, D] -> [N]."""
    return tf.reduce_logsumexp(pairwise_cosines(gradients), axis=1)


def l_div(gradients: tf.Tensor) -> tf.Tensor:
    """Compute the mean over i < j of (cos(g_i, g_j) + 1/(k-1))^2 (Dabouei et al.). [N, k, D] -> [N].

    It is zero where the k directions are as far apart as possible.
    """
    target = -1.0 / (gradients.shape[1] - 1)
    return tf.reduce_mean(tf.square(pairwise_cosines(gradients) - target), axis=1)


def l_eq(gradients: tf.Tensor) -> tf.Tensor:
    """Compute the variance over members of |g_i| (Dabouei et al.). [N, k, D] -> [N].

    It is in the units of the gradients, so their scale matters.
    """
    norms = l2_norm(gradients)
    return tf.reduce_mean(tf.square(norms - tf.reduce_mean(norms, axis=1, keepdims=True)), axis=1)
