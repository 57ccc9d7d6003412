"""Running a suite: batches, refusals, saving and replaying."""

import gc
import weakref
from pathlib import Path
from typing import ClassVar

import keras
import numpy as np
import numpy.typing as npt
import pytest
from pydantic import Field

from ncen_tf.attack.attack import Attack
from ncen_tf.attack.losses import log_mean_probabilities
from ncen_tf.attack.objectives import Objective
from ncen_tf.attack.results import read_adversarials
from ncen_tf.attack.runner import replay
from ncen_tf.attack.square import Square
from ncen_tf.base.errors import InputError
from ncen_tf.base.settings import settings
from ncen_tf.targets.target import Target
from ncen_tf.targets.tensorflow_targets import KerasTarget
from tests.attack.helpers import (
    FGSM,
    ONE_STEP,
    PGD,
    SQUARE,
    STEPS,
    Examples,
    LinearTarget,
    first,
    linear_target,
    run,
    small_member,
)

Array = npt.NDArray[np.float32]
Labels = npt.NDArray[np.int32]


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
