"""The export that comes with the repository works right after a clone."""

import numpy as np

import ncen_tf
from ncen_tf.export.conversion import file_predictor
from ncen_tf.export.export import predict_all
from tests.conftest import ROOT

REFERENCE = ROOT / "exports" / "reference"


def test_reference_is_intact_and_small() -> None:
    manifest = ncen_tf.verify_export(REFERENCE)
    assert sum(entry.size for entry in manifest.files.values()) < 5_000_000


def test_reference_is_as_accurate_as_its_manifest_says() -> None:
    test = ncen_tf.load_data("fashion_mnist_sample").test
    probabilities = predict_all(file_predictor(REFERENCE / "ensemble.onnx"), test)
    accuracy = float((probabilities.argmax(1) == test.labels).mean())
    recorded = ncen_tf.Manifest.read(REFERENCE).accuracy.clean_accuracy
    assert abs(accuracy - recorded) < 4 * np.sqrt(recorded * (1 - recorded) / len(test))
