"""Losses against their formulas, example by example, in float64."""

import math

import numpy as np
import numpy.typing as npt
import pytest
import tensorflow as tf

from ncen_tf.attacks.losses import log_odds, logit_ratio, targeted_logit_ratio
from ncen_tf.attacks.objectives import ensemble_log_probabilities

Array = npt.NDArray[np.float64]

SCORES: Array = np.random.default_rng(0).normal(scale=4, size=(200, 6))
LABELS = np.random.default_rng(1).integers(6, size=200)
TARGETS = (LABELS + np.random.default_rng(2).integers(1, 6, size=200)) % 6


def test_log_odds_are_those_of_a_wrong_class() -> None:
    for scores, label, found in zip(SCORES, LABELS, log_odds(SCORES, LABELS).numpy(), strict=True):
        p = np.exp(scores[label]) / np.exp(scores).sum()
        assert found == pytest.approx(math.log((1 - p) / p))


def test_logit_ratios_follow_their_definitions() -> None:
    ratios = logit_ratio(tf.constant(SCORES), LABELS).numpy()
    targeted = targeted_logit_ratio(tf.constant(SCORES), LABELS, TARGETS).numpy()
    assert 50 < np.sum(ratios > 0) < 195  # some examples are right, some are not
    for n, scores in enumerate(SCORES):
        falling = sorted(scores, reverse=True)
        margin = scores[LABELS[n]] - max(s for c, s in enumerate(scores) if c != LABELS[n])
        assert ratios[n] == pytest.approx(-margin / (falling[0] - falling[2]))
        margin = scores[LABELS[n]] - scores[TARGETS[n]]
        assert targeted[n] == pytest.approx(-margin / (falling[0] - 0.5 * (falling[2] + falling[3])))


def test_logit_ratios_forget_shift_and_scale() -> None:
    """So log-probabilities do for logits."""
    scores = tf.constant(SCORES)
    for other in (tf.nn.log_softmax(scores), 1000 * scores - 7):
        np.testing.assert_allclose(logit_ratio(other, LABELS), logit_ratio(scores, LABELS))
        np.testing.assert_allclose(
            targeted_logit_ratio(other, LABELS, TARGETS), targeted_logit_ratio(scores, LABELS, TARGETS)
        )


def directions(dtype: npt.DTypeLike, logits: Array, labels: npt.NDArray[np.int64]) -> tuple[Array, Array]:
    z = tf.constant(logits.astype(dtype))
    with tf.GradientTape() as tape:
        tape.watch(z)
        losses = log_odds(ensemble_log_probabilities(z), labels)
    gradients = tape.gradient(losses, z).numpy()
    return losses.numpy(), gradients / np.linalg.norm(gradients, axis=(1, 2), keepdims=True)


@pytest.mark.parametrize("margin", [0.0, 20.0, 100.0, 1000.0])
def test_the_most_confident_members_have_a_direction_in_float32(margin: float) -> None:
    """Their cross-entropy is exactly 0 from a margin of about 100 on, in value and gradient."""
    labels = np.arange(5) % 4
    logits = np.random.default_rng(3).normal(size=(5, 3, 4))
    logits[np.arange(5), :, labels] += margin
    losses, found = directions(np.float32, logits, labels)
    exact_losses, exact = directions(np.float64, logits, labels)
    np.testing.assert_allclose(losses, exact_losses, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(found, exact, atol=2e-4)
    if margin >= 100:
        ce = tf.nn.sparse_softmax_cross_entropy_with_logits(labels, tf.constant(logits[:, 0], tf.float32))
        assert np.all(ce.numpy() == 0)


def test_log_odds_rise_with_the_cross_entropy() -> None:
    ce = tf.nn.sparse_softmax_cross_entropy_with_logits(LABELS, SCORES)
    np.testing.assert_allclose(tf.nn.softplus(log_odds(SCORES, LABELS)), ce, rtol=1e-9)
