"""What is told before the attacks start: the sample, the classes."""

import logging
from pathlib import Path

import numpy as np
import pytest

import ncen_tf
from ncen_tf.attack.preview import describe_sample
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
    assert all("--classes" in each for each in warnings)
    assert "6 images of 3 classes, 2 of each" in caplog.text


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
