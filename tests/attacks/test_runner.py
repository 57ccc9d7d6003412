"""Running a suite: padding, resuming, refusing, saving and replaying."""

import dataclasses
from pathlib import Path
from typing import Any, ClassVar

import keras
import numpy as np
import pytest
import tensorflow as tf

from ncen_tf.attacks.attack import Attack, Norm
from ncen_tf.attacks.fast_gradient import FastGradient
from ncen_tf.attacks.objectives import Objective
from ncen_tf.attacks.projected_gradient_descent import ProjectedGradientDescent
from ncen_tf.attacks.results import AttackResult, SuiteResult, read_result, write_result
from ncen_tf.attacks.runner import replay, run_suite
from ncen_tf.attacks.square import Square
from ncen_tf.attacks.suites import Suite
from ncen_tf.errors import InputError
from tests.attacks.conftest import Examples
from tests.attacks.stand_in import KerasTarget, small_member

FGSM = FastGradient(eps=0.1)
PGD = ProjectedGradientDescent(eps=0.1, steps=3, step_size=0.05)
SQUARE = Square(eps=0.1, queries=10)


def run(target: KerasTarget, examples: tuple[Any, Any], *attacks: Attack, **options: Any) -> SuiteResult:
    settings: dict[str, Any] = {"objective": "ensemble", "batch_size": 8} | options
    return run_suite(target, *examples, Suite("test", attacks), **settings)


def first(examples: Examples, count: int) -> Examples:
    return examples[0][:count], examples[1][:count]


def assert_same(one: AttackResult, other: AttackResult) -> None:
    for field in dataclasses.fields(AttackResult):
        np.testing.assert_array_equal(getattr(one, field.name), getattr(other, field.name))


def test_results_are_what_the_target_says(target: KerasTarget, examples: Examples, tmp_path: Path) -> None:
    result = run(target, first(examples, 20), FGSM, PGD, save_adversarials=tmp_path)
    assert target.traces == 1
    images, labels = first(examples, 20)
    objective = Objective(target, "ensemble")
    np.testing.assert_array_equal(
        result.clean_predictions, np.argmax(objective.log_probabilities(images), axis=1)
    )
    np.testing.assert_array_equal(result.labels, labels)
    for attack, measured in zip((FGSM, PGD), result.attacks, strict=True):
        (file,) = tmp_path.glob(f"{attack.name}-*.npz")
        adversarials = np.load(file, allow_pickle=False)["adversarials"]
        np.testing.assert_array_equal(
            measured.predictions, np.argmax(objective.log_probabilities(adversarials), axis=1)
        )
        change = (adversarials - images).reshape(20, -1)
        np.testing.assert_allclose(measured.l2, np.sqrt((change**2).sum(axis=1)), rtol=1e-5)
        np.testing.assert_allclose(measured.linf, np.abs(change).max(axis=1))
        np.testing.assert_array_equal(measured.shown, adversarials[:8])
        steps = getattr(attack, "steps", 1)
        assert (measured.gradients_per_image, measured.queries_per_image) == (steps, steps)


@pytest.mark.parametrize("attack", [FGSM, PGD, SQUARE])
def test_padding_changes_nothing(
    attack: Attack, target: KerasTarget, examples: Examples, tmp_path: Path
) -> None:
    whole = run(target, first(examples, 16), attack, save_adversarials=tmp_path / "whole")
    part = run(target, first(examples, 11), attack, save_adversarials=tmp_path / "part")
    saved = [np.load(next((tmp_path / name).glob("*")))["adversarials"] for name in ("whole", "part")]
    if attack is not SQUARE:  # whose one stream of random numbers stops when all of a batch is broken
        np.testing.assert_array_equal(saved[0][:11], saved[1])
    np.testing.assert_array_equal(whole.clean_predictions[:11], part.clean_predictions)
    assert len(part.attacks[0].predictions) == 11


def test_the_seed_decides(target: KerasTarget, examples: Examples) -> None:
    results = [run(target, first(examples, 8), PGD, seed=seed).attacks[0] for seed in (0, 0, 1)]
    np.testing.assert_array_equal(results[0].shown, results[1].shown)
    assert np.any(results[0].shown != results[2].shown)


@pytest.fixture
def gradient_calls(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of the attacks that were called."""
    called: list[str] = []
    for attack in (type(FGSM), type(PGD)):
        original = attack.__call__

        def counting(self: Attack, *args: Any, original: Any = original) -> Any:
            called.append(self.name)
            return original(self, *args)

        monkeypatch.setattr(attack, "__call__", counting)
    return called


def test_a_second_run_attacks_nothing(
    target: KerasTarget, examples: Examples, tmp_path: Path, gradient_calls: list[str]
) -> None:
    before = run(target, first(examples, 8), FGSM, PGD, state_dir=tmp_path)
    assert gradient_calls == ["FGSM", "PGD"]
    after = run(target, first(examples, 8), FGSM, PGD, state_dir=tmp_path)
    assert gradient_calls == ["FGSM", "PGD"]
    assert (before.resumed, after.resumed) == (0, 2)
    for one, other in zip(before.attacks, after.attacks, strict=True):
        assert_same(one, other)


def test_an_interrupted_run_keeps_what_is_finished(
    target: KerasTarget, examples: Examples, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(*_: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(type(PGD), "__call__", interrupt)
        with pytest.raises(KeyboardInterrupt):
            run(target, first(examples, 8), FGSM, PGD, state_dir=tmp_path)
    assert run(target, first(examples, 8), FGSM, PGD, state_dir=tmp_path).resumed == 1


def test_whatever_changes_the_outcome_is_measured_again(
    target: KerasTarget, examples: Examples, tmp_path: Path
) -> None:
    start = first(examples, 8)
    run(target, start, PGD, state_dir=tmp_path)
    other = KerasTarget(target.models)
    other.sha256 = "1" * 64
    images = start[0].copy()
    images[0, 0, 0] = 0.5
    stronger = dataclasses.replace(PGD, steps=4)
    assert run(target, start, PGD, state_dir=tmp_path).resumed == 1
    assert run(other, start, PGD, state_dir=tmp_path).resumed == 0
    assert run(target, (images, start[1]), PGD, state_dir=tmp_path).resumed == 0
    assert run(target, start, stronger, state_dir=tmp_path).resumed == 0
    assert run(target, start, PGD, state_dir=tmp_path, seed=1).resumed == 0
    assert run(target, start, PGD, state_dir=tmp_path, objective="member_average").resumed == 0
    assert run(target, start, PGD, state_dir=tmp_path, save_adversarials=tmp_path / "all").resumed == 0


def test_a_damaged_state_file_is_measured_again(
    target: KerasTarget, examples: Examples, tmp_path: Path
) -> None:
    run(target, first(examples, 8), FGSM, state_dir=tmp_path)
    (file,) = tmp_path.iterdir()
    file.write_bytes(file.read_bytes()[:200])
    assert run(target, first(examples, 8), FGSM, state_dir=tmp_path).resumed == 0
    assert run(target, first(examples, 8), FGSM, state_dir=tmp_path).resumed == 1


def test_a_result_is_read_under_its_own_key_only(
    target: KerasTarget, examples: Examples, tmp_path: Path
) -> None:
    result = run(target, first(examples, 4), FGSM).attacks[0]
    write_result(tmp_path / "x.npz", "key", result)
    assert read_result(tmp_path / "x.npz", "other") is None
    stored = read_result(tmp_path / "x.npz", "key")
    assert stored is not None
    assert_same(stored, result)


def test_replay_shows_saved_examples_to_another_target(
    target: KerasTarget, examples: Examples, tmp_path: Path
) -> None:
    result = run(target, first(examples, 12), FGSM, save_adversarials=tmp_path)
    (file,) = tmp_path.iterdir()
    same = replay(target, file, batch_size=5)
    np.testing.assert_array_equal(same.attacks[0].predictions, result.attacks[0].predictions)
    np.testing.assert_array_equal(same.clean_predictions, result.clean_predictions)
    assert same.attacks[0].settings == FGSM.settings()
    assert same.attacks[0].gradients_per_image == 0
    other = KerasTarget([small_member(9)])
    adversarials = np.load(file)["adversarials"]
    expected = np.argmax(Objective(other, "ensemble").log_probabilities(adversarials), axis=1)
    np.testing.assert_array_equal(replay(other, file).attacks[0].predictions, expected)


def test_replay_refuses_other_files(target: KerasTarget, tmp_path: Path) -> None:
    file = tmp_path / "x.npz"
    with pytest.raises(InputError, match="no file of saved adversarial examples"):
        replay(target, file)
    np.savez(file, images=np.zeros(3))
    with pytest.raises(InputError, match="no file of saved adversarial examples"):
        replay(target, file)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Faulty(Attack):
    """Adds a constant."""

    name: ClassVar[str] = "Faulty"
    norm: ClassVar[Norm] = "Linf"
    added: float

    def __post_init__(self) -> None:
        """Anything goes."""

    def __call__(self, objective: Objective, images: tf.Tensor, labels: tf.Tensor, seed: int) -> tf.Tensor:
        return images + self.added


def test_an_attack_that_cheats_is_caught(target: KerasTarget, examples: Examples) -> None:
    with pytest.raises(RuntimeError, match=r"moved an image by 0\.2"):
        run(target, first(examples, 4), Faulty(eps=0.1, added=0.2))
    with pytest.raises(RuntimeError, match=r"left \[0, 1\]"):
        run(target, first(examples, 4), Faulty(eps=0.1, added=-0.05))
    with pytest.raises(InputError, match="gradients are not finite"):
        run(target, first(examples, 4), Faulty(eps=0.1, added=float("nan")))


def test_nan_logits_are_refused_in_one_sentence(examples: Examples) -> None:
    model = small_member(3)
    model.layers[-1].bias.assign(np.full(10, np.nan, np.float32))
    with pytest.raises(
        InputError, match="stand-in gives NaN or infinite outputs on clean images: "
    ) as refused:
        run(KerasTarget([model]), first(examples, 4), FGSM)
    assert str(refused.value).count(".") == 1


def test_images_and_labels_are_checked(target: KerasTarget, examples: Examples) -> None:
    images, labels = first(examples, 4)
    for wrong, says in (
        (((images * 255).astype(np.uint8), labels), "takes float32 images"),
        ((images[:, :14], labels), r"of shape \(28, 28, 1\)"),
        ((images * 255, labels), r"images in \[0, 1\]"),
        ((images * np.float32(np.nan), labels), r"images in \[0, 1\]"),
        ((images, labels[:3]), "as many labels"),
        ((images[:0], labels[:0]), "as many labels"),
        ((images, labels + 10), r"Labels are in \[0, 10\)"),
    ):
        with pytest.raises(InputError, match=says):
            run(target, wrong, FGSM)
    with pytest.raises(InputError, match="batch_size is at least 1"):
        run(target, (images, labels), FGSM, batch_size=0)


def test_a_single_classifier_has_one_loss(trained: list[keras.Model], examples: Examples) -> None:
    """With one member both objectives are its cross-entropy."""
    single = KerasTarget(trained[:1])
    shown = [
        run(single, first(examples, 8), FGSM, objective=name).attacks[0].shown
        for name in ("member_average", "ensemble")
    ]
    assert np.mean(np.abs(shown[0] - shown[1]) > 1e-6) < 0.002
