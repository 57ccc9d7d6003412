"""Losses against their formulas, example by example, in float64."""

import math
from decimal import Decimal, localcontext

import numpy as np
import numpy.typing as npt
import pytest
import tensorflow as tf

from ncen_tf.attack.losses import ensemble_log_odds, log_odds, logit_ratio, targeted_logit_ratio
from ncen_tf.attack.objectives import Objective
from ncen_tf.attack.standing import Standing
from ncen_tf.ensembles.penalties import log_mean_probabilities
from tests.attack.linear import LinearTarget

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


def exact_log_odds(logits: list[list[Decimal]], label: int) -> Decimal:
    """Of the mean of the members' probabilities, with 300 digits."""
    right = wrong = Decimal(0)
    for member in logits:
        exponentials = [z.exp() for z in member]
        right += exponentials[label] / sum(exponentials)
        wrong += (sum(exponentials) - exponentials[label]) / sum(exponentials)
    return (wrong / right).ln()


@pytest.mark.parametrize(
    "margins", [(0, 0, 0), (20, 30, 25), (300, 280, 310), (40, -40, -40), (-90, 120, 119)]
)
def test_log_odds_of_an_ensemble_are_exact_however_sure_its_members(margins: tuple[int, ...]) -> None:
    """Members that are sure of different classes leave the ensemble's cross-entropy without a slope."""
    z = np.random.default_rng(3).normal(size=(1, 3, 4))
    z[0, :, 2] += margins
    logits = tf.constant(z)
    with tf.GradientTape() as tape:
        tape.watch(logits)
        found = ensemble_log_odds(logits, tf.constant([2]))
    gradient = tape.gradient(found, logits).numpy()
    with localcontext() as context:
        context.prec = 300
        precise = [[Decimal(float(value)) for value in member] for member in z[0]]
        assert float(found[0]) == pytest.approx(float(exact_log_odds(precise, 2)), rel=1e-10)
        step = Decimal("1e-60")
        for i, c in np.ndindex(3, 4):
            up, down = ([list(member) for member in precise] for _ in range(2))
            up[i][c] += step
            down[i][c] -= step
            slope = float((exact_log_odds(up, 2) - exact_log_odds(down, 2)) / (2 * step))
            assert gradient[0, i, c] == pytest.approx(slope, rel=1e-9, abs=0)


def test_directions_of_sure_members_reach_the_image() -> None:
    """In float32 all the way, the gradient of this ensemble is 0."""
    weights = np.random.default_rng(0).normal(size=(2, 12, 3))
    target = LinearTarget(weights, np.zeros(3))
    image = np.full((1, 4, 3, 1), 0.5, np.float32)
    weights[:, 0] += 2 * np.array([[60, 0, 0], [0, 60, 0]]) / 0.5  # one sure of class 0, one of class 1
    x = tf.constant(image)
    with tf.GradientTape() as tape:
        tape.watch(x)
        scores = log_mean_probabilities(target.member_logits(x))
        naive = tf.nn.sparse_softmax_cross_entropy_with_logits([0], scores)
    assert not np.any(tape.gradient(naive, x))
    standing = Standing(Objective(target, "ensemble"), x, tf.constant([int(np.argmax(scores))]))
    _, gradients, kept = standing.differentiate(
        image, lambda z, rows: ensemble_log_odds(z, standing.labels[rows])
    )
    assert kept.all()
    assert 1e-3 < np.abs(gradients).max() < 1e4


def test_log_odds_rise_with_the_cross_entropy() -> None:
    ce = tf.nn.sparse_softmax_cross_entropy_with_logits(LABELS, SCORES)
    np.testing.assert_allclose(tf.nn.softplus(log_odds(SCORES, LABELS)), ce, rtol=1e-9)
