"""What is told before the attacks start: the sample, the classes, the cost."""

import logging
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import ncen_tf
from ncen_tf.attack.attack import find_attack
from ncen_tf.attack.auto_pgd import AutoPgdTargeted
from ncen_tf.attack.objectives import Objective
from ncen_tf.attack.preview import (
    describe_sample,
    estimate_cost,
    save_class_sheet,
    warn_of_other_classes,
)
from ncen_tf.attack.suites import load_suite
from ncen_tf.data.dataset import Split
from tests.attack.helpers import LinearTarget, images_and_predictions, linear_target
from tests.conftest import Program


@pytest.fixture(scope="module")
def linear() -> LinearTarget:
    return linear_target()


@pytest.mark.parametrize(
    ("labels", "says"),
    [
        ([0, 1, 1, 2, 2, 2], "6 images of 3 classes, 1 to 3 of each"),
        ([0, 0, 3, 3], "4 images of 2 classes, 2 of each"),
    ],
)
def test_the_sample_is_described(labels: list[int], says: str) -> None:
    assert describe_sample(Split(np.zeros((len(labels), 2, 2, 1), np.uint8), np.array(labels))) == says


@pytest.mark.parametrize("named", [3, 5])
def test_fewer_classes_than_outputs_get_one_warning(
    named: int, linear: LinearTarget, caplog: pytest.LogCaptureFixture
) -> None:
    images, labels = images_and_predictions(linear, 6)[0], np.arange(6, dtype=np.int32) % 3
    names = tuple("abcde")[:named]
    with caplog.at_level(logging.INFO, "ncen_tf"):
        ncen_tf.evaluate(linear, Split(images, labels, "letters", names), suite="quick")
    warnings = [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]
    assert len(warnings) == (named == 3)
    assert all("letters has 3 classes and the target 5 outputs" in each for each in warnings)
    assert all("`classes`" in each for each in warnings)
    assert "6 images of 3 classes, 2 of each" in caplog.text


@pytest.mark.parametrize(
    ("names", "warned"),
    [("abc", False), ("abcde", False), ("012", False), ("acb", True), ("acbde", True)],
)
def test_names_that_an_export_recorded_otherwise_get_a_warning(
    names: str, warned: bool, caplog: pytest.LogCaptureFixture
) -> None:
    linear = linear_target()
    linear.class_names = tuple("abcde")
    data = Split(
        np.zeros((3, *linear.image_shape), np.uint8), np.arange(3, dtype=np.int32), "letters", tuple(names)
    )
    with caplog.at_level(logging.INFO, "ncen_tf"):
        warn_of_other_classes(data, linear)
    warning = "Class 1 of letters is c, but output 1 of the target is b by its manifest"
    assert (warning in caplog.text) == warned
    assert ("letters has 3 classes and the target 5 outputs" in caplog.text) == (names == "012")


STEPS = {"steps": 3}
SETTINGS: dict[str, dict[str, Any]] = {
    "FGSM": {},
    "MI-FGSM": STEPS,
    "PGD": STEPS | {"step_size": 0.001},
    "BIM": STEPS | {"step_size": 0.001},
    "DIM": STEPS,
    "PGD-restarts": STEPS | {"step_size": 0.001, "restarts": 2},
    "APGD-CE": STEPS | {"restarts": 2},
    "APGD-DLR": STEPS,
    "APGD-T": STEPS | {"targets": 2},
    "FAB": STEPS,
    "FAB-T": STEPS | {"targets": 2},
    "Transfer-mean-logit": STEPS,
    "Transfer-members": STEPS,
    "MORA": STEPS,
    "Square": {"queries": 20},
    "AutoZOOM": {"queries": 20},
    "FMN": STEPS,
    "DDN": STEPS,
    "sigma-zero": STEPS,
}


@pytest.mark.parametrize("breakable", [False, True])
@pytest.mark.parametrize(("name", "settings"), SETTINGS.items())
def test_no_attack_exceeds_its_budget(name: str, settings: dict[str, Any], breakable: bool) -> None:
    """Of images that nothing breaks, attacks with gradients take all of it."""
    target = linear_target(scale=3.0 if breakable else 0.01)
    target.bias = np.zeros(5) if breakable else 5 * np.eye(5)[2]
    images, labels = images_and_predictions(target, 4)
    attack = find_attack(name)(eps=0.02, **settings)
    objective = Objective(target, "ensemble")
    attack(objective, images, labels, 0)
    budget = attack.budget(target.classes, target.members)
    assert budget is not None
    assert objective.gradients <= 4 * budget.gradients
    assert objective.queries <= 4 * budget.queries
    if not breakable:
        assert objective.gradients == 4 * budget.gradients
        assert attack.gradient_free or objective.queries == 4 * budget.queries


def test_all_wrong_classes_of_apgd_t_need_no_ranking() -> None:
    target = LinearTarget(linear_target(scale=0.01).weights, 5 * np.eye(5)[2])
    objective, attack = Objective(target, "ensemble"), AutoPgdTargeted(eps=0.02, steps=3)
    attack(objective, images_and_predictions(target, 4)[0], np.full(4, 2, np.int32), 0)
    budget = attack.budget(5, 3)
    assert budget is not None
    assert (objective.gradients, objective.queries) == (4 * budget.gradients, 4 * budget.queries)


@pytest.mark.parametrize(
    ("suite", "says"),
    [
        ("strict", "at most about 1 minute: 1,539 gradients and 7,441 forward passes an image"),
        ("blackbox", "at most about 1 minute: 15,000 forward passes an image"),
        ("quick", None),
    ],
)
def test_the_cost_is_that_of_ten_classes(suite: str, says: str | None) -> None:
    target = linear_target(classes=10)
    images, _ = images_and_predictions(target, 2)
    chosen = load_suite(suite, target.image_shape, norm="Linf")
    assert estimate_cost(target, chosen, images) == says


class TimedTarget(LinearTarget):
    """Moves a clock on by 5 ms for an image of a forward pass and by 10 ms for one of a gradient."""

    now = 0.0

    def logits(self, images: np.ndarray) -> np.ndarray:
        self.now += 0.005 * len(images)
        return super().logits(images)

    def linearize(self, images: np.ndarray) -> tuple[np.ndarray, Any]:
        self.now += 0.005 * len(images)
        return super().linearize(images)


@pytest.mark.parametrize(
    ("suite", "count", "says"),
    [
        ("blackbox", 500, "11 hours"),  # 15,000 x 5 ms = 75 s an image
        ("blackbox", 5000, "5 days"),
        ("strict", 100, "75 minutes"),  # 1,539 x 10 ms + 5,902 x 5 ms = 44.9 s an image
    ],
)
def test_the_time_is_that_of_a_batch_for_every_image(
    suite: str, count: int, says: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = TimedTarget(linear_target(classes=10).weights, np.zeros(10))
    monkeypatch.setattr(time, "perf_counter", lambda: target.now)
    images = np.zeros((count, 4, 3, 1), np.float32)
    said = estimate_cost(target, load_suite(suite, target.image_shape, norm="Linf"), images)
    assert said is not None
    assert said.startswith(f"at most about {says}: ")


def test_one_image_of_each_class_is_shown(tmp_path: Path) -> None:
    """Classes of one colour each, one with a name like a formula, and one without images."""
    images = np.zeros((6, 8, 8, 3), np.uint8)
    labels = np.array([2, 0, 1, 2, 0, 1], np.int32)
    colors = np.array([(200, 0, 0), (0, 200, 0), (0, 0, 200)], np.uint8)
    images[:] = colors[labels][:, None, None]
    file = tmp_path / "made" / "classes.png"
    save_class_sheet(Split(images, labels, class_names=("a", "$x^", "c", "none")), file)
    shown = np.asarray(Image.open(file).convert("RGB"))
    for color in colors:
        assert (shown == color).all(axis=-1).sum() > 1000


def test_an_evaluation_tells_the_cost_and_shows_the_classes(
    tmp_path: Path, linear: LinearTarget, caplog: pytest.LogCaptureFixture
) -> None:
    data = Split(*images_and_predictions(linear, 6))
    with caplog.at_level(logging.INFO, "ncen_tf"):
        ncen_tf.evaluate(linear, data, suite="screen", norm="Linf", out=tmp_path / "out")
    assert "at most about 1 minute: 150 gradients and 500 forward passes an image" in caplog.text
    assert f"One image of each class: {tmp_path / 'out' / 'classes.png'}" in caplog.text
    assert (tmp_path / "out" / "classes.png").is_file()


def test_labels_beyond_the_outputs_end_the_program(
    tiny_export: Path, tmp_path: Path, run_program: Program
) -> None:
    file = tmp_path / "many.npz"
    np.savez(file, images=np.zeros((12, 28, 28, 1), np.uint8), labels=np.arange(12))
    target = f"--target={tiny_export / 'ensemble.onnx'}"
    done = run_program("attack", target, f"--dataset={file}", "--suite=quick", f"--out={tmp_path / 'out'}")
    assert done.returncode == 2
    assert "Labels must be in [0, 10)" in done.stderr
    assert "Traceback" not in done.stderr
