"""Targets that answer differently each time, and the mean of several calls."""

import logging
from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import pytest

import ncen_tf
from ncen_tf.attack.iterative import MomentumIterative
from ncen_tf.attack.objectives import MeanTarget, Objective
from ncen_tf.attack.suites import Suite
from ncen_tf.base.errors import InputError
from ncen_tf.data.dataset import Split
from tests.attack.helpers import LinearTarget, images_and_predictions, linear_target, softmax

Array = npt.NDArray[np.float32]


class Alternating(LinearTarget):
    """Two linear ensembles that answer by turns."""

    def __init__(self, difference: float) -> None:
        one, other = linear_target(seed=0), linear_target(seed=1)
        super().__init__(one.weights, one.bias)
        weights = one.weights + difference * other.weights
        self.both = one, LinearTarget(weights, one.bias)
        self.asked = 0

    def logits(self, images: Array) -> Array:
        self.asked += 1
        return self.both[self.asked % 2].logits(images)

    def linearize(self, images: Array) -> tuple[Array, Callable[[Array], Array]]:
        self.asked += 1
        return self.both[self.asked % 2].linearize(images)


def mean_scores(target: Alternating, image: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Of each member, the log of the mean probability of both answers: [k, C]."""
    return np.asarray(np.log(np.mean([softmax(each.logits64(image)) for each in target.both], axis=0)))


def test_answers_and_gradients_are_those_of_the_mean() -> None:
    target = Alternating(0.5)
    images, _ = images_and_predictions(target.both[0], 4)
    cotangent = np.random.default_rng(3).normal(size=(4, 3, 5)).astype(np.float32)
    mean = MeanTarget(target, 4)
    logits, pull_back = mean.linearize(images)
    np.testing.assert_allclose(logits, mean.logits(images), atol=1e-5)
    np.testing.assert_allclose(logits, [mean_scores(target, i.astype(float)) for i in images], atol=1e-4)
    gradients = pull_back(cotangent)
    for image, upstream, gradient in zip(images.astype(float), cotangent, gradients, strict=True):
        for pixel in np.ndindex(image.shape):
            step = np.zeros_like(image)
            step[pixel] = 1e-5
            ends = [(upstream * mean_scores(target, image + sign * step)).sum() for sign in (1, -1)]
            assert gradient[pixel] == pytest.approx((ends[0] - ends[1]) / 2e-5, rel=1e-3, abs=1e-3)


def test_each_call_is_a_pass() -> None:
    target = Alternating(0.5)
    objective = Objective(MeanTarget(target, 6), "ensemble")
    images, labels = images_and_predictions(target.both[0], 3)
    objective.loss_and_gradient(images, labels)
    objective.logits(images)
    assert (objective.queries, objective.gradients, target.asked) == (36, 18, 12)


@pytest.mark.parametrize(("difference", "samples", "warned"), [(0, 1, 0), (0.5, 1, 1), (0.5, 2, 0)])
def test_random_answers_are_told_and_their_mean_is_attacked(
    difference: float, samples: int, warned: int, caplog: pytest.LogCaptureFixture
) -> None:
    target = Alternating(difference)
    images, labels = images_and_predictions(target.both[0], 20)
    step = MomentumIterative(eps=0.1, steps=4, step_size=0.05)
    with caplog.at_level(logging.WARNING, "ncen_tf"):
        report = ncen_tf.evaluate(
            target,
            Split(images, labels, "mine", tuple("abcde")),
            suite=Suite(name="steps", attacks=(step,), objective="ensemble"),
            eot_samples=samples,
        )
    assert sum("is not deterministic" in record.getMessage() for record in caplog.records) == warned
    assert report.target.description == ("mean of 2 calls of linear" if samples == 2 else "linear")
    assert report.attacks[0].gradients == 20 * 4 * samples


def test_less_than_one_sample_is_refused() -> None:
    target = linear_target()
    data = Split(*images_and_predictions(target, 5))
    with pytest.raises(InputError, match=r"`eot_samples` must be positive, got 0\."):
        ncen_tf.evaluate(target, data, suite="quick", eot_samples=0)
    with pytest.raises(InputError, match="at least 2 calls, got 1"):
        MeanTarget(target, 1)
