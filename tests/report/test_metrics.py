"""Metrics against loops, intervals against SciPy."""

import numpy as np
import pytest

from ncen_tf.report.metrics import Proportion, aae, clean_accuracy, mean_over_broken, robust_accuracy


@pytest.mark.parametrize("attacks", [1, 3])
def test_accuracies_follow_their_definitions(attacks: int) -> None:
    generator = np.random.default_rng(attacks)
    labels = generator.integers(0, 3, 200).astype(np.int32)
    clean, *adversarial = (
        np.where(generator.random(200) < p, labels, 0).astype(np.int32) for p in (0.9, 0.5, 0.6, 0.7)
    )
    adversarial = adversarial[:attacks]
    right = survived = 0
    for n in range(200):
        if clean[n] == labels[n]:
            right += 1
            if all(predicted[n] == labels[n] for predicted in adversarial):
                survived += 1
    assert clean_accuracy(labels, clean) == Proportion(right, 200)
    assert robust_accuracy(labels, clean, adversarial) == Proportion(survived, 200)
    assert aae(labels, clean, adversarial) == Proportion(survived, right)


def test_an_attack_that_repairs_a_mistake_gains_nothing() -> None:
    labels, clean, adversarial = (np.array(v, np.int32) for v in ([0, 0], [0, 1], [0, 0]))
    assert robust_accuracy(labels, clean, [adversarial]) == Proportion(1, 2)
    assert aae(labels, clean, [adversarial]) == Proportion(1, 1)


@pytest.mark.parametrize(
    ("count", "total"), [(0, 1), (1, 1), (0, 50), (50, 50), (3, 10), (817, 1000), (9999, 10_000)]
)
def test_wilson_interval_is_scipys(count: int, total: int) -> None:
    stats = pytest.importorskip("scipy.stats")
    expected = stats.binomtest(count, total).proportion_ci(0.95, method="wilson")
    assert Proportion(count, total).interval == pytest.approx((expected.low, expected.high), abs=1e-12)


@pytest.mark.parametrize("total", [50, 1000])
def test_the_interval_of_none_begins_at_zero(total: int) -> None:
    assert Proportion(0, total).interval[0] == 0


def test_a_proportion_of_nothing() -> None:
    nothing = Proportion(0, 0)
    assert nothing.value is None
    assert nothing.interval == (0.0, 1.0)


def test_sizes_are_averaged_over_what_broke() -> None:
    labels, clean, adversarial = (np.array(v, np.int32) for v in ([0, 0, 0, 0], [0, 0, 1, 0], [1, 1, 1, 0]))
    sizes = np.array([1, 2, 100, 100], np.float32)
    assert mean_over_broken(labels, clean, adversarial, sizes) == 1.5
    assert mean_over_broken(labels, clean, clean, sizes) is None
