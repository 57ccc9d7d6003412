"""FAB-T: its projection against a linear program and a dual search, its distances against closed forms."""

import numpy as np
import numpy.typing as npt
import pytest
from scipy.optimize import brentq, linprog

from ncen_tf.attack.adaptive_boundary import FastAdaptiveBoundary, change_to_plane
from ncen_tf.attack.attack import Norm, sizes_of
from ncen_tf.attack.minimum_norm import FastMinimumNorm
from ncen_tf.attack.objectives import Objective
from ncen_tf.targets.tensorflow_targets import KerasTarget
from tests.attack.helpers import Examples, LinearTarget, images_and_predictions, linear_target

Array = npt.NDArray[np.float32]
Array64 = npt.NDArray[np.float64]


def points_and_slopes(count: int, size: int) -> tuple[Array, Array]:
    generator = np.random.default_rng(0)
    x = generator.uniform(size=(count, size)).astype(np.float32)
    x[:, 0], x[:, 1] = 0, 1
    slope = generator.normal(size=(count, size)).astype(np.float32)
    slope[:, 2] = 0
    return x, slope


def least_change_linf(x: Array64, slope: Array64, gain: float) -> float:
    """The smallest t with |d| <= t, slope . d = gain and x + d in [0, 1]: a linear program."""
    size, one = len(x), np.ones((len(x), 1))
    solved = linprog(
        c=[0.0] * size + [1.0],
        A_ub=np.block([[np.eye(size), -one], [-np.eye(size), -one]]),
        b_ub=np.zeros(2 * size),
        A_eq=np.append(slope, 0)[np.newaxis],
        b_eq=[gain],
        bounds=[*zip(-x, 1 - x, strict=True), (0, None)],
    )
    assert solved.x is not None
    return float(solved.x[-1])


def least_change_l2(x: Array64, slope: Array64, gain: float) -> float:
    """By the multiplier of slope . d = gain: d = clip(multiplier slope, -x, 1 - x)."""

    def change(multiplier: float) -> Array64:
        return np.clip(multiplier * slope, -x, 1 - x)

    multiplier = brentq(lambda m: float(slope @ change(m)) - gain, -1e6, 1e6, xtol=1e-12)
    return float(np.linalg.norm(change(multiplier)))


@pytest.mark.parametrize("norm", ["Linf", "L2"])
def test_the_change_to_a_plane_is_the_smallest_within_the_box(norm: Norm) -> None:
    x, slope = points_and_slopes(count=40, size=9)
    x64, slope64 = x.astype(np.float64), slope.astype(np.float64)
    most = np.maximum(slope64 * (1 - x64), -slope64 * x64).sum(axis=1)
    least = np.minimum(slope64 * (1 - x64), -slope64 * x64).sum(axis=1)
    share = np.random.default_rng(1).uniform(-0.98, 0.98, size=40)
    gain = np.where(share > 0, share * most, -share * least)
    change = change_to_plane(x, slope, gain, norm)
    assert np.einsum("nd,nd->n", slope64, change) == pytest.approx(gain, abs=1e-9)
    assert (x64 + change).min() >= -1e-9
    assert (x64 + change).max() <= 1 + 1e-9
    least_change = least_change_linf if norm == "Linf" else least_change_l2
    expected = [least_change(*row) for row in zip(x64, slope64, gain, strict=True)]
    assert sizes_of(change, norm) == pytest.approx(np.array(expected), rel=1e-6)


@pytest.mark.parametrize("norm", ["Linf", "L2"])
def test_a_gain_out_of_reach_moves_every_value_to_its_bound(norm: Norm) -> None:
    x, slope = points_and_slopes(count=6, size=9)
    for sign in (1, -1):
        moved = x + change_to_plane(x, slope, np.full(6, sign * 1e3), norm)
        np.testing.assert_allclose(
            moved, np.where(slope == 0, x, (sign * slope > 0).astype(float)), atol=1e-6
        )
    assert not change_to_plane(x, np.zeros_like(slope), np.ones(6), norm).any()


def box_distances(target: LinearTarget, images: Array, labels: npt.NDArray[np.int32], norm: Norm) -> Array64:
    """Exact distances to the nearest points in [0, 1] of which a linear member predicts another class."""
    weights, found = target.weights[0], []
    least_change = least_change_linf if norm == "Linf" else least_change_l2
    for image, label in zip(images.astype(np.float64), labels, strict=True):
        scores, x = target.logits64(image)[0], image.reshape(-1)
        distances = []
        for other in {*range(target.classes)} - {int(label)}:
            slope, gap = weights[:, other] - weights[:, label], scores[label] - scores[other]
            if np.maximum(slope * (1 - x), -slope * x).sum() > gap * (1 + 1e-6):
                distances.append(least_change(x, slope, gap))
        found.append(min(distances, default=np.inf))
    return np.array(found)


@pytest.mark.parametrize("scale", [3.0, 3000.0])  # the second one is sure of every image
@pytest.mark.parametrize("norm", ["Linf", "L2"])
def test_images_are_broken_where_the_boundary_is_within_eps(norm: Norm, scale: float) -> None:
    target = linear_target(members=1, scale=scale)
    images, labels = images_and_predictions(target, 60)
    exact = box_distances(target, images, labels, norm)
    eps = float(np.median(exact))
    objective = Objective(target, "ensemble")
    found = FastAdaptiveBoundary(eps=eps, norm=norm)(objective, images, labels, 0)
    broken = objective.predict(objective.logits(found)) != labels
    sizes = sizes_of(found - images, norm)
    assert (sizes <= eps).all()
    assert found.min() >= 0
    assert found.max() <= 1
    assert broken[exact < 0.98 * eps].all()
    assert not broken[exact > eps].any()
    assert (found[~broken] == images[~broken]).all()
    assert 20 < broken.sum() < 40


def test_the_target_class_is_crossed_and_others_count_too() -> None:
    """With one target, only its boundary is approached; an image of any wrong class breaks the example."""
    target = linear_target(members=1, classes=4)
    images, labels = images_and_predictions(target, 60)
    distances = box_distances(target, images, labels, "L2")
    objective = Objective(target, "ensemble")
    found = FastAdaptiveBoundary(eps=5.0, norm="L2", targets=1)(objective, images, labels, 0)
    broken = objective.predict(objective.logits(found)) != labels
    assert broken[np.isfinite(distances)].mean() > 0.9


@pytest.mark.parametrize(("classes", "targets"), [(5, 2), (5, 9), (2, 3)])
def test_passes_are_counted_and_within_the_budget(classes: int, targets: int) -> None:
    target = linear_target(classes=classes)
    images, labels = images_and_predictions(target, 20)
    attack = FastAdaptiveBoundary(eps=1e-6, steps=7, targets=targets)  # nothing is that near
    objective = Objective(target, "ensemble")
    attack(objective, images, labels, 0)
    gradients, queries = attack.budget(classes, target.members)
    assert (objective.gradients, objective.queries) == (20 * gradients, 20 * queries)
    objective = Objective(target, "ensemble")
    easy = FastAdaptiveBoundary(eps=1.0, steps=50, targets=targets)
    easy(objective, images, labels, 0)
    assert objective.gradients < 20 * easy.budget(classes, target.members).gradients / 2


@pytest.mark.parametrize("norm", ["Linf", "L2"])
def test_other_images_of_the_batch_change_nothing(norm: Norm) -> None:
    target = linear_target()
    images, labels = images_and_predictions(target, 30)
    attack = FastAdaptiveBoundary(eps=0.05, norm=norm, steps=20)
    together = attack(Objective(target, "ensemble"), images, labels, 0)
    alone = attack(Objective(target, "ensemble"), images[11:12], labels[11:12], 3)
    np.testing.assert_allclose(together[11:12], alone, atol=1e-6)


def test_distances_of_a_network_are_as_short_as_those_of_fmn(target: KerasTarget, examples: Examples) -> None:
    """FMN is another algorithm; FAB-T at FMN's median distance breaks about half of the images."""
    objective = Objective(target, "ensemble")
    right = objective.predict(objective.logits(examples[0])) == examples[1]
    images, labels = examples[0][right], examples[1][right]
    nearest = FastMinimumNorm(eps=1.0)(objective, images, labels, 0)
    eps = float(np.median(sizes_of(nearest - images, "Linf")))
    found = FastAdaptiveBoundary(eps=eps)(objective, images, labels, 0)
    assert (objective.predict(objective.logits(found)) != labels).mean() >= 0.45
