"""Cumulative suites: who meets which attack, what is kept, what is resumed."""

import dataclasses
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
import tensorflow as tf

from ncen_tf.attack.attack import Attack
from ncen_tf.attack.objectives import Objective
from ncen_tf.attack.result_files import read_adversarials
from ncen_tf.attack.results import SavedAdversarials, SuiteResult
from ncen_tf.attack.runner import replay, run_suite
from ncen_tf.attack.suites import Suite
from tests.attack.helpers import LinearTarget

# Pixel 0 decides the class, pixel 1 numbers the examples; the last two are wrong when clean.
IMAGES = np.zeros((10, 4, 3, 1), np.float32)
IMAGES[:, 0, 0, 0] = np.tile([0.25, 0.75], 5)
IMAGES[:, 0, 1, 0] = np.arange(10) / 10
LABELS = np.tile(np.array([0, 1], np.int32), 5)
LABELS[8:] = 1 - LABELS[8:]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Push(Attack):
    """Pushes the examples below a number over to the other class and notes whom it met."""

    name: ClassVar[str] = "Push"
    met: ClassVar[list[list[int]]] = []
    below: float

    def __call__(self, objective: Objective, images: tf.Tensor, labels: tf.Tensor, seed: int) -> Any:
        pushed = np.array(images)
        numbers = np.rint(pushed[:, 0, 1, 0] * 10).astype(int)
        self.met.append(numbers.tolist())
        pushed[numbers < self.below, 0, 0, 0] = 1 - pushed[numbers < self.below, 0, 0, 0]
        return pushed


@pytest.fixture
def met() -> list[list[int]]:
    Push.met.clear()
    return Push.met


@pytest.fixture
def target() -> LinearTarget:
    weights = np.zeros((2, 12, 2))
    weights[:, 0, 1] = 2
    return LinearTarget(weights, np.array([1.0, 0.0]))


def run(target: LinearTarget, *attacks: Attack, cumulative: bool = True, **options: Any) -> SuiteResult:
    suite = Suite("test", attacks, cumulative=cumulative)
    return run_suite(target, IMAGES, LABELS, suite, "ensemble", **options)


def standing(result: SuiteResult, number: int) -> list[int]:
    attack = result.attacks[number]
    return np.flatnonzero(attack.attacked & (attack.predictions == result.labels)).tolist()


def test_an_attack_meets_what_still_stands(target: LinearTarget, met: list[list[int]]) -> None:
    weak, strong, other = Push(eps=0.5, below=3), Push(eps=0.5, below=6), Push(eps=0.6, below=4)
    result = run(target, weak, strong, other, weak)
    assert met == [[0, 1, 2, 3, 4, 5, 6, 7], [3, 4, 5, 6, 7], [0, 1, 2, 3, 4, 5, 6, 7], [6, 7]]
    assert [np.flatnonzero(attack.attacked).tolist() for attack in result.attacks] == met
    assert [standing(result, n) for n in range(4)] == [[3, 4, 5, 6, 7], [6, 7], [4, 5, 6, 7], [6, 7]]
    for attack in result.attacks:
        untouched = ~attack.attacked
        np.testing.assert_array_equal(attack.predictions[untouched], result.clean_predictions[untouched])
        assert not attack.l2[untouched].any()
        assert len(attack.shown) == min(8, attack.attacked.sum())
    np.testing.assert_allclose(result.attacks[1].linf[3:6], 0.5)


def test_without_it_every_attack_meets_all(target: LinearTarget, met: list[list[int]]) -> None:
    result = run(target, Push(eps=0.5, below=3), Push(eps=0.5, below=6), cumulative=False, batch_size=10)
    assert met == [list(range(10))] * 2
    assert all(attack.attacked.all() for attack in result.attacks)


def test_nothing_is_run_on_nothing(target: LinearTarget, met: list[list[int]], tmp_path: Path) -> None:
    attacks = Push(eps=0.5, below=9), Push(eps=0.5, below=2)
    for resumed in (0, 2):
        result = run(target, *attacks, state_dir=tmp_path)
        assert result.resumed == resumed
        idle = result.attacks[1]
        assert (idle.attacked.sum(), idle.queries_per_image, idle.shown.shape) == (0, 0, (0, 4, 3, 1))
    assert met == [list(range(8))]


def test_batches_are_as_even_as_they_can_be(target: LinearTarget, met: list[list[int]]) -> None:
    run(target, Push(eps=0.5, below=1), Push(eps=0.5, below=2), batch_size=5)
    assert [len(numbers) for numbers in met] == [4, 4, 4, 4]  # 8, and 7 of which one comes twice
    assert {n for numbers in met[2:] for n in numbers} == set(range(1, 8))


def test_saved_images_replay_to_what_the_suite_reports(target: LinearTarget, tmp_path: Path) -> None:
    """Of all examples: also of those that are wrong when clean, or were broken before."""
    attacks = Push(eps=0.5, below=3), Push(eps=0.5, below=6)
    folders: dict[str, Any] = {"state_dir": tmp_path / "state", "save_adversarials": tmp_path / "images"}
    result = run(target, *attacks, **folders)
    files = sorted((tmp_path / "images").iterdir(), key=lambda file: number_changed(read_adversarials(file)))
    assert [number_changed(read_adversarials(file)) for file in files] == [3, 6]
    for file, attack in zip(files, result.attacks, strict=True):
        saved = read_adversarials(file)
        np.testing.assert_array_equal(saved.images, IMAGES)
        np.testing.assert_array_equal(saved.labels, LABELS)
        replayed = replay(target, saved)
        np.testing.assert_array_equal(replayed.clean_predictions, result.clean_predictions)
        right = replayed.attacks[0].predictions == LABELS
        np.testing.assert_array_equal(right, attack.attacked & (attack.predictions == LABELS))
    files[1].unlink()
    assert run(target, *attacks, **folders).resumed == 1
    assert number_changed(read_adversarials(files[1])) == 6


def number_changed(saved: SavedAdversarials) -> int:
    return int(np.any(saved.images != saved.adversarials, axis=(1, 2, 3)).sum())


def test_a_result_is_taken_up_only_for_the_same_examples(
    target: LinearTarget, met: list[list[int]], tmp_path: Path
) -> None:
    weak, strong = Push(eps=0.5, below=3), Push(eps=0.5, below=6)
    before = run(target, weak, strong, state_dir=tmp_path)
    after = run(target, weak, strong, state_dir=tmp_path)
    assert (after.resumed, len(met)) == (2, 2)
    for one, other in zip(before.attacks, after.attacks, strict=True):
        for field in dataclasses.fields(one):
            np.testing.assert_array_equal(getattr(one, field.name), getattr(other, field.name))
    assert run(target, strong, weak, state_dir=tmp_path).resumed == 0  # each meets others than before
    assert met[2:] == [[0, 1, 2, 3, 4, 5, 6, 7], [6, 7]]
    assert run(target, weak, strong, state_dir=tmp_path, cumulative=False).resumed == 0
