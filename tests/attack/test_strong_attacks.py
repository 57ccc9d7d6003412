"""What strong attacks cost, when they stop, and what they aim at."""

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from ncen_tf.attack.attack import Norm, find_attack
from ncen_tf.attack.auto_pgd import (
    AutoPgd,
    AutoPgdCrossEntropy,
    AutoPgdLogitRatio,
    AutoPgdTargeted,
    MeanLogitTransfer,
    MemberTransfer,
)
from ncen_tf.attack.cleverhans_attacks import BasicIterative
from ncen_tf.attack.iterative import RestartedPgd
from ncen_tf.attack.objectives import Objective, RemainingExamples
from ncen_tf.attack.target_classes import likeliest_wrong_classes, nearest_classes
from ncen_tf.base.errors import InputError
from tests.attack.helpers import LinearTarget, images_and_predictions, linear_target, mean_probabilities

Array = npt.NDArray[np.float32]
Array64 = npt.NDArray[np.float64]
Labels = npt.NDArray[np.int32]


def passes(
    attack: AutoPgd | RestartedPgd, target: LinearTarget, images: Array, labels: Labels
) -> list[float]:
    """Forward and backward passes an image, and how many images were broken."""
    objective = Objective(target, "ensemble")
    found = attack(objective, images, labels, 0)
    cost = [objective.queries / len(images), objective.gradients / len(images)]
    broken = np.argmax(objective.log_probabilities(found), axis=1) != labels
    return [*cost, int(broken.sum())]


def test_an_example_costs_nothing_more_once_it_is_broken() -> None:
    target = linear_target()
    images, labels = images_and_predictions(target, 50)
    for norm in ("Linf", "L2"):
        queries, gradients, broken = passes(AutoPgdCrossEntropy(eps=1.0, norm=norm), target, images, labels)
        assert broken == 50
        assert gradients == queries < 10  # of 100


@pytest.mark.parametrize("label", [0, 1])
@pytest.mark.parametrize("attack", [AutoPgdCrossEntropy(eps=1.0), RestartedPgd(eps=1.0, step_size=0.2)])
def test_answers_of_nan_do_not_count_as_class_0(attack: AutoPgd | RestartedPgd, label: int) -> None:
    class Undefined(LinearTarget):
        """NaN wherever the first pixel is above one half."""

        def logits(self, images: Array) -> Array:
            with np.errstate(invalid="ignore"):
                return super().logits(images) + np.sqrt(0.5 - images[:, 0, 0])[:, :, np.newaxis]

    weights = np.zeros((1, 12, 5))
    weights[:, 0] = 1 - np.eye(5)[label]  # what raises the first pixel's value speaks for other classes
    target = Undefined(weights, 5 * np.eye(5)[label])
    images = np.random.default_rng(0).uniform(0, 0.5, (20, 4, 3, 1)).astype(np.float32)
    with pytest.raises(InputError, match="NaN"):
        attack(Objective(target, "ensemble"), images, np.full(20, label, np.int32), 0)


def test_certainty_is_no_defence() -> None:
    """Scaled logits move no boundary of one classifier, but take the gradient off its cross-entropy."""
    plain = linear_target(members=1)
    images, labels = images_and_predictions(plain, 60)
    certain = LinearTarget(1000 * plain.weights, plain.bias)
    naive = BasicIterative(eps=0.1, steps=20, step_size=0.02)
    objective = Objective(certain, "ensemble")
    found = naive(objective, images, labels, 0)
    by_naive = int((np.argmax(objective.log_probabilities(found), axis=1) != labels).sum())
    for attack in (
        AutoPgdCrossEntropy(eps=0.1, steps=20),
        AutoPgdLogitRatio(eps=0.1, steps=20),
        AutoPgdTargeted(eps=0.1, steps=20),
        RestartedPgd(eps=0.1, step_size=0.02, steps=20, restarts=1),
    ):
        broken, broken_certain = (passes(attack, t, images, labels)[2] for t in (plain, certain))
        assert abs(broken_certain - broken) <= 1  # whose steps differ in the last digits
        assert broken > 5 * by_naive


def test_certainty_is_no_defence_against_zoo() -> None:
    """Its loss is one of logarithms: where it is given probabilities, most of these are exactly 1."""
    pytest.importorskip("art.attacks")
    plain = linear_target(members=1)
    images, labels = images_and_predictions(plain, 12)
    broken = []
    for scale in (1, 100):
        objective = Objective(LinearTarget(scale * plain.weights, plain.bias), "ensemble")
        settings: dict[str, Any] = {"eps": 1.0, "iterations": 20, "step_size": 0.2, "parallel": 12}
        found = find_attack("ZOO")(**settings)(objective, images, labels, 0)
        broken.append(int((np.argmax(objective.log_probabilities(found), axis=1) != labels).sum()))
    assert broken[1] >= broken[0] > 6


@pytest.mark.parametrize(
    ("attack", "gradients"),
    [
        (AutoPgdCrossEntropy(eps=1e-4, steps=7), 7),
        (AutoPgdCrossEntropy(eps=1e-4, steps=1), 1),
        (AutoPgdLogitRatio(eps=1e-4, steps=7, restarts=2), 14),
        (AutoPgdTargeted(eps=1e-4, steps=7, targets=2), 18),  # 4 to rank the classes
        (AutoPgdTargeted(eps=1e-4, steps=7), 28),  # there are 4 wrong classes
        (MeanLogitTransfer(eps=1e-4, steps=7), 7),
        (MemberTransfer(eps=1e-4, steps=7), 21),
        (RestartedPgd(eps=1e-4, step_size=1e-5, steps=7, restarts=2), 14),
    ],
)
def test_what_cannot_be_broken_costs_the_whole_budget(attack: AutoPgd | RestartedPgd, gradients: int) -> None:
    target = linear_target()
    images, labels = images_and_predictions(target, 20)
    scores = np.sort([mean_probabilities(target.logits64(x.astype(float))) for x in images], axis=1)
    sure = scores[:, -1] > scores[:, -2] + 0.2
    queries, found, broken = passes(attack, target, images[sure], labels[sure])
    assert (found, broken) == (gradients, 0)
    # The last image of each run is shown too; ranking classes takes several gradients of one image.
    assert gradients - 4 < queries <= gradients + gradients / 7 + 1


def test_members_and_their_mean_are_attacked_on_their_own_losses() -> None:
    target = linear_target()
    images, labels = images_and_predictions(target, 4)
    remaining = RemainingExamples(Objective(target, "ensemble"), images, labels)
    logits = target.logits(images).astype(float)
    losses = [*MemberTransfer(eps=0.1).losses(remaining), *MeanLogitTransfer(eps=0.1).losses(remaining)]
    sources = [*np.moveaxis(logits, 1, 0), logits.mean(axis=1)]
    for loss, source in zip(losses, sources, strict=True):
        p = np.exp(source.astype(float))
        p = (p / p.sum(axis=1, keepdims=True))[np.arange(4), labels]
        found, slopes = loss(logits, remaining.rows)
        np.testing.assert_allclose(found, np.log((1 - p) / p), rtol=1e-4, atol=1e-4)
        np.testing.assert_array_equal(loss(logits[2:], remaining.rows[2:])[0], found[2:])
        step = 1e-6 * np.random.default_rng(3).normal(size=logits.shape)
        rise = (loss(logits + step, remaining.rows)[0] - loss(logits - step, remaining.rows)[0]) / 2
        np.testing.assert_allclose(rise, (slopes * step).sum(axis=(1, 2)), rtol=1e-4, atol=1e-12)


def test_a_single_classifier_has_no_surrogates() -> None:
    """An attack that makes no step must not look like robustness."""
    target = linear_target(members=1)
    images, labels = images_and_predictions(target, 10)
    for attack in (MemberTransfer(eps=1.0), MeanLogitTransfer(eps=1.0)):
        with pytest.raises(InputError, match="linear is a single classifier: leave the attack out"):
            passes(attack, target, images, labels)


def test_target_classes_are_the_likeliest_wrong_ones() -> None:
    scores = np.random.default_rng(0).normal(size=(30, 6)).astype(np.float32)
    labels = np.random.default_rng(1).integers(6, size=30).astype(np.int32)
    for row, label, found in zip(scores, labels, likeliest_wrong_classes(scores, labels), strict=True):
        wrong = [c for c in range(6) if c != label]
        assert list(found) == sorted(wrong, key=lambda c: -row[c])


@pytest.mark.parametrize("norm", ["Linf", "L2"])
@pytest.mark.parametrize("members", [1, 3])
def test_target_classes_are_the_nearest_ones(members: int, norm: Norm) -> None:
    """By finite differences in float64, class by class; the boundaries of one linear member are exact."""
    target = linear_target(members=members, classes=7, scale=1.0)
    images, labels = images_and_predictions(target, 12)
    objective = Objective(target, "ensemble")
    ranked = nearest_classes(objective, images, labels, norm, 4)
    assert (objective.queries, objective.gradients) == (12, 12 * 4)
    likeliest = likeliest_wrong_classes(objective.log_probabilities(images), labels)[:, :4]

    def margin(x: Array64, label: int, wrong: int) -> float:
        probabilities = mean_probabilities(target.logits64(x))
        return float(np.log(probabilities[label] / probabilities[wrong]))

    for image, label, found, candidates in zip(images, labels, ranked, likeliest, strict=True):
        x, distances = image.astype(float), {}
        for wrong in candidates:
            slope = [
                (margin(x + step, label, wrong) - margin(x - step, label, wrong)) / 2e-6
                for step in 1e-6 * np.eye(12).reshape(12, 4, 3, 1)
            ]
            length = np.linalg.norm(slope, 1 if norm == "Linf" else 2)
            distances[wrong] = margin(x, label, wrong) / length
        assert list(found) == sorted(candidates, key=lambda wrong: distances[wrong])
        if members == 1 and norm == "L2":
            away = (target.weights[0][:, label] - target.weights[0][:, found[0]]).reshape(4, 3, 1)
            on_boundary = x - distances[found[0]] * away / np.linalg.norm(away)
            assert margin(on_boundary, label, found[0]) == pytest.approx(0, abs=1e-3)


def test_the_nearest_target_class_is_reached() -> None:
    target = linear_target(members=1)
    images, labels = images_and_predictions(target, 40)
    objective = Objective(target, "ensemble")
    wanted = nearest_classes(objective, images, labels, "Linf", 4)[:, 0]
    objective.gradients = 0
    found = AutoPgdTargeted(eps=0.3, steps=30, targets=1)(objective, images, labels, 0)
    assert objective.gradients <= 40 * (4 + 30)
    assert np.mean(np.argmax(objective.log_probabilities(found), axis=1) == wanted) > 0.8


@pytest.mark.parametrize(("attack", "least"), [(AutoPgdLogitRatio, 3), (AutoPgdTargeted, 4)])
def test_too_few_classes_are_refused(attack: type[AutoPgd], least: int) -> None:
    target = linear_target(classes=least - 1)
    images, labels = images_and_predictions(target, 2)
    with pytest.raises(InputError, match=f"needs at least {least} classes; linear has {least - 1}"):
        attack(eps=0.1)(Objective(target, "ensemble"), images, labels, 0)
