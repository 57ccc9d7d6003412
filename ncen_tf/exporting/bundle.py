"""An export: model files and the manifest that proves them, written whole or not at all."""

import dataclasses
import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import tensorflow as tf

from ncen_tf.data.loading import Dataset, Split
from ncen_tf.environment import describe_environment
from ncen_tf.errors import InputError
from ncen_tf.exporting.manifest import FORMAT, MANIFEST, check_files, describe_files, read_manifest
from ncen_tf.exporting.onnx_file import DEFAULT_OPSET, convert_to_onnx
from ncen_tf.exporting.parity import Predict, file_predictor, keras_predictor, measure_parity, predict_all
from ncen_tf.exporting.reduced_precision import reduce_precision
from ncen_tf.exporting.saved_model import save_saved_model
from ncen_tf.files import replacing_directory, write_json
from ncen_tf.models.ensemble import Ensemble
from ncen_tf.training.trained import TrainedEnsemble

ONNX_FILE, SAVED_MODEL, MEMBERS = "ensemble.onnx", "saved_model", "members"
FORMATS = ("onnx", "saved_model")
REDUCED_DRIFT = 0.01
"""What processors with other int8 or float16 instructions may change of an accuracy or agreement."""


def export_ensemble(
    trained: TrainedEnsemble,
    dataset: Dataset,
    out: Path,
    *,
    formats: Sequence[str] = FORMATS,
    opset: int = DEFAULT_OPSET,
    members: bool = False,
    onnx_precisions: Sequence[str] = (),
) -> dict[str, Any]:
    """Write an export and measure that it is the trained ensemble.

    Args:
        trained: what to export.
        dataset: its test images measure parity and accuracy, its training images calibrate int8.
        out: folder to write, taking the place of what is there.
        formats: of :data:`FORMATS`.
        opset: ONNX opset.
        members: also write each member as ``members/member_I.onnx``.
        onnx_precisions: of ``float16``, ``int8``: more ONNX files.

    Returns:
        The manifest.

    Raises:
        InputError: a file differs from the ensemble, or cannot be written; nothing is left behind.
    """
    shape = dataset.spec.image_shape
    reference = predict_all(keras_predictor(trained.ensemble), dataset.test)
    metadata = _metadata(trained)
    try:
        with replacing_directory(out) as folder:
            if "saved_model" in formats:
                save_saved_model(trained.ensemble, shape, folder / SAVED_MODEL)
            if "onnx" in formats:
                onnx.save(convert_to_onnx(trained.ensemble, shape, metadata, opset), folder / ONNX_FILE)
            if members:
                (folder / MEMBERS).mkdir()
                for index, member in enumerate(trained.ensemble.members):
                    model = convert_to_onnx(Ensemble([member]), shape, metadata | {"member": index}, opset)
                    onnx.save(model, folder / MEMBERS / f"member_{index}.onnx")
            parity = {
                name: _proven_parity(name, predict, reference, dataset.test)
                for name, predict in _predictors(folder).items()
            }
            reduced = {}
            for precision in onnx_precisions:
                file = reduce_precision(folder / ONNX_FILE, precision, dataset.train)
                reduced[file.name] = _agreement(
                    predict_all(file_predictor(file), dataset.test), reference, dataset.test
                )
            manifest = {
                "format": FORMAT,
                **metadata,
                "opset": opset,
                "accuracy": {
                    "ace": accuracy(reference, dataset.test),
                    "test_examples": len(dataset.test),
                    "dataset_source": dataset.source,
                    "predictions_sha256": predictions_sha256(reference),
                },
                "parity": parity,
                "reduced_precision": reduced,
                "environment": describe_environment(),
                "files": describe_files(folder),
            }
            write_json(folder / MANIFEST, manifest)
    except tf.errors.OpError as error:
        raise InputError(f"{out} cannot be written: {' '.join(str(error).split())[:200]}") from error
    return manifest


def verify_export(folder: Path, dataset: Dataset) -> dict[str, dict[str, Any]]:
    """Check an export: hashes, loading, parity among its files, predictions and accuracies of the manifest.

    Args:
        folder: an export.
        dataset: the dataset and test part that the manifest names.

    Returns:
        Parity figures by file, against the first of them; accuracy for files of reduced precision.

    Raises:
        InputError: what does not hold, with the file's name.
    """
    manifest = read_manifest(folder)
    check_files(folder, manifest)
    predictors = _predictors(folder)
    if not predictors:
        raise InputError(f"{folder} holds neither {ONNX_FILE} nor {SAVED_MODEL}.")
    reference = predict_all(next(iter(predictors.values())), dataset.test)
    figures = {
        name: _proven_parity(name, predict, reference, dataset.test) for name, predict in predictors.items()
    }
    if predictions_sha256(reference) != manifest["accuracy"]["predictions_sha256"]:
        raise InputError(f"The predictions of {folder} are not those that its manifest records.")
    for name, recorded in manifest["reduced_precision"].items():
        predicted = predict_all(file_predictor(folder / name), dataset.test)
        figures[name] = _agreement(predicted, reference, dataset.test)
        for figure, value in figures[name].items():
            if abs(value - recorded[figure]) > REDUCED_DRIFT:
                raise InputError(
                    f"{folder / name} runs otherwise here than where it was exported: {figure} is "
                    f"{value:.4f}, the manifest records {recorded[figure]:.4f}."
                )
    return figures


def accuracy(probabilities: npt.NDArray[np.float32], split: Split) -> float:
    """Share of right predictions, in [0, 1]."""
    return float((probabilities.argmax(1) == split.labels).mean())


def predictions_sha256(probabilities: npt.NDArray[np.float32]) -> str:
    """Hash of the predicted classes: what a file must predict, without the images being stored."""
    return hashlib.sha256(probabilities.argmax(1).astype(np.uint16).tobytes()).hexdigest()


def _predictors(folder: Path) -> dict[str, Predict]:
    """What of an export must be the trained ensemble; its members are by the mean of their probabilities."""
    names = [name for name in (SAVED_MODEL, ONNX_FILE) if (folder / name).exists()]
    predictors = {name: file_predictor(folder / name) for name in names}
    members = [file_predictor(file) for file in sorted((folder / MEMBERS).glob("*.onnx"))]

    def mean(images: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        return np.mean([predict(images) for predict in members], axis=0)

    return predictors | ({MEMBERS: mean} if members else {})


def _proven_parity(
    name: str, predict: Predict, reference: npt.NDArray[np.float32], split: Split
) -> dict[str, Any]:
    parity = measure_parity(reference, predict, split)
    if not parity.holds:
        raise InputError(
            f"{name} is not the trained ensemble: probabilities differ by up to "
            f"{parity.max_difference:.1e}, {parity.different_predictions} of {parity.images} predictions "
            f"differ, batch sizes differ by up to {parity.max_difference_between_batch_sizes:.1e}."
        )
    return dataclasses.asdict(parity)


def _agreement(
    probabilities: npt.NDArray[np.float32], reference: npt.NDArray[np.float32], split: Split
) -> dict[str, Any]:
    same = float((probabilities.argmax(1) == reference.argmax(1)).mean())
    return {"ace": accuracy(probabilities, split), "agreement_with_float32": same}


def _metadata(trained: TrainedEnsemble) -> dict[str, Any]:
    height, width, channels = trained.spec.image_shape
    return {
        "dataset": trained.spec.name,
        "class_names": list(trained.spec.class_names),
        "input": {
            "name": "image",
            "layout": "NHWC",
            "shape": ["N", height, width, channels],
            "range": [0, 1],
        },
        "members": list(trained.config.architecture),
        "training_flags": trained.config.to_flags(),
        "epochs_trained": trained.epochs_done,
        "weights_sha256": trained.weights_sha256(),
    }
