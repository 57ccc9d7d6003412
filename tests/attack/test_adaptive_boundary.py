"""FAB and FAB-T: projection against a linear program and a dual search, broken images against distances."""

from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import pytest

from ncen_tf.attack.adaptive_boundary import AdaptiveBoundary, TargetedAdaptiveBoundary, change_to_plane
from ncen_tf.attack.attack import Norm, sizes_of
from ncen_tf.attack.minimum_norm import FastMinimumNorm
from ncen_tf.attack.objectives import Objective
from ncen_tf.targets.tensorflow_targets import KerasTarget
from tests.attack.helpers import (
    Examples,
    LinearTarget,
    box_distances,
    images_and_predictions,
    least_change,
    linear_target,
)

Array = npt.NDArray[np.float32]


def points_and_slopes(count: int, size: int) -> tuple[Array, Array]:
    generator = np.random.default_rng(0)
    x = generator.uniform(size=(count, size)).astype(np.float32)
    x[:, 0], x[:, 1] = 0, 1
    slope = generator.normal(size=(count, size)).astype(np.float32)
    slope[:, 2] = 0
    return x, slope


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
    expected = [least_change(*row, norm) for row in zip(x64, slope64, gain, strict=True)]
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


@pytest.mark.parametrize("scale", [3.0, 3000.0])  # the second one is sure of every image
@pytest.mark.parametrize("norm", ["Linf", "L2"])
@pytest.mark.parametrize("attack", [AdaptiveBoundary, TargetedAdaptiveBoundary])
def test_images_are_broken_where_the_boundary_is_within_eps(
    attack: type[TargetedAdaptiveBoundary], norm: Norm, scale: float
) -> None:
    target = linear_target(members=1, scale=scale)
    images, labels = images_and_predictions(target, 60)
    exact = box_distances(target, images, labels, norm)
    eps = float(np.median(exact))
    objective = Objective(target, "ensemble")
    found = attack(eps=eps, norm=norm)(objective, images, labels, 0)
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
    found = TargetedAdaptiveBoundary(eps=5.0, norm="L2", targets=1)(objective, images, labels, 0)
    broken = objective.predict(objective.logits(found)) != labels
    assert broken[np.isfinite(distances)].mean() > 0.9


@pytest.mark.parametrize("kind", [AdaptiveBoundary, TargetedAdaptiveBoundary])
@pytest.mark.parametrize(("classes", "targets"), [(5, 2), (5, 9), (2, 3)])
def test_passes_are_counted_and_within_the_budget(
    kind: type[TargetedAdaptiveBoundary], classes: int, targets: int
) -> None:
    target = linear_target(classes=classes)
    images, labels = images_and_predictions(target, 20)
    attack = kind(eps=1e-6, steps=27, targets=targets)  # nothing is that near
    objective = Objective(target, "ensemble")
    attack(objective, images, labels, 0)
    gradients, queries = attack.budget(classes, target.members)
    assert (objective.gradients, objective.queries) == (20 * gradients, 20 * queries)
    objective = Objective(target, "ensemble")
    easy = kind(eps=1.0, steps=50, targets=targets)
    easy(objective, images, labels, 0)
    assert objective.gradients < 20 * easy.budget(classes, target.members).gradients / 2


@pytest.mark.parametrize(
    ("classes", "steps", "expected"),
    [
        (10, 60, 9 + 4 * 10 + 2 * 10 + 40),  # 9 classes are ranked; four runs, two, one
        (3, 60, 3 * 10 + 50),  # towards two classes and the likeliest one
        (10, 15, 9 + 4 * 10 + 2 * 5),
        (10, 4, 9 + 4 * 4),
    ],
)
def test_half_of_the_runs_end_after_each_round(classes: int, steps: int, expected: int) -> None:
    assert AdaptiveBoundary(eps=0.1, steps=steps).budget(classes, 3).gradients == expected


@pytest.mark.parametrize("norm", ["Linf", "L2"])
@pytest.mark.parametrize("kind", [AdaptiveBoundary, TargetedAdaptiveBoundary])
def test_other_images_of_the_batch_change_nothing(kind: type[TargetedAdaptiveBoundary], norm: Norm) -> None:
    target = linear_target()
    images, labels = images_and_predictions(target, 30)
    attack = kind(eps=0.05, norm=norm, steps=20)
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
    found = TargetedAdaptiveBoundary(eps=eps)(objective, images, labels, 0)
    assert (objective.predict(objective.logits(found)) != labels).mean() >= 0.45


class DeadEnd(LinearTarget):
    """Class 1 seems nearest, but stops rising before it wins; class 2 wins where the second value is 0.3."""

    def __init__(self) -> None:
        weights = np.zeros((1, 12, 4))
        weights[0, 0, 1], weights[0, 1, 2] = 10, 20 / 3
        super().__init__(weights, np.array([0, -1, -2, -9]))

    def linearize(self, images: Array) -> tuple[Array, Callable[[Array], Array]]:
        logits, pull_back = super().linearize(images)
        rising = logits < [np.inf, -0.05, np.inf, np.inf]
        return np.where(rising, logits, np.float32(-0.05)), lambda cotangent: pull_back(cotangent * rising)


@pytest.mark.parametrize("norm", ["Linf", "L2"])
def test_the_run_that_came_nearest_goes_on(norm: Norm) -> None:
    objective = Objective(DeadEnd(), "ensemble")
    images, labels = np.zeros((1, 4, 3, 1), np.float32), np.zeros(1, np.int32)
    attack = AdaptiveBoundary(eps=0.305, norm=norm, steps=10, targets=2, round_steps=2)
    found = attack(objective, images, labels, 0)
    assert objective.gradients > 3 + 3 * 2  # after the ranking and the first round
    assert 0.3 < found[0, 0, 1, 0] <= 0.305
