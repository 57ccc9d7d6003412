"""Losses that strong attacks raise: one number for each example, computed from scores.

Scores are logits, or the logarithms of probabilities, which are logits too.
"""

import tensorflow as tf

_NO_DIVISION_BY_ZERO = 1e-12


def log_odds(scores: tf.Tensor, labels: tf.Tensor) -> tf.Tensor:
    """Log of the odds against the true class: log sum_{c != y} exp(s_c) - s_y.

    Cross-entropy is softplus of it, so both rise together: attacks that compare values of one example and
    follow the direction of its gradient take the same steps on either. But the cross-entropy of an example
    that the classifier is sure of is rounded to 0, and so is its gradient; then the example looks robust.

    Args:
        scores: [N, C].
        labels: int [N].

    Returns:
        [N].
    """
    true = tf.one_hot(labels, tf.shape(scores)[1], on_value=True, off_value=False)
    others = tf.where(true, tf.constant(float("-inf"), scores.dtype), scores)
    return tf.reduce_logsumexp(others, axis=1) - tf.gather(scores, labels, batch_dims=1)


def ensemble_log_odds(member_logits: tf.Tensor, labels: tf.Tensor) -> tf.Tensor:
    """Log of the odds against the true class under the mean of the members' probabilities.

    With member i's log-odds o_i, that is log sum_i sigmoid(o_i) - log sum_i sigmoid(-o_i). Written so, a
    member that is sure keeps its part of the gradient, however small: where one member is sure of the true
    class and another of a wrong one, there is no other.

    Args:
        member_logits: [N, k, C].
        labels: int [N].

    Returns:
        [N].
    """
    count, members, classes = tf.unstack(tf.shape(member_logits))
    odds = log_odds(tf.reshape(member_logits, [count * members, classes]), tf.repeat(labels, members))
    odds = tf.reshape(odds, [count, members])
    against = tf.reduce_logsumexp(tf.math.log_sigmoid(odds), axis=1)
    return against - tf.reduce_logsumexp(tf.math.log_sigmoid(-odds), axis=1)


def logit_ratio(scores: tf.Tensor, labels: tf.Tensor) -> tf.Tensor:
    """Difference of logits ratio, DLR (Croce & Hein, 2020, arXiv:2003.01690, Eq. 6).

    -(s_y - max_{c != y} s_c) / (s_(1) - s_(3)), where s_(j) is the j-th largest score: neither adding to
    the scores nor multiplying them changes it.

    Args:
        scores: [N, C], C >= 3.
        labels: int [N].

    Returns:
        [N], above 0 where another class is predicted.
    """
    largest, classes = tf.math.top_k(scores, 3)
    rival = tf.where(classes[:, 0] == tf.cast(labels, classes.dtype), largest[:, 1], largest[:, 0])
    margin = tf.gather(scores, labels, batch_dims=1) - rival
    return -margin / (largest[:, 0] - largest[:, 2] + _NO_DIVISION_BY_ZERO)


def targeted_logit_ratio(scores: tf.Tensor, labels: tf.Tensor, targets: tf.Tensor) -> tf.Tensor:
    """Targeted DLR (Croce & Hein, 2020, Eq. 7): -(s_y - s_t) / (s_(1) - (s_(3) + s_(4)) / 2).

    Args:
        scores: [N, C], C >= 4.
        labels: int [N], the true classes.
        targets: int [N], the classes t to reach.

    Returns:
        [N], above 0 where the target scores higher than the true class.
    """
    largest, _ = tf.math.top_k(scores, 4)
    margin = tf.gather(scores, labels, batch_dims=1) - tf.gather(scores, targets, batch_dims=1)
    spread = largest[:, 0] - (largest[:, 2] + largest[:, 3]) / 2
    return -margin / (spread + _NO_DIVISION_BY_ZERO)
