"""Suites strict and screen: what they spend on which image, and that formats of a model do not differ."""

from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

import ncen_tf
from ncen_tf.attack.attack import Norm
from ncen_tf.attack.results import read_adversarials
from ncen_tf.attack.runner import run_suite
from ncen_tf.attack.suites import NEAR, load_suite
from tests.attack.helpers import (
    Examples,
    LinearTarget,
    box_distances,
    images_and_predictions,
    linear_target,
    mean_probabilities,
)

Array = npt.NDArray[np.float32]

SHAPE = LinearTarget.image_shape


def margins(
    target: LinearTarget, images: npt.NDArray[np.float32], labels: npt.NDArray[np.int32]
) -> np.ndarray:
    """Log-probability of the true class less that of the likeliest other one, in float64."""
    found = []
    for image, label in zip(images.astype(float), labels, strict=True):
        scores = np.log(mean_probabilities(target.logits64(image)))
        found.append(scores[label] - np.delete(scores, label).max())
    return np.array(found)


@pytest.mark.parametrize("norm", ["Linf", "L2"])
def test_screen_is_bounded(norm: Norm) -> None:
    """Of an image that nothing breaks: 150 gradients and 500 forward passes at most, and not much less."""
    target = LinearTarget(linear_target(scale=0.01, classes=20).weights, 5 * np.eye(20)[2])
    images = images_and_predictions(target, 4)[0]
    result = run_suite(target, images, np.full(4, 2, np.int32), load_suite("screen", SHAPE, norm=norm))
    assert all((attack.predictions == 2).all() for attack in result.attacks)
    assert sum(attack.gradients_per_image * attack.attacked.mean() for attack in result.attacks) == 150
    assert 300 < sum(attack.queries_per_image * attack.attacked.mean() for attack in result.attacks) <= 500
    assert not any(attack.attacked.any() for attack in result.attacks[4:])


@pytest.mark.parametrize(("norm", "eps"), [("Linf", 0.05), ("L2", 0.12)])
def test_what_broken_images_save_goes_to_those_nearest_the_boundary(
    norm: Norm, eps: float, halfway: tuple[LinearTarget, Examples], tmp_path: Path
) -> None:
    """Of 60 images together: never more than 150 gradients and 500 forward passes each."""
    target, (images, labels) = halfway
    suite = load_suite("screen", SHAPE, eps=eps, norm=norm)
    result = run_suite(target, images, labels, suite, save_adversarials=tmp_path)
    saved = {str(f.info.settings): f for f in map(read_adversarials, tmp_path.iterdir())}
    least, left, shares = margins(target, images, labels), np.array([150 * 60, 500 * 60]), []
    for attack, measured in zip(suite.attacks, result.attacks, strict=True):
        cost = attack.budget(target.classes, target.members)
        assert cost is not None
        correct = np.flatnonzero(least > 0)
        number = int(min(passes // each for passes, each in zip(left, cost, strict=True) if each))
        nearest = correct[np.argsort(least[correct])[:number]]
        shares.append(min(1, number / len(correct)))
        np.testing.assert_array_equal(np.flatnonzero(measured.attacked), np.sort(nearest))
        spent = np.array([measured.gradients_per_image, measured.queries_per_image]) * len(nearest)
        left -= np.rint(spent).astype(int)
        after = margins(target, saved[str(attack.settings())].adversarials, labels)
        least[nearest] = np.minimum(least[nearest], after[nearest])
    assert (left >= 0).all()
    assert 5 < (least > 0).sum() < 40
    assert shares[:4] == [1, 1, 1, 1]
    assert any(0 < share < 1 for share in shares[4:])


@pytest.fixture(scope="module")
def halfway() -> tuple[LinearTarget, Examples]:
    """Images that are broken, images that are moved, and images that stay far from the boundary."""
    target = linear_target(scale=1.0)
    return target, images_and_predictions(target, 60)


@pytest.mark.parametrize(("norm", "eps"), [("Linf", 0.02), ("L2", 0.05)])
def test_only_images_near_the_boundary_get_the_long_attacks(
    norm: Norm, eps: float, halfway: tuple[LinearTarget, Examples], tmp_path: Path
) -> None:
    """Margins are computed anew from the images that each attack saved."""
    target, (images, labels) = halfway
    suite = load_suite("strict", SHAPE, eps=eps, norm=norm)
    suite = suite.model_copy(update={"attacks": suite.attacks[:-2]})  # 5,000 queries take a second
    result = run_suite(target, images, labels, suite, save_adversarials=tmp_path)
    clean = margins(target, images, labels)
    least, long = clean, 0
    saved = {str(f.info.settings): f for f in map(read_adversarials, tmp_path.iterdir())}
    for attack, measured in zip(suite.attacks, result.attacks, strict=True):
        expected = least > 0
        if attack in suite.near_only:
            expected &= least <= NEAR * clean
            long += 1
            assert 0 < expected.sum() < (least > 0).sum()
        np.testing.assert_array_equal(measured.attacked, expected)
        left = margins(target, saved[str(attack.settings())].adversarials, labels)
        np.testing.assert_allclose(measured.margins[expected], left[expected], atol=1e-4)
        least = np.where(expected, np.minimum(least, left), least)
    assert long == 4


def test_batches_do_not_decide(halfway: tuple[LinearTarget, Examples]) -> None:
    target, (images, labels) = halfway
    suite = load_suite("strict", SHAPE, eps=0.02, norm="Linf")
    suite = suite.model_copy(update={"attacks": suite.attacks[:-2]})
    one, other = (
        run_suite(target, images, labels, suite.with_choices(batch_size=size), seed=3).attacks
        for size in (60, 7)
    )
    for first, second in zip(one, other, strict=True):
        np.testing.assert_array_equal(first.predictions, second.predictions)
        np.testing.assert_array_equal(first.attacked, second.attacked)
        np.testing.assert_allclose(first.margins, second.margins, atol=1e-4)


def test_the_same_model_in_three_formats_gets_the_same_figures(tiny_run: Path, tiny_export: Path) -> None:
    """An image may differ: roundoff decides signs of gradients near 0."""
    data = ncen_tf.load_data("fashion_mnist_sample").test
    images = data.float_images()[:30]
    reports = []
    for path in (tiny_run, tiny_export / "saved_model", tiny_export / "ensemble.onnx"):
        target = ncen_tf.open_target(path, image_shape=images.shape[1:])
        labels = np.argmax(target.logits(images).mean(axis=1), axis=1).astype(np.int32)
        suite = load_suite("strict", images.shape[1:], eps=0.004, norm="Linf")
        suite = suite.model_copy(update={"attacks": suite.attacks[:7]})
        reports.append(run_suite(target, images, labels, suite).attacks)
    for others in reports[1:]:
        for one, other in zip(reports[0], others, strict=True):
            assert np.sum(one.predictions != other.predictions) <= 1
            assert np.sum(one.attacked != other.attacked) <= 2
    broken = np.any([a.predictions != labels for a in reports[0]], axis=0).sum()
    assert 2 < broken < 28


@pytest.mark.parametrize("norm", ["Linf", "L2"])
@pytest.mark.parametrize("classes", [2, 3])
def test_strict_finds_every_boundary_of_few_classes(classes: int, norm: Norm) -> None:
    """A linear classifier's robust accuracy is known; attacks that need more classes are left out."""
    target = linear_target(members=1, classes=classes)
    images, labels = images_and_predictions(target, 40)
    exact = box_distances(target, images, labels, norm)
    eps = float(np.quantile(exact, 0.4))
    suite = load_suite("strict", SHAPE, eps=eps, norm=norm)
    suite = suite.model_copy(update={"attacks": suite.attacks[:-2]})
    report = ncen_tf.evaluate(target, (images, labels), suite=suite, examples=0)
    assert report.worst_case[0].robust_accuracy.value == pytest.approx((exact > eps).mean(), abs=0.03)
