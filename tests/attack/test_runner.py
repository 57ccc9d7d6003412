"""Running a suite: batches, refusals, resuming, cumulative suites, saving and replaying."""

import dataclasses
import gc
import weakref
from pathlib import Path
from typing import Any, ClassVar

import keras
import numpy as np
import numpy.typing as npt
import pytest
from pydantic import Field

import ncen_tf
from ncen_tf.attack.attack import Attack
from ncen_tf.attack.iterative import MomentumIterative, RandomStartPgd
from ncen_tf.attack.losses import log_mean_probabilities
from ncen_tf.attack.objectives import Objective
from ncen_tf.attack.results import (
    AttackedBatch,
    AttackFiles,
    SavedAdversarials,
    SuiteResult,
    read_adversarials,
)
from ncen_tf.attack.runner import replay
from ncen_tf.attack.square import Square
from ncen_tf.base.errors import InputError
from ncen_tf.base.settings import settings
from ncen_tf.report.results import AttackResult
from ncen_tf.targets.target import Target
from ncen_tf.targets.tensorflow_targets import KerasTarget
from tests.attack.helpers import (
    FGSM,
    PGD,
    SQUARE,
    Examples,
    LinearTarget,
    first,
    images_and_predictions,
    linear_target,
    run,
    small_member,
)

Array = npt.NDArray[np.float32]
Labels = npt.NDArray[np.int32]

ONE_STEP = MomentumIterative(eps=0.1, steps=1, step_size=0.1)
STEPS = RandomStartPgd(eps=0.1, steps=3, step_size=0.05)


@pytest.fixture
def linear() -> LinearTarget:
    return linear_target()


@pytest.fixture
def shown(linear: LinearTarget) -> Examples:
    return images_and_predictions(linear, 20)


def classes(target: Target, images: Array) -> Labels:
    return log_mean_probabilities(target.logits(images)).argmax(axis=1).astype(np.int32)


def test_results_are_what_the_target_says(linear: LinearTarget, shown: Examples, tmp_path: Path) -> None:
    images, labels = shown
    result = run(linear, shown, ONE_STEP, STEPS, save_adversarials=tmp_path)
    np.testing.assert_array_equal(result.clean_predictions, classes(linear, images))
    np.testing.assert_array_equal(result.labels, labels)
    for attack, measured in zip((ONE_STEP, STEPS), result.attacks, strict=True):
        (file,) = tmp_path.glob(f"{attack.name}-*.npz")
        adversarials = read_adversarials(file).adversarials
        np.testing.assert_array_equal(measured.predictions, classes(linear, adversarials))
        change = (adversarials - images).reshape(20, -1)
        np.testing.assert_allclose(measured.l2, np.sqrt((change**2).sum(axis=1)), rtol=1e-5)
        np.testing.assert_allclose(measured.linf, np.abs(change).max(axis=1))
        np.testing.assert_array_equal(measured.shown, adversarials[measured.shown_index])
        margins, right = result.margins, result.clean_predictions == labels
        broken = [n for n in range(20) if right[n] and measured.predictions[n] != labels[n]]
        easiest = sorted(broken, key=lambda n: margins[n])[:8]
        assert set(easiest) <= set(measured.shown_index.tolist())
        assert (measured.gradients_per_image, measured.queries_per_image) == (attack.steps, attack.steps)


@pytest.mark.parametrize("attack", [ONE_STEP, STEPS, Square(eps=0.1, queries=5)])
def test_the_last_batch_costs_what_it_holds(attack: Attack, linear: LinearTarget, shown: Examples) -> None:
    """Ten images must not cost as much as a hundred."""

    class Counting(LinearTarget):
        sizes: ClassVar[list[int]] = []

        def logits(self, images: Array) -> Array:
            self.sizes.append(len(images))
            return super().logits(images)

    counting = Counting(linear.weights, linear.bias)
    for batch_size, largest in ((8, 8), (1000, 20)):
        counting.sizes.clear()
        run(counting, shown, attack, batch_size=batch_size)
        assert max(counting.sizes) == largest
        assert counting.sizes[: -(-20 // batch_size)] == [8, 8, 4][: -(-20 // batch_size)] or largest == 20


def test_cleverhans_takes_batches_of_any_size(target: KerasTarget, examples: Examples) -> None:
    whole, part = (run(target, first(examples, n), FGSM, batch_size=6) for n in (12, 8))
    np.testing.assert_allclose(whole.attacks[0].l2[:8], part.attacks[0].l2, atol=1e-6)
    assert (part.attacks[0].queries_per_image, part.attacks[0].gradients_per_image) == (1, 1)


def test_the_seed_decides(linear: LinearTarget, shown: Examples) -> None:
    results = [run(linear, shown, STEPS, seed=seed).attacks[0] for seed in (0, 0, 1)]
    np.testing.assert_array_equal(results[0].shown, results[1].shown)
    assert np.any(results[0].shown != results[2].shown)


def test_replay_shows_saved_examples_to_another_target(
    linear: LinearTarget, shown: Examples, tmp_path: Path
) -> None:
    options = {"save_adversarials": tmp_path, "dataset": "other"}
    result = run(linear, shown, STEPS, **options)
    (file,) = tmp_path.iterdir()
    saved = read_adversarials(file)
    same = replay(linear, saved, batch_size=5)
    np.testing.assert_array_equal(same.attacks[0].predictions, result.attacks[0].predictions)
    np.testing.assert_array_equal(same.clean_predictions, result.clean_predictions)
    assert same.attacks[0].settings == STEPS.settings()
    assert (saved.info.objective, saved.info.dataset) == ("ensemble", "other")
    assert same.attacks[0].gradients_per_image == 0
    other = linear_target(seed=9)
    np.testing.assert_array_equal(
        replay(other, saved).attacks[0].predictions, classes(other, saved.adversarials)
    )


def test_other_files_are_no_saved_images(tmp_path: Path) -> None:
    file = tmp_path / "x.npz"
    with pytest.raises(InputError, match="cannot be read"):
        read_adversarials(file)
    np.savez(file, images=np.zeros(3))
    with pytest.raises(InputError, match="cannot be read"):
        read_adversarials(file)
    np.savez(file, images=np.zeros(3), info=np.array('{"settings": {}, "objective": "x", "dataset": "y"}'))
    with pytest.raises(InputError, match="does not hold float32 images"):
        read_adversarials(file)


@settings
class Faulty(Attack):
    """Adds a constant."""

    name: ClassVar[str] = "Faulty"
    added: float = Field(default=0.0)

    def __call__(self, objective: Objective, images: Array, labels: Labels, seed: int) -> Array:
        return images + np.float32(np.nan if self.added == 2 else self.added)


def test_an_attack_that_cheats_is_caught(linear: LinearTarget, shown: Examples) -> None:
    images, labels = np.clip(shown[0], 0.01, 0.5), shown[1]
    with pytest.raises(RuntimeError, match=r"moved an image by 0\.2"):
        run(linear, (images, labels), Faulty(eps=0.1, added=0.2))
    with pytest.raises(RuntimeError, match=r"left \[0, 1\]"):
        run(linear, (images, labels), Faulty(eps=0.1, added=-0.05))
    with pytest.raises(InputError, match="gradients are not finite"):
        run(linear, (images, labels), Faulty(eps=0.1, added=2))


def test_nan_logits_are_refused_in_one_sentence(shown: Examples) -> None:
    target = linear_target()
    target.bias[0] = np.nan
    with pytest.raises(InputError, match="linear gives NaN or infinite outputs on clean images: ") as refused:
        run(target, shown, ONE_STEP)
    assert str(refused.value).count(".") == 1


def test_images_and_labels_are_checked(linear: LinearTarget, shown: Examples) -> None:
    images, labels = first(shown, 4)
    for wrong, says in (
        (((images * 255).astype(np.uint8), labels), "takes float32 images"),
        ((images.reshape(-1, 3, 1, 4), labels), "`input_layout`=NCHW"),
        ((images[:, :2], labels), r"of shape \(4, 3, 1\)"),
        ((images * 255, labels), r"images in \[0, 1\]"),
        ((images * np.float32(np.nan), labels), r"images in \[0, 1\]"),
        ((images, labels[:3]), "as many labels"),
        ((images[:0], labels[:0]), "as many labels"),
        ((images, labels + 10), r"Labels must be in \[0, 5\)"),
    ):
        with pytest.raises(InputError, match=says):
            run(linear, wrong, ONE_STEP)
    with pytest.raises(InputError, match="`batch_size` must be greater than 0"):
        run(linear, shown, ONE_STEP, batch_size=0)


def test_a_single_classifier_has_one_loss(trained: list[keras.Model], examples: Examples) -> None:
    """With one member both objectives are its cross-entropy."""
    single = KerasTarget(trained[0])
    found = [
        run(single, first(examples, 8), FGSM, objective=name).attacks[0].shown
        for name in ("member_average", "ensemble")
    ]
    assert np.mean(np.abs(found[0] - found[1]) > 1e-6) < 0.002


def test_cleverhans_attacks_a_target_outside_tensorflow(linear: LinearTarget, shown: Examples) -> None:
    images, labels = shown
    result = run(linear, shown, FGSM, PGD, SQUARE, objective="member_average")
    gradients = Objective(linear, "member_average").loss_and_gradient(images, labels)[1]
    expected = np.clip(images + 0.1 * np.sign(gradients), 0, 1)
    fgsm = result.attacks[0]
    np.testing.assert_allclose(fgsm.shown, expected[fgsm.shown_index], atol=1e-6)
    assert [round(attack.gradients_per_image) for attack in result.attacks] == [1, 3, 0]


def test_an_attacked_model_can_be_freed(examples: Examples) -> None:
    model = small_member(4)
    result = run(KerasTarget(model), first(examples, 4), FGSM, ONE_STEP)
    alive = weakref.ref(model)
    del model
    keras.backend.clear_session()
    gc.collect()
    assert alive() is None
    assert len(result.attacks) == 2


# Resuming


def assert_same(one: AttackResult, other: AttackResult) -> None:
    for field in dataclasses.fields(AttackResult):
        np.testing.assert_array_equal(getattr(one, field.name), getattr(other, field.name))


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of the attacks that were called; "interrupt" in front makes the third call end in Ctrl-C."""
    called: list[str] = []
    for attack in (MomentumIterative, RandomStartPgd):
        original = attack.__call__

        def counting(self: Attack, *args: Any, original: Any = original) -> Any:
            if called[:1] == ["interrupt"] and len(called) == 3:
                raise KeyboardInterrupt
            called.append(self.name)
            return original(self, *args)

        monkeypatch.setattr(attack, "__call__", counting)
    return called


def test_a_second_run_attacks_nothing(
    linear: LinearTarget, shown: Examples, tmp_path: Path, calls: list[str]
) -> None:
    before = run(linear, shown, ONE_STEP, STEPS, batch_size=20, state_dir=tmp_path)
    after = run(linear, shown, ONE_STEP, STEPS, batch_size=20, state_dir=tmp_path)
    assert calls == ["MI-FGSM", "PGD"]
    assert (before.resumed, after.resumed) == (0, 2)
    for one, other in zip(before.attacks, after.attacks, strict=True):
        assert_same(one, other)


@pytest.mark.parametrize("damaged", [False, True])
def test_an_attack_goes_on_with_the_next_batch(
    damaged: bool, linear: LinearTarget, shown: Examples, tmp_path: Path, calls: list[str]
) -> None:
    (whole,) = run(linear, shown, STEPS).attacks
    calls[:] = ["interrupt"]
    with pytest.raises(KeyboardInterrupt):
        run(linear, shown, STEPS, state_dir=tmp_path)
    if damaged:
        (batch,) = tmp_path.glob("*.batches/1.npz")
        batch.write_bytes(batch.read_bytes()[:-400])
    calls.clear()
    (resumed,) = run(linear, shown, STEPS, state_dir=tmp_path).attacks
    assert calls == ["PGD"] * (2 if damaged else 1), "two of three batches were done"
    assert resumed.seconds > 0
    assert_same(dataclasses.replace(resumed, seconds=whole.seconds), whole)
    (left,) = tmp_path.iterdir()
    assert left.suffix == ".npz", "batches of a finished attack are of no more use"


def test_files_are_read_under_their_own_key_only(
    linear: LinearTarget, shown: Examples, tmp_path: Path
) -> None:
    made = AttackedBatch(np.zeros((2, 4, 4, 1), np.float32), 3, 2, 0.5)
    files, others = AttackFiles(tmp_path, STEPS, "key" * 9), AttackFiles(tmp_path, STEPS, "key" * 8)
    for number in (0, 1, 3):
        files.write_batch(number, made)
    batches = files.read_batches(3)
    assert {number: (b.queries, b.gradients, b.seconds) for number, b in batches.items()} == {
        0: (3, 2, 0.5),
        1: (3, 2, 0.5),
    }
    assert files.read_batches(4).keys() == {0, 1, 3}
    assert others.read_batches(4) == {}  # of the same name
    (result,) = run(linear, shown, STEPS).attacks
    files.write_result(result)
    assert others.read_result() is None
    stored = files.read_result()
    assert stored is not None
    assert_same(stored, result)


def test_whatever_changes_the_outcome_is_measured_again(
    linear: LinearTarget, shown: Examples, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = linear_target()
    other.sha256 = "1" * 64
    images = shown[0].copy()
    images[0, 0, 0] = 0.5
    stronger = dataclasses.replace(STEPS, steps=4)
    run(linear, shown, STEPS, state_dir=tmp_path)
    assert run(linear, shown, STEPS, state_dir=tmp_path).resumed == 1
    assert run(other, shown, STEPS, state_dir=tmp_path).resumed == 0
    assert run(linear, (images, shown[1]), STEPS, state_dir=tmp_path).resumed == 0
    assert run(linear, shown, stronger, state_dir=tmp_path).resumed == 0
    assert run(linear, shown, STEPS, state_dir=tmp_path, seed=1).resumed == 0
    assert run(linear, shown, STEPS, state_dir=tmp_path, objective="member_average").resumed == 0
    assert run(linear, shown, STEPS, state_dir=tmp_path, save_adversarials=tmp_path / "all").resumed == 0
    monkeypatch.setattr(ncen_tf, "__version__", "0.0.1")
    assert run(linear, shown, STEPS, state_dir=tmp_path).resumed == 0


def test_a_damaged_result_is_measured_again(linear: LinearTarget, shown: Examples, tmp_path: Path) -> None:
    run(linear, shown, ONE_STEP, state_dir=tmp_path)
    (file,) = tmp_path.iterdir()
    file.write_bytes(file.read_bytes()[:200])
    assert run(linear, shown, ONE_STEP, state_dir=tmp_path).resumed == 0
    assert run(linear, shown, ONE_STEP, state_dir=tmp_path).resumed == 1


# Cumulative suites

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
        for field in dataclasses.fields(one):
            np.testing.assert_array_equal(getattr(one, field.name), getattr(other, field.name))
    assert run_cumulative(brightness, strong, weak, state_dir=tmp_path).resumed == 0
    assert seen[2:] == [[0, 1, 2, 3, 4, 5, 6, 7], [6, 7]]
    assert run_cumulative(brightness, weak, strong, state_dir=tmp_path, cumulative=False).resumed == 0
