"""Running a suite: padding, refusing, saving and replaying."""

import dataclasses
from pathlib import Path
from typing import Any, ClassVar

import keras
import numpy as np
import pytest
import tensorflow as tf

from ncen_tf.attack.attack import Attack
from ncen_tf.attack.objectives import Objective
from ncen_tf.attack.result_files import read_adversarials
from ncen_tf.attack.runner import replay
from ncen_tf.base.errors import InputError
from tests.attack.helpers import Examples
from tests.attack.helpers import FGSM, PGD, SQUARE, first, run
from tests.attack.helpers import KerasTarget, small_member


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


def test_replay_shows_saved_examples_to_another_target(
    target: KerasTarget, examples: Examples, tmp_path: Path
) -> None:
    result = run(target, first(examples, 12), FGSM, save_adversarials=tmp_path)
    (file,) = tmp_path.iterdir()
    saved = read_adversarials(file)
    same = replay(target, saved, batch_size=5)
    np.testing.assert_array_equal(same.attacks[0].predictions, result.attacks[0].predictions)
    np.testing.assert_array_equal(same.clean_predictions, result.clean_predictions)
    assert same.attacks[0].settings == FGSM.settings()
    assert saved.objective == "ensemble"
    assert same.attacks[0].gradients_per_image == 0
    other = KerasTarget([small_member(9)])
    expected = np.argmax(Objective(other, "ensemble").log_probabilities(saved.adversarials), axis=1)
    np.testing.assert_array_equal(replay(other, saved).attacks[0].predictions, expected)


def test_other_files_are_no_saved_images(tmp_path: Path) -> None:
    file = tmp_path / "x.npz"
    with pytest.raises(InputError, match="cannot be read"):
        read_adversarials(file)
    np.savez(file, images=np.zeros(3))
    with pytest.raises(InputError, match="cannot be read"):
        read_adversarials(file)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Faulty(Attack):
    """Adds a constant."""

    name: ClassVar[str] = "Faulty"
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
        ((images.reshape(-1, 28, 1, 28), labels), "--input_layout=NCHW"),
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


class NumpyTarget(KerasTarget):
    """Linear members computed outside TensorFlow, with a gradient of their own, as a runtime's are."""

    def __init__(self) -> None:
        self.description, self.image_shape, self.classes, self.members = "numpy", (28, 28, 1), 10, 2
        self.weights = np.random.default_rng(0).normal(size=(2, 784, 10)).astype(np.float32)

    def member_logits(self, images: tf.Tensor) -> tf.Tensor:
        def forward(x: Any) -> Any:
            return np.einsum("np,kpc->nkc", x.reshape(len(x), -1), self.weights)

        def pull_back(upstream: Any) -> Any:
            return np.einsum("nkc,kpc->np", upstream, self.weights).reshape(-1, 28, 28, 1)

        @tf.custom_gradient
        def logits(x: tf.Tensor) -> tuple[tf.Tensor, Any]:
            return tf.numpy_function(forward, [x], tf.float32), lambda u: tf.ensure_shape(
                tf.numpy_function(pull_back, [u], tf.float32), [None, 28, 28, 1]
            )

        return logits(images)


def test_a_target_outside_tensorflow_is_attacked(examples: Examples) -> None:
    target = NumpyTarget()
    images, labels = first(examples, 8)
    result = run(target, (images, labels), FGSM, PGD, SQUARE, objective="member_average")
    x = tf.constant(images)
    with tf.GradientTape() as tape:
        tape.watch(x)
        members = [tf.reshape(x, [8, -1]) @ weights for weights in target.weights]
        losses = [tf.nn.sparse_softmax_cross_entropy_with_logits(labels, member) for member in members]
        loss = losses[0] + losses[1]
    expected = np.clip(images + 0.1 * np.sign(tape.gradient(loss, x)), 0, 1)
    assert np.mean(np.abs(result.attacks[0].shown - expected) > 1e-5) < 0.002
