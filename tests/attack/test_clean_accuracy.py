"""A target that is fed wrongly is told before it is attacked, and models of whole pixels get such images."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

import ncen_tf
from ncen_tf.attack.attack import Norm
from ncen_tf.attack.iterative import RandomStartPgd
from ncen_tf.attack.preview import check_clean_accuracy
from ncen_tf.attack.suites import Suite
from ncen_tf.base.errors import InputError
from ncen_tf.data.dataset import Split
from ncen_tf.targets.interface import ModelInterface, Preprocessing
from ncen_tf.targets.target import RecordedAccuracy, Target

Array = npt.NDArray[np.float32]

SHAPE, CLASSES = (2, 2, 3), 6
CENTERS = np.random.default_rng(0).uniform(0, 255, (CLASSES, 3))


class NearestColor(Target):
    """Takes RGB values in [0, 255] and gives the class of the nearest center."""

    description, sha256 = "nearest color", "0" * 64
    image_shape, classes, members = SHAPE, CLASSES, 1

    def __init__(self, interface: ModelInterface, integers: bool = False) -> None:
        self.preprocessing = Preprocessing(interface, "NHWC", SHAPE, SHAPE, integers)

    def logits(self, images: Array) -> Array:
        assert self.preprocessing is not None
        color = self.preprocessing.model_input(images).astype(np.float64).mean(axis=(1, 2))
        scores = 2 * color @ CENTERS.T - np.square(CENTERS).sum(axis=1)
        return (scores / 1000)[:, np.newaxis].astype(np.float32)

    def linearize(self, images: Array) -> tuple[Array, Callable[[Array], Array]]:
        def pull_back(cotangent: Array) -> Array:
            assert self.preprocessing is not None
            by_color = cotangent[:, 0] @ (2 * CENTERS / 4000).astype(np.float32)
            return self.preprocessing.image_gradient(
                np.broadcast_to(by_color[:, None, None], (len(images), *SHAPE))
            )

        return self.logits(images), pull_back


def examples(count: int = 120) -> tuple[Array, npt.NDArray[np.int32]]:
    rng = np.random.default_rng(1)
    labels = np.arange(count, dtype=np.int32) % CLASSES
    noise = rng.normal(scale=5, size=(count, *SHAPE))
    return np.clip((CENTERS[labels][:, None, None] + noise) / 255, 0, 1).astype(np.float32), labels


RANGE = ModelInterface(input_range=(0, 255))
WRONG = ModelInterface()


def test_the_right_way_to_feed_images_is_named() -> None:
    images, labels = examples()
    check_clean_accuracy(NearestColor(RANGE), images, labels, 50)
    with pytest.raises(InputError, match=r"no better than guessing.*`input_range`=0,255 the accuracy is 1"):
        check_clean_accuracy(NearestColor(WRONG), images, labels, 50)
    bgr = images[..., ::-1].copy()
    with pytest.raises(InputError, match=r"`input_range`=0,255 `channel_order`=BGR the accuracy is 1"):
        check_clean_accuracy(NearestColor(WRONG), bgr, labels, 50)
    check_clean_accuracy(NearestColor(WRONG), images[:29], labels[:29], 50)  # too few to tell


def test_a_wrong_scale_that_beats_guessing_gets_a_warning(caplog: pytest.LogCaptureFixture) -> None:
    images, labels = examples()
    check_clean_accuracy(NearestColor(RANGE), images, labels, 50)
    assert not caplog.records
    check_clean_accuracy(NearestColor(ModelInterface(input_range=(0, 150))), images, labels, 50)
    assert "may be fed wrongly: with `input_range`=0,255 the accuracy is 1" in caplog.text


def test_another_order_of_classes_and_chance_are_told() -> None:
    images, labels = examples()
    with pytest.raises(InputError, match=r"\(5 for 0, 0 for 1, 1 for 2, \.\.\.\), so the order of classes"):
        check_clean_accuracy(NearestColor(RANGE), images, (labels + 1) % CLASSES, 50)
    guesses = np.random.default_rng(2).integers(CLASSES, size=len(labels)).astype(np.int32)
    with pytest.raises(InputError, match=r"check the order of classes, `input_range`"):
        check_clean_accuracy(NearestColor(RANGE), images, guesses, 50)


def test_what_the_export_recorded_is_expected() -> None:
    images, labels = examples()
    wrong = np.where(np.arange(len(labels)) % 2, labels, (labels + 1) % CLASSES).astype(np.int32)
    target = NearestColor(RANGE)
    check_clean_accuracy(target, images, wrong, 50)  # half of them are right, which is not guessing
    for value, refused in ((0.55, False), (0.9, True)):
        target.recorded = RecordedAccuracy(value=value, examples=1000)
        if refused:
            with pytest.raises(InputError, match=r"far below the 0.9 that its export recorded"):
                check_clean_accuracy(target, images, wrong, 50)
        else:
            check_clean_accuracy(target, images, wrong, 50)


@pytest.mark.parametrize(
    ("norm", "eps", "integers"),
    [("Linf", 8 / 255, True), ("Linf", 0.1, True), ("L2", 0.5, True), ("Linf", 0.1, False)],
)
def test_models_of_integers_or_on_request_all_are_attacked_with_whole_pixels(
    norm: Norm, eps: float, integers: bool, tmp_path: Path
) -> None:
    images, labels = examples(30)
    data = Split(np.rint(images * 255).astype(np.uint8), labels, "colors", tuple("abcdef"))
    attack = RandomStartPgd(eps=eps, steps=5, step_size=eps / 3, norm=norm)
    suite = Suite(name="one", attacks=(attack,))
    report = ncen_tf.evaluate(
        NearestColor(WRONG, integers=True)
        if integers
        else NearestColor(ModelInterface(input_range=(0, 255))),
        data,
        suite=suite,
        out=tmp_path,
        save_adversarials=True,
        round_to_8bit=not integers,
    )
    assert report.clean_accuracy.value == 1
    assert report.protocol == ("one" if integers else "one, 8-bit images")
    (file,) = (tmp_path / "adversarials").iterdir()
    with np.load(file) as saved:
        clean, adversarial = saved["images"], saved["adversarials"]
    for values in (clean, adversarial):
        np.testing.assert_allclose(values * 255, np.rint(values * 255), atol=1e-4)
    change = (adversarial - clean).reshape(len(clean), -1)
    assert np.abs(change).max() > 0.5 * eps / (1 if norm == "Linf" else 4)
    sizes = np.abs(change).max(1) if norm == "Linf" else np.linalg.norm(change, axis=1)
    assert sizes.max() <= eps + 1e-6
