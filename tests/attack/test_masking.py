"""Verdicts on targets whose gradients are known to be sound, and on ones built to mislead."""

import dataclasses
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import tensorflow as tf

from ncen_tf.attack.auto_pgd_attacks import AutoPgdCrossEntropy
from ncen_tf.attack.fast_gradient import FastGradient
from ncen_tf.attack.runner import run_suite
from ncen_tf.attack.square import Square
from ncen_tf.attack.suites import Suite
from ncen_tf.attack.symptoms import LARGE_EPS, Symptoms, measure_symptoms
from ncen_tf.attack.verdict import all_falling, examine, judge
from ncen_tf.base.errors import InputError

SIDE, CLASSES, COUNT, EPS = 8, 4, 60, 0.1
Change = Callable[[tf.Tensor], tf.Tensor]


class BlockTarget:
    """Classifies by the brightest quadrant: linear, so its gradients are sound.

    Args:
        before: applied to the images.
        after: applied to the member logits.
    """

    description = "quadrants"
    sha256 = "0" * 64
    providers: tuple[str, ...] = ()
    image_shape = (SIDE, SIDE, 1)
    classes = CLASSES
    members = 1
    gives_logits = True

    def __init__(self, before: Change = tf.identity, after: Change = tf.identity) -> None:
        self._before, self._after = before, after

    def member_logits(self, images: tf.Tensor) -> tf.Tensor:
        half = SIDE // 2
        means = tf.nn.avg_pool2d(self._before(images), half, half, "VALID")
        return self._after(tf.reshape(8.0 * means, [-1, 1, CLASSES]))


def examples() -> tuple[npt.NDArray[np.float32], npt.NDArray[np.int32]]:
    """Quadrants of grey around 0.5, the true one brighter by 0.05 to 0.3: eps 0.1 turns over about half."""
    generator = np.random.default_rng(0)
    labels = np.arange(COUNT, dtype=np.int32) % CLASSES
    images = 0.5 + generator.uniform(-0.05, 0.05, size=(COUNT, SIDE, SIDE, 1))
    for image, label in zip(images, labels, strict=True):
        row, column = divmod(int(label) * SIDE // 2, SIDE)
        row = row * SIDE // 2
        image[row : row + SIDE // 2, column : column + SIDE // 2] += generator.uniform(0.05, 0.3)
    return images.astype(np.float32), labels


def failed(target: BlockTarget) -> set[str]:
    symptoms = measure_symptoms(target, *examples(), EPS, batch_size=20)
    return {check.name for check in judge(symptoms) if not check.passed}


def test_sound_gradients_get_a_clean_verdict() -> None:
    symptoms = measure_symptoms(BlockTarget(), *examples(), EPS, batch_size=20)
    assert not [check for check in judge(symptoms) if not check.passed]
    assert len(symptoms.iterative) == COUNT
    assert 0.2 < symptoms.iterative.mean() < 0.8, "neither hopeless nor invulnerable, or little was tested"


def test_rounded_inputs_are_caught() -> None:
    """Steps in the input stop every gradient, and leave the model as breakable as it was."""

    @tf.custom_gradient
    def steps(x: tf.Tensor) -> tuple[tf.Tensor, Change]:
        return tf.round(x * 32) / 32, tf.zeros_like

    assert {
        "zero_gradients",
        "black_box_beats_white_box",
        "noise_is_as_strong",
        "accuracy_survives_large_eps",
        "loss_does_not_ascend",
    } <= failed(BlockTarget(before=steps))


@tf.custom_gradient
def shattered(x: tf.Tensor) -> tuple[tf.Tensor, Change]:
    signs = tf.constant(np.random.default_rng(1).choice([-1.0, 1.0], size=(SIDE, SIDE, 1)), tf.float32)
    return tf.identity(x), lambda upstream: upstream * signs


def test_gradients_that_point_elsewhere_are_caught() -> None:
    found = failed(BlockTarget(before=shattered))
    assert {"loss_does_not_ascend", "black_box_beats_white_box"} <= found
    assert "zero_gradients" not in found


def test_saturated_logits_are_caught() -> None:
    """A difference of logits above 17 rounds the true class's probability to 1 and its gradient to 0."""
    assert "zero_gradients" in failed(BlockTarget(after=lambda z: 1e4 * z))


def test_batch_dependence_is_caught() -> None:
    found = failed(BlockTarget(after=lambda z: z - 3.0 * tf.reduce_mean(z, axis=0, keepdims=True)))
    assert "depends_on_batch" in found


def test_probabilities_in_place_of_logits_are_caught() -> None:
    assert "probabilities_as_logits" in failed(BlockTarget(after=tf.nn.softmax))


def test_overshooting_iterations_are_caught() -> None:
    """Gradients that vanish once an image has moved: one big step is not hindered, small ones get stuck."""
    reference = tf.constant(examples()[0])

    @tf.custom_gradient
    def sticky(x: tf.Tensor) -> tuple[tf.Tensor, Change]:
        distance = tf.reduce_min(
            tf.reduce_max(tf.abs(x[:, tf.newaxis] - reference[tf.newaxis]), axis=(2, 3, 4)), axis=1
        )
        free = tf.cast(distance < 1e-6, x.dtype)[:, tf.newaxis, tf.newaxis, tf.newaxis]
        return tf.identity(x), lambda upstream: upstream * free

    found = failed(BlockTarget(before=sticky))
    assert {"one_step_beats_iterative", "black_box_beats_white_box"} <= found
    assert "zero_gradients" not in found


@pytest.mark.parametrize("cumulative", [True, False])
def test_a_suite_whose_gradients_lose_to_random_search_says_so(cumulative: bool) -> None:
    """In L2, where no symptoms are measured, its own results tell."""
    images, labels = examples()
    attacks = (AutoPgdCrossEntropy(eps=0.5, norm="L2", steps=20), Square(eps=0.5, norm="L2", queries=200))
    suite = Suite("mine", attacks, "ensemble", cumulative=cumulative)
    verdicts = []
    for target in (BlockTarget(), BlockTarget(before=shattered)):
        result = run_suite(target, images, labels, suite, "ensemble", batch_size=20)
        stand = [np.equal(found.predictions, labels) for found in result.attacks]
        only_square = float((stand[0] & ~stand[1]).mean())
        verdict = examine(target, suite, result, images, seed=0)
        (check,) = verdict.checks
        assert check.name == "black_box_beats_suite"
        assert f"break {only_square:.1%} of the examples at L2 0.5" in check.finding
        assert (verdict.clean, verdict.eps) == (only_square <= 0.02, None)
        verdicts.append(verdict.clean)
    assert verdicts == [True, False]


def test_a_target_that_is_never_right_is_judged_without_being_examined() -> None:
    images, labels = examples()
    wrong = (labels + 1) % CLASSES
    suite = Suite("mine", (FastGradient(eps=EPS),), "ensemble", check_gradients=True)
    result = run_suite(BlockTarget(), images, wrong, suite, "ensemble", batch_size=20)
    verdict = examine(BlockTarget(), suite, result, images, seed=0)
    assert (verdict.clean, verdict.examples) == (False, 0)
    assert [check.name for check in verdict.checks] == ["nothing_to_examine"]


@pytest.mark.parametrize("standing", [0, 3, 10, 12, 20, 37, 50, 96])
def test_two_of_a_hundred_are_luck_and_three_are_not(standing: int) -> None:
    """Whatever the shares are as floating-point numbers."""

    def first(count: int) -> npt.NDArray[np.bool_]:
        return np.arange(100) < count

    def passed(name: str, **changes: Any) -> bool:
        sound = Symptoms(
            eps=EPS,
            classes=CLASSES,
            noise=first(100),
            one_step=first(100),
            iterative=first(standing),
            black_box=first(100),
            radii={EPS: 0.5, LARGE_EPS: 0.0},
            zero_gradient=first(0),
            ascends=first(100),
            batch_difference=0.0,
            logits_are_probabilities=False,
        )
        checks = {check.name: check.passed for check in judge(dataclasses.replace(sound, **changes))}
        return checks[name]

    more, most = standing + 2, standing + 3
    assert passed("one_step_beats_iterative", one_step=first(standing), iterative=first(more))
    assert not passed("one_step_beats_iterative", one_step=first(standing), iterative=first(most))
    assert passed("noise_is_as_strong", noise=first(more))
    assert passed("noise_is_as_strong", noise=first(standing + 1)) == (standing <= 2)
    assert all_falling({0.1: standing / 100, 0.2: more / 100})
    assert not all_falling({0.1: standing / 100, 0.2: most / 100})


def test_batch_dependence_of_a_single_image_is_caught() -> None:
    images, labels = examples()
    target = BlockTarget(after=lambda z: z - 0.5 * tf.reduce_mean(z, axis=0, keepdims=True))
    symptoms = measure_symptoms(target, images[:1], labels[:1], EPS)
    assert symptoms.batch_difference > 0.01


def test_a_target_that_is_never_right_is_refused() -> None:
    images, labels = examples()
    with pytest.raises(InputError, match="classifies none of 60 images right"):
        measure_symptoms(BlockTarget(), images, (labels + 1) % CLASSES, EPS)
