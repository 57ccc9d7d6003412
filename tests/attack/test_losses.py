"""Losses and gradients against definitions, finite differences in float64, TensorFlow, and 300 digits."""

import math
from collections.abc import Callable
from decimal import Decimal, localcontext
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import tensorflow as tf

from ncen_tf.attack.losses import (
    CROSS_ENTROPIES,
    LossAndGradient,
    ensemble_log_odds,
    log_mean_probabilities,
    log_odds,
    logit_ratio,
    of_ensemble,
    targeted_logit_ratio,
)
from ncen_tf.attack.objectives import Objective, RemainingExamples
from ncen_tf.attack.tensorflow_objective import COLUMNS
from ncen_tf.base.errors import InputError
from ncen_tf.ensembles.penalties import log_mean_probabilities as tf_log_mean_probabilities
from ncen_tf.targets.tensorflow_targets import KerasTarget
from tests.attack.helpers import Examples, LinearTarget, softmax

Array = npt.NDArray[np.float64]
Labels = npt.NDArray[np.int64]

SCORES: Array = np.random.default_rng(0).normal(scale=4, size=(200, 6))
LABELS = np.random.default_rng(1).integers(6, size=200)
TARGETS = (LABELS + np.random.default_rng(2).integers(1, 6, size=200)) % 6
FIVE = np.array([0, 3, 1, 2, 2])


def logits(scale: float, members: int = 3, classes: int = 4) -> Array:
    return np.random.default_rng(4).normal(scale=scale, size=(5, members, classes))


# Losses of logits [N, k, C], written out example by example.


def averaged(z: Array) -> Array:
    return np.array([np.mean([-np.log(p[y]) for p in ps]) for ps, y in zip(softmax(z), FIVE, strict=True)])


def ensemble(z: Array) -> Array:
    return np.array([-np.log(p[y]) for p, y in zip(softmax(z).mean(axis=1), FIVE, strict=True)])


def released(z: Array) -> Array:
    thrice = softmax(softmax(softmax(z).mean(axis=1)))
    return np.array([-np.log(p[y]) for p, y in zip(thrice, FIVE, strict=True)])


def odds(z: Array) -> Array:
    p = softmax(z).mean(axis=1)[np.arange(5), FIVE]
    return np.log((1 - p) / p)


def dlr(z: Array) -> Array:
    found = []
    for scores, y in zip(np.log(softmax(z).mean(axis=1)), FIVE, strict=True):
        falling = np.sort(scores)[::-1]
        found.append((np.delete(scores, y).max() - scores[y]) / (falling[0] - falling[2]))
    return np.array(found)


def targeted(z: Array) -> Array:
    found = []
    for scores, y in zip(np.log(softmax(z).mean(axis=1)), FIVE, strict=True):
        falling = np.sort(scores)[::-1]
        spread = falling[0] - (falling[2] + falling[3]) / 2
        found.append((scores[(y + 1) % 4] - scores[y]) / spread)
    return np.array(found)


OURS: dict[Callable[[Array], Array], Callable[[Array], LossAndGradient]] = {
    averaged: lambda z: CROSS_ENTROPIES["member_average"](z, FIVE),
    ensemble: lambda z: CROSS_ENTROPIES["ensemble"](z, FIVE),
    released: lambda z: CROSS_ENTROPIES["stacked_softmax"](z, FIVE),
    odds: lambda z: ensemble_log_odds(z, FIVE),
    dlr: lambda logits: of_ensemble(logit_ratio, logits, FIVE),
    targeted: lambda logits: of_ensemble(targeted_logit_ratio, logits, FIVE, (FIVE + 1) % 4),
}


@pytest.mark.parametrize("expected", OURS)
@pytest.mark.parametrize("scale", [0.1, 1.0, 5.0])
@pytest.mark.parametrize("members", [1, 3])
def test_values_and_gradients(expected: Callable[[Array], Array], scale: float, members: int) -> None:
    z = logits(scale, members)
    losses, gradient = OURS[expected](z)
    np.testing.assert_allclose(losses, expected(z), rtol=1e-9, atol=1e-11)
    step = 1e-6
    for index in np.ndindex(z.shape):
        up, down = z.copy(), z.copy()
        up[index] += step
        down[index] -= step
        slope = (expected(up) - expected(down)).sum() / (2 * step)
        assert gradient[index] == pytest.approx(slope, rel=1e-4, abs=1e-7)


def tensorflow_log_odds(scores: tf.Tensor, labels: Labels) -> tf.Tensor:
    true = tf.one_hot(labels, tf.shape(scores)[1], on_value=True, off_value=False)
    others = tf.where(true, tf.constant(float("-inf"), scores.dtype), scores)
    return tf.reduce_logsumexp(others, axis=1) - tf.gather(scores, labels, batch_dims=1)


def tensorflow_ratio(scores: tf.Tensor, labels: Labels) -> tf.Tensor:
    largest, classes = tf.math.top_k(scores, 3)
    rival = tf.where(classes[:, 0] == tf.cast(labels, classes.dtype), largest[:, 1], largest[:, 0])
    margin = tf.gather(scores, labels, batch_dims=1) - rival
    return -margin / (largest[:, 0] - largest[:, 2] + 1e-12)


def tensorflow_targeted(scores: tf.Tensor, labels: Labels, targets: Labels) -> tf.Tensor:
    largest, _ = tf.math.top_k(scores, 4)
    margin = tf.gather(scores, labels, batch_dims=1) - tf.gather(scores, targets, batch_dims=1)
    return -margin / (largest[:, 0] - (largest[:, 2] + largest[:, 3]) / 2 + 1e-12)


@pytest.mark.parametrize("margin", [0.0, 8.0, 20.0, 40.0])
def test_tensorflow_differentiates_the_same_formulas(margin: float) -> None:
    z = logits(2.0, classes=6)
    z[np.arange(5), :, FIVE] += margin
    others = (FIVE + 2) % 6
    pairs: list[tuple[Callable[[Any], Any], LossAndGradient]] = [
        (
            lambda t: tensorflow_ratio(tf_log_mean_probabilities(t), FIVE),
            of_ensemble(logit_ratio, z, FIVE),
        ),
        (
            lambda t: tensorflow_targeted(tf_log_mean_probabilities(t), FIVE, others),
            of_ensemble(targeted_logit_ratio, z, FIVE, others),
        ),
        (lambda t: tensorflow_log_odds(t[:, 1], FIVE), log_odds(z[:, 1], FIVE)),
    ]
    for name, columns in COLUMNS.items():
        pairs.append(
            (
                lambda t, c=columns: tf.nn.sparse_softmax_cross_entropy_with_logits(FIVE, c(t)),  # type: ignore[misc]
                CROSS_ENTROPIES[name](z, FIVE),
            )
        )
    for formula, (losses, gradient) in pairs:
        x = tf.constant(z)
        with tf.GradientTape() as tape:
            tape.watch(x)
            expected = formula(x)
        slopes = tape.gradient(expected, x).numpy()
        slopes = slopes[:, 1] if gradient.ndim == 2 else slopes
        np.testing.assert_allclose(losses, expected, rtol=1e-8, atol=1e-11)
        np.testing.assert_allclose(gradient, slopes, rtol=1e-6, atol=1e-11 * np.abs(slopes).max() + 2e-15)


@pytest.mark.parametrize("name", CROSS_ENTROPIES)
@pytest.mark.parametrize("margin", [0.0, 8.0, 20.0, 40.0])
def test_columns_keep_the_gradient_of_confident_members_in_float32(name: str, margin: float) -> None:
    """A clamp that cut the gradient off would make confident examples look robust."""
    z = logits(0.5)
    z[np.arange(5), :, FIVE] += margin
    _, exact = CROSS_ENTROPIES[name](z, FIVE)  # type: ignore[index]
    x = tf.constant(z.astype(np.float32))
    with tf.GradientTape() as tape:
        tape.watch(x)
        loss = tf.nn.sparse_softmax_cross_entropy_with_logits(FIVE, COLUMNS[name](x))  # type: ignore[index]
    assert np.isfinite(loss).all()
    others = np.ones_like(z, bool)
    others[np.arange(5), :, FIVE] = False  # 1 - p at the true class is lost to float32 in any CE
    np.testing.assert_allclose(tape.gradient(loss, x).numpy()[others], exact[others], rtol=2e-3)


@pytest.mark.parametrize("value", [0.0, 1e4, -1e4])
def test_members_that_agree_exactly_stay_finite(value: float) -> None:
    z = np.zeros((5, 3, 4))
    z[:, :, 0] = value
    for loss in (*OURS.values(), *(lambda x, c=c: both(c, x) for c in COLUMNS.values())):
        losses, gradient = loss(z)
        assert np.isfinite(losses).all()
        assert np.isfinite(gradient).all()


def both(columns: Callable[[Any], Any], z: Array) -> LossAndGradient:
    x = tf.constant(z, tf.float32)
    with tf.GradientTape() as tape:
        tape.watch(x)
        loss = tf.nn.sparse_softmax_cross_entropy_with_logits(FIVE, columns(x))
    return loss.numpy(), tape.gradient(loss, x).numpy()


def test_log_odds_are_those_of_a_wrong_class() -> None:
    for scores, label, found in zip(SCORES, LABELS, log_odds(SCORES, LABELS)[0], strict=True):
        p = np.exp(scores[label]) / np.exp(scores).sum()
        assert found == pytest.approx(math.log((1 - p) / p))


def test_log_odds_rise_with_the_cross_entropy() -> None:
    ce = tf.nn.sparse_softmax_cross_entropy_with_logits(LABELS, SCORES)
    np.testing.assert_allclose(tf.nn.softplus(log_odds(SCORES, LABELS)[0]), ce, rtol=1e-9)


def test_logit_ratios_follow_their_definitions() -> None:
    ratios, _ = logit_ratio(SCORES, LABELS)
    towards, _ = targeted_logit_ratio(SCORES, LABELS, TARGETS)
    assert 50 < np.sum(ratios > 0) < 195  # some examples are classified correctly, some are not
    for n, scores in enumerate(SCORES):
        falling = sorted(scores, reverse=True)
        margin = scores[LABELS[n]] - max(s for c, s in enumerate(scores) if c != LABELS[n])
        assert ratios[n] == pytest.approx(-margin / (falling[0] - falling[2]))
        margin = scores[LABELS[n]] - scores[TARGETS[n]]
        assert towards[n] == pytest.approx(-margin / (falling[0] - 0.5 * (falling[2] + falling[3])))
    for other in (np.log(softmax(SCORES)), 1000 * SCORES - 7):  # shift and scale do not matter
        np.testing.assert_allclose(logit_ratio(other, LABELS)[0], ratios)
        np.testing.assert_allclose(targeted_logit_ratio(other, LABELS, TARGETS)[0], towards)


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
    found, gradient = ensemble_log_odds(z, np.array([2]))
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
    z = tf.constant(target.logits(image))
    with tf.GradientTape() as tape:
        tape.watch(z)
        naive = tf.nn.sparse_softmax_cross_entropy_with_logits([0], tf_log_mean_probabilities(z))
    assert not np.any(target.gradient(image, tape.gradient(naive, z).numpy()))
    label = log_mean_probabilities(z.numpy()).argmax(axis=1)
    remaining = RemainingExamples(Objective(target, "ensemble"), image, label)
    _, gradients, remain = remaining.ascend(image, lambda z, rows: ensemble_log_odds(z, label[rows]))
    assert remain.all()
    assert 1e-3 < np.abs(gradients).max() < 1e4


def test_uses_are_counted_for_each_image(target: KerasTarget, examples: Examples) -> None:
    objective = Objective(target, "ensemble")
    images, labels = examples[0][:6], examples[1][:6]
    scores = objective.log_probabilities(images)
    assert (objective.queries, objective.gradients) == (6, 0)
    losses, gradients = objective.loss_and_gradient(images, labels)
    assert (objective.queries, objective.gradients) == (12, 6)
    np.testing.assert_allclose(losses, -scores[np.arange(6), labels], rtol=1e-4, atol=1e-6)
    moved = (images + 1e-3 * np.sign(gradients)).astype(np.float32)
    rise = objective.loss_and_gradient(moved, labels)[0] - losses
    np.testing.assert_allclose(rise, 1e-3 * np.abs(gradients).sum(axis=(1, 2, 3)), rtol=0.2, atol=1e-6)


def test_unknown_objective_is_refused(target: KerasTarget) -> None:
    with pytest.raises(InputError, match=r"`objective` must be .*ensemble, .* got 'averaged'"):
        Objective(target, "averaged")  # type: ignore[arg-type]
