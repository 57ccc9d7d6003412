"""AutoZOOM on linear targets: success, bounds, queries, and its enlargement."""

from pathlib import Path

import numpy as np
import pytest

from ncen_tf.attack.auto_zoom import AutoZoom, _enlargement
from ncen_tf.attack.objectives import Objective
from ncen_tf.attack.suites import load_suite
from tests.attack.helpers import LinearTarget, images_and_predictions, linear_target
from tests.attack.test_square import RecordingTarget


def test_it_breaks_images_within_the_bound_and_counts_every_query() -> None:
    target = RecordingTarget(linear_target(scale=3.0))
    images, labels = images_and_predictions(target, 8)
    objective = Objective(target, "member_average")
    attack = AutoZoom(eps=0.6, queries=600, reduction=1, step_size=0.02)
    found = attack(objective, images, labels, seed=0)
    assert sum(len(x) for x in target.shown) == objective.queries <= 8 * 600
    assert objective.gradients == 0
    assert found.min() >= 0
    assert found.max() <= 1
    distances = np.linalg.norm((found - images).reshape(8, -1), axis=1)
    assert distances.max() <= 0.6
    broken = objective.log_probabilities(found).argmax(axis=1) != labels
    np.testing.assert_array_equal(distances > 0, broken)
    # The nearest boundary of a linear target is known; most of the images that can be broken are.
    differences = target.weights.mean(axis=0)
    margins = [
        min(
            (target.logits(x[np.newaxis]).mean(axis=1) @ (np.eye(5)[y] - np.eye(5)[c]))[0]
            / np.linalg.norm(differences[:, y] - differences[:, c])
            for c in range(5)
            if c != y
        )
        for x, y in zip(images, labels, strict=True)
    ]
    assert broken[np.array(margins) < 0.3].all()
    assert broken.sum() >= 4


def test_the_budget_is_kept_where_nothing_can_be_broken() -> None:
    """One query for the image and one along a vector in each step, and never more than the budget."""
    target = LinearTarget(np.zeros((2, 12, 3)), np.array([1.0, 0.0, 0.0]))
    images = np.random.default_rng(0).uniform(size=(5, 4, 3, 1)).astype(np.float32)
    for queries, used in ((1, 1), (10, 10), (11, 11)):
        objective = Objective(target, "ensemble")
        found = AutoZoom(eps=1.0, queries=queries)(objective, images, np.zeros(5, np.int32), seed=0)
        assert objective.queries == 5 * used
        np.testing.assert_array_equal(found, images)


def test_a_broken_image_is_brought_nearer() -> None:
    """The first success is too far away: the search goes on until it is within eps."""
    target = LinearTarget(np.zeros((2, 12, 3)), np.array([0.2, 0.0, 0.0]))
    target.weights[:, :, 1] = 1.0
    images = np.full((1, 4, 3, 1), 0.3, np.float32) * 0
    objective = Objective(target, "ensemble")
    attack = AutoZoom(eps=0.07, queries=3000, reduction=1, step_size=0.01)
    found = attack(objective, images, np.zeros(1, np.int32), seed=1)
    distance = float(np.linalg.norm(found - images))
    assert 0.2 / np.sqrt(12) <= distance <= 0.07, "the boundary is at a distance of 0.2 / sqrt(12)"


@pytest.mark.parametrize(("large", "small"), [(4, 2), (28, 14), (5, 3), (3, 3), (4, 1)])
def test_the_enlargement_is_bilinear(large: int, small: int) -> None:
    values = np.random.default_rng(0).normal(size=small)
    centres = (np.arange(small) + 0.5) * large / small
    expected = np.interp(np.arange(large) + 0.5, centres, values)
    np.testing.assert_allclose(_enlargement(large, small) @ values, expected, atol=1e-12)


def test_a_suite_file_names_it(tmp_path: Path) -> None:
    file = tmp_path / "suite.toml"
    file.write_text('[[attack]]\nname = "AutoZOOM"\neps = 1.5\nqueries = 100\n')
    assert load_suite(file, (28, 28, 1)).attacks == (AutoZoom(eps=1.5, queries=100),)
