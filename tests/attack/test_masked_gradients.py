"""Verdicts on targets whose gradients are known to be sound, and on ones built to mislead."""

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from ncen_tf.attack.auto_pgd import AutoPgdCrossEntropy
from ncen_tf.attack.iterative import RandomStartPgd
from ncen_tf.attack.masked_gradients import (
    LARGE_EPS,
    Symptoms,
    examine_gradients,
    judge,
    measure_symptoms,
    never_rises,
)
from ncen_tf.attack.runner import run_suite
from ncen_tf.attack.square import Square
from ncen_tf.attack.suites import Suite
from ncen_tf.base.errors import InputError
from ncen_tf.report.results import Report
from ncen_tf.targets.target import Target
from tests.conftest import Program

SIDE, CLASSES, COUNT, EPS = 8, 4, 60, 0.1
HALF = SIDE // 2
Array = npt.NDArray[np.float32]


def same(x: Array) -> Array:
    return x


def second(_: Array, upstream: Array) -> Array:
    return upstream


class Quadrants(Target):
    """Classifies by the brightest quadrant: linear, so its gradients are sound unless they are changed.

    Args:
        before: Applied to the images.
        before_gradient: Images and the gradient after ``before`` -> gradient of the images.
        after: Applied to the logits [N, 1, 4].
        after_gradient: Logits and the gradient after ``after`` -> gradient of the logits.
    """

    description, sha256, image_shape, classes, members = "quadrants", "0" * 64, (SIDE, SIDE, 1), CLASSES, 1

    def __init__(
        self,
        before: Callable[[Array], Array] = same,
        before_gradient: Callable[[Array, Array], Array] = second,
        after: Callable[[Array], Array] = same,
        after_gradient: Callable[[Array, Array], Array] = second,
    ) -> None:
        self.before, self.before_gradient = before, before_gradient
        self.after, self.after_gradient = after, after_gradient

    def raw(self, images: Array) -> Array:
        blocks = self.before(images).reshape(-1, 2, HALF, 2, HALF)
        return 8 * blocks.mean(axis=(2, 4)).reshape(-1, 1, CLASSES)

    def logits(self, images: Array) -> Array:
        return self.after(self.raw(images)).astype(np.float32)

    def linearize(self, images: Array) -> tuple[Array, Callable[[Array], Array]]:
        raw = self.raw(images)

        def pull_back(cotangent: Array) -> Array:
            blocks = self.after_gradient(raw, cotangent).reshape(-1, 2, 2, 1) * np.float32(8 / HALF**2)
            return self.before_gradient(images, blocks.repeat(HALF, axis=1).repeat(HALF, axis=2))

        return self.after(raw).astype(np.float32), pull_back


def examples() -> tuple[Array, npt.NDArray[np.int32]]:
    """Quadrants of grey around 0.5, the true one brighter by 0.05 to 0.3: eps 0.1 turns over about half."""
    generator = np.random.default_rng(0)
    labels = np.arange(COUNT, dtype=np.int32) % CLASSES
    images = 0.5 + generator.uniform(-0.05, 0.05, size=(COUNT, SIDE, SIDE, 1))
    for image, label in zip(images, labels, strict=True):
        row, column = HALF * (label // 2), HALF * (label % 2)
        image[row : row + HALF, column : column + HALF] += generator.uniform(0.05, 0.3)
    return images.astype(np.float32), labels


def failed(target: Target, eps: float = EPS, count: int = COUNT) -> set[str]:
    images, labels = examples()
    symptoms = measure_symptoms(target, images[:count], labels[:count], eps, batch_size=20)
    return {check.name for check in judge(symptoms) if not check.passed}


def shattered() -> Quadrants:
    signs = np.random.default_rng(1).choice([-1, 1], size=(SIDE, SIDE, 1)).astype(np.float32)
    return Quadrants(before_gradient=lambda _, gradient: gradient * signs)


def softmax(z: Array) -> Array:
    exponentials = np.exp(z - z.max(-1, keepdims=True))
    return exponentials / exponentials.sum(-1, keepdims=True)


def test_sound_gradients_get_a_clean_verdict() -> None:
    symptoms = measure_symptoms(Quadrants(), *examples(), EPS, batch_size=20)
    assert not [check for check in judge(symptoms) if not check.passed]
    assert len(symptoms.iterative) == COUNT
    assert 0.2 < symptoms.iterative.mean() < 0.8, "neither hopeless nor invulnerable, or little was tested"


@pytest.mark.parametrize(("eps", "count"), [(0.005, COUNT), (0.02, COUNT), (0.01, 8), (EPS, 8)])
def test_a_small_bound_or_few_images_are_no_sign(eps: float, count: int) -> None:
    """Where PGD breaks next to nothing, noise does as well."""
    assert not failed(Quadrants(), eps, count)


def test_rounded_inputs_are_caught() -> None:
    """Steps in the input stop every gradient, and leave the model as breakable as it was."""
    rounded = Quadrants(
        before=lambda x: np.round(x * 32) / np.float32(32), before_gradient=lambda _, g: 0 * g
    )
    assert {
        "zero_gradients",
        "black_box_beats_white_box",
        "accuracy_survives_large_eps",
        "loss_does_not_ascend",
    } <= failed(rounded)


def test_gradients_that_point_elsewhere_are_caught() -> None:
    found = failed(shattered())
    assert {"loss_does_not_ascend", "black_box_beats_white_box"} <= found
    assert "zero_gradients" not in found


def test_saturated_logits_are_caught() -> None:
    """Logits that differ by thousands: in float32, cross-entropy has no gradient."""
    saturated = Quadrants(after=lambda z: 1e4 * z, after_gradient=lambda _, u: np.float32(1e4) * u)
    assert "zero_gradients" in failed(saturated)


def test_probabilities_in_place_of_logits_are_caught() -> None:
    def gradient(z: Array, upstream: Array) -> Array:
        p = softmax(z)
        return p * (upstream - (p * upstream).sum(-1, keepdims=True))

    assert "probabilities_as_logits" in failed(Quadrants(after=softmax, after_gradient=gradient))


def test_overshooting_iterations_are_caught() -> None:
    """Gradients that vanish once an image has moved: one big step is not hindered, small ones get stuck."""
    reference = examples()[0]

    def sticky(x: Array, gradient: Array) -> Array:
        distance = np.abs(x[:, np.newaxis] - reference[np.newaxis]).max((2, 3, 4)).min(1)
        return gradient * (distance < 1e-6)[:, np.newaxis, np.newaxis, np.newaxis]

    found = failed(Quadrants(before_gradient=sticky))
    assert {"one_step_beats_iterative", "black_box_beats_white_box"} <= found
    assert "zero_gradients" not in found


@pytest.mark.parametrize("count", [1, COUNT])
def test_batch_dependence_is_caught(count: int) -> None:
    target = Quadrants(
        after=lambda z: z - 3 * z.mean(0, keepdims=True),
        after_gradient=lambda _, u: u - 3 * u.mean(0, keepdims=True),
    )
    images, labels = examples()
    labels = target.logits(images[:count])[:, 0].argmax(1).astype(np.int32)
    symptoms = measure_symptoms(target, images[:count], labels, EPS)
    assert "depends_on_batch" in {check.name for check in judge(symptoms) if not check.passed}


def test_random_answers_are_caught() -> None:
    """Noise that turns few predictions over is found by calling twice."""
    generator = np.random.default_rng(2)
    noisy = Quadrants(after=lambda z: z + generator.normal(scale=0.05, size=z.shape).astype(np.float32))
    found = failed(noisy)
    assert "not_deterministic" in found
    assert "depends_on_batch" not in found
    assert "not_deterministic" not in failed(Quadrants())


@pytest.mark.parametrize("cumulative", [True, False])
def test_a_suite_whose_gradients_lose_to_random_search_says_so(cumulative: bool) -> None:
    """In L2, where no symptoms are measured, its own results tell."""
    images, labels = examples()
    attacks = (AutoPgdCrossEntropy(eps=0.5, norm="L2", steps=20), Square(eps=0.5, norm="L2", queries=200))
    suite = Suite(name="mine", attacks=attacks, objective="ensemble", batch_size=20, cumulative=cumulative)
    verdicts = []
    for target in (Quadrants(), shattered()):
        result = run_suite(target, images, labels, suite)
        correct = [np.equal(found.predictions, labels) for found in result.attacks]
        only_square = float((correct[0] & ~correct[1]).mean())
        verdict = examine_gradients(target, suite, result, images, seed=0)
        (check,) = verdict.checks
        assert check.name == "black_box_beats_suite"
        assert f"break {only_square:.1%} of the examples at L2 0.5" in check.finding
        assert (verdict.clean, verdict.eps) == (only_square <= 0.02, None)
        verdicts.append(verdict.clean)
    assert verdicts == [True, False]


def test_a_target_that_is_never_right_gets_no_clean_verdict() -> None:
    images, labels = examples()
    wrong = (labels + 1) % CLASSES
    with pytest.raises(InputError, match="classifies none of 60 images correctly"):
        measure_symptoms(Quadrants(), images, wrong, EPS)
    pgd = RandomStartPgd(eps=EPS, steps=1, step_size=EPS)
    suite = Suite(name="mine", attacks=(pgd,), objective="ensemble", check_gradients=True)
    result = run_suite(Quadrants(), images, wrong, suite)
    verdict = examine_gradients(Quadrants(), suite, result, images, seed=0)
    assert (verdict.clean, verdict.examples) == (False, 0)
    assert [check.name for check in verdict.checks] == ["nothing_to_examine"]


@pytest.mark.parametrize("left", [0, 3, 10, 12, 20, 37, 50, 96])
def test_two_of_a_hundred_are_luck_and_three_are_not(left: int) -> None:
    """Whatever the shares are as floating-point numbers."""

    def first(count: int) -> npt.NDArray[np.bool_]:
        return np.arange(100) < count

    def passed(name: str, **changes: Any) -> bool:
        sound = Symptoms(
            eps=EPS,
            classes=CLASSES,
            noise=first(100),
            one_step=first(100),
            iterative=first(left),
            black_box=first(100),
            radii={EPS: 0.5, LARGE_EPS: 0.0},
            zero_gradient=first(0),
            ascends=first(100),
            batch_difference=0.0,
            repeat_difference=0.0,
            logits_are_probabilities=False,
        )
        checks = {check.name: check.passed for check in judge(dataclasses.replace(sound, **changes))}
        return checks[name]

    more, most = left + 2, left + 3
    assert passed("one_step_beats_iterative", one_step=first(left), iterative=first(more))
    assert not passed("one_step_beats_iterative", one_step=first(left), iterative=first(most))
    assert passed("noise_is_as_strong", noise=first(more))
    assert passed("noise_is_as_strong", noise=first(left + 1)) == (left <= 2)
    assert passed("noise_is_as_strong", noise=first(98), iterative=first(98))
    assert passed("noise_is_as_strong", iterative=first(100), black_box=first(left))
    assert not passed("noise_is_as_strong", noise=first(97), iterative=first(100))
    assert never_rises({0.1: left / 100, 0.2: more / 100})
    assert not never_rises({0.1: left / 100, 0.2: most / 100})


def test_the_program_reports_the_verdict_and_checks_it_against_a_gate(
    run_program: Program, refuse: Callable[..., None], tiny_export: Path, tmp_path: Path
) -> None:
    gate = tmp_path / "gate.toml"
    gate.write_text("clean_gradients = true\n")
    flags = (
        f"--target={tiny_export}",
        "--dataset=fashion_mnist_sample",
        "--suite=quick",
        "--num_examples=50",
    )
    refuse("attack", *flags, f"--gate={gate}", f"--out={tmp_path}", says="needs a report made with --check_g")
    done = run_program("attack", *flags, "--check_gradients", f"--gate={gate}", f"--out={tmp_path / 'out'}")
    assert done.returncode == 0, done.stderr
    report = Report.read(tmp_path / "out" / "report.json")
    verdict = report.masked_gradients
    assert verdict is not None
    assert verdict.clean, verdict.checks
    assert (verdict.eps, verdict.examples) == (0.1, report.clean_accuracy.count)
    assert "masked gradients: no sign of them" in done.stdout
