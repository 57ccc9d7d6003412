"""Cumulative suites: an attack is run on what those before it left correct."""

from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt
import pytest
from pydantic import Field

from ncen_tf.attack.attack import Attack
from ncen_tf.attack.objectives import Objective
from ncen_tf.attack.results import SavedAdversarials, read_adversarials
from ncen_tf.attack.runner import replay
from ncen_tf.base.settings import settings
from ncen_tf.report.results import SuiteResult
from ncen_tf.targets.target import Target
from tests.attack.helpers import LinearTarget, assert_same, run

Array = npt.NDArray[np.float32]
Labels = npt.NDArray[np.int32]

# Pixel 0 decides the class, pixel 1 numbers the examples; the last two are wrong when clean.
IMAGES = np.zeros((10, 4, 3, 1), np.float32)
IMAGES[:, 0, 0, 0] = np.tile([0.25, 0.75], 5)
IMAGES[:, 0, 1, 0] = np.arange(10) / 10
LABELS = np.tile(np.array([0, 1], np.int32), 5)
LABELS[8:] = 1 - LABELS[8:]


@settings
class Push(Attack):
    """Moves the examples below a number over to the other class and notes which it was run on."""

    name: ClassVar[str] = "Push"
    seen: ClassVar[list[list[int]]] = []
    below: float = Field(default=0.0)

    def __call__(self, objective: Objective, images: Array, labels: Labels, seed: int) -> Array:
        pushed = np.array(images)
        numbers = np.rint(pushed[:, 0, 1, 0] * 10).astype(int)
        self.seen.append(numbers.tolist())
        pushed[numbers < self.below, 0, 0, 0] = 1 - pushed[numbers < self.below, 0, 0, 0]
        return pushed


@pytest.fixture
def seen() -> list[list[int]]:
    Push.seen.clear()
    return Push.seen


@pytest.fixture
def brightness() -> LinearTarget:
    weights = np.zeros((2, 12, 2))
    weights[:, 0, 1] = 2
    return LinearTarget(weights, np.array([1.0, 0.0]))


def run_cumulative(target: Target, *attacks: Attack, **options: Any) -> SuiteResult:
    return run(target, (IMAGES, LABELS), *attacks, **({"cumulative": True, "batch_size": 64} | options))


def remaining(result: SuiteResult, number: int) -> list[int]:
    attack = result.attacks[number]
    return np.flatnonzero(attack.attacked & (attack.predictions == result.labels)).tolist()


def test_an_attack_is_run_on_what_is_still_correct(brightness: LinearTarget, seen: list[list[int]]) -> None:
    weak, strong, other = Push(eps=0.5, below=3), Push(eps=0.5, below=6), Push(eps=0.6, below=4)
    result = run_cumulative(brightness, weak, strong, other, weak)
    assert seen == [[0, 1, 2, 3, 4, 5, 6, 7], [3, 4, 5, 6, 7], [0, 1, 2, 3, 4, 5, 6, 7], [6, 7]]
    assert [np.flatnonzero(attack.attacked).tolist() for attack in result.attacks] == seen
    assert [remaining(result, n) for n in range(4)] == [[3, 4, 5, 6, 7], [6, 7], [4, 5, 6, 7], [6, 7]]
    for attack in result.attacks:
        untouched = ~attack.attacked
        np.testing.assert_array_equal(attack.predictions[untouched], result.clean_predictions[untouched])
        assert not attack.l2[untouched].any()
        broken = attack.attacked & (attack.predictions != result.labels)
        assert attack.shown_index.tolist() == np.flatnonzero(broken).tolist()
    np.testing.assert_allclose(result.attacks[1].linf[3:6], 0.5)


def test_without_it_every_attack_is_run_on_all(brightness: LinearTarget, seen: list[list[int]]) -> None:
    result = run_cumulative(
        brightness, Push(eps=0.5, below=3), Push(eps=0.5, below=6), cumulative=False, batch_size=10
    )
    assert seen == [list(range(10))] * 2
    assert all(attack.attacked.all() for attack in result.attacks)


def test_nothing_is_run_on_nothing(brightness: LinearTarget, seen: list[list[int]], tmp_path: Path) -> None:
    attacks = Push(eps=0.5, below=9), Push(eps=0.5, below=2)
    for resumed in (0, 2):
        result = run_cumulative(brightness, *attacks, state_dir=tmp_path)
        assert result.resumed == resumed
        idle = result.attacks[1]
        assert (idle.attacked.sum(), idle.queries_per_image, idle.shown.shape) == (0, 0, (0, 4, 3, 1))
    assert seen == [list(range(8))]


def test_batches_are_as_even_as_they_can_be(brightness: LinearTarget, seen: list[list[int]]) -> None:
    run_cumulative(brightness, Push(eps=0.5, below=1), Push(eps=0.5, below=2), batch_size=5)
    assert [len(numbers) for numbers in seen] == [4, 4, 4, 3]  # 8, and 7
    assert {n for numbers in seen[2:] for n in numbers} == set(range(1, 8))


def test_saved_images_replay_to_what_the_suite_reports(brightness: LinearTarget, tmp_path: Path) -> None:
    """Of all examples: also of those that are wrong when clean, or were broken before."""
    attacks = Push(eps=0.5, below=3), Push(eps=0.5, below=6)
    folders: dict[str, Any] = {"state_dir": tmp_path / "state", "save_adversarials": tmp_path / "images"}
    result = run_cumulative(brightness, *attacks, **folders)
    files = sorted((tmp_path / "images").iterdir(), key=lambda file: number_changed(read_adversarials(file)))
    assert [number_changed(read_adversarials(file)) for file in files] == [3, 6]
    for file, attack in zip(files, result.attacks, strict=True):
        saved = read_adversarials(file)
        np.testing.assert_array_equal(saved.images, IMAGES)
        np.testing.assert_array_equal(saved.labels, LABELS)
        replayed = replay(brightness, saved)
        np.testing.assert_array_equal(replayed.clean_predictions, result.clean_predictions)
        right = replayed.attacks[0].predictions == LABELS
        np.testing.assert_array_equal(right, attack.attacked & (attack.predictions == LABELS))
    files[1].unlink()
    assert run_cumulative(brightness, *attacks, **folders).resumed == 1
    assert number_changed(read_adversarials(files[1])) == 6


def number_changed(saved: SavedAdversarials) -> int:
    return int(np.any(saved.images != saved.adversarials, axis=(1, 2, 3)).sum())


def test_a_result_is_taken_up_only_for_the_same_examples(
    brightness: LinearTarget, seen: list[list[int]], tmp_path: Path
) -> None:
    weak, strong = Push(eps=0.5, below=3), Push(eps=0.5, below=6)
    before = run_cumulative(brightness, weak, strong, state_dir=tmp_path)
    after = run_cumulative(brightness, weak, strong, state_dir=tmp_path)
    assert (after.resumed, len(seen)) == (2, 2)
    for one, other in zip(before.attacks, after.attacks, strict=True):
        assert_same(one, other)
    assert run_cumulative(brightness, strong, weak, state_dir=tmp_path).resumed == 0
    assert seen[2:] == [[0, 1, 2, 3, 4, 5, 6, 7], [6, 7]]
    assert run_cumulative(brightness, weak, strong, state_dir=tmp_path, cumulative=False).resumed == 0
