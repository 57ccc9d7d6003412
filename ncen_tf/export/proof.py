"""That the files of an export are the trained ensemble: measured when it is written, and again anywhere."""

import dataclasses
import hashlib
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ncen_tf.data.dataset import Dataset, Split
from ncen_tf.base.errors import InputError
from ncen_tf.export.manifest import MEMBERS, ONNX_FILE, SAVED_MODEL, check_files, read_manifest
from ncen_tf.export.parity import (
    Parity,
    Predict,
    difference_between_batch_sizes,
    file_predictor,
    measure_parity,
    predict_all,
)

REDUCED_DRIFT = 0.01
"""What processors with other int8 or float16 instructions may change of an accuracy or agreement."""


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
    predictors = whole_ensembles(folder)
    if not predictors:
        raise InputError(f"{folder} holds neither {ONNX_FILE} nor {SAVED_MODEL}.")
    first, *others = predictors
    reference = predict_all(predictors[first], dataset.test)
    itself = Parity(len(reference), 0, 0, 0, difference_between_batch_sizes(predictors[first], dataset.test))
    figures = {first: _require_parity(first, itself)}
    for name in others:
        figures[name] = prove_parity(name, predictors[name], reference, dataset.test)
    if predictions_sha256(reference) != manifest["accuracy"]["predictions_sha256"]:
        raise InputError(f"The predictions of {folder} are not those that its manifest records.")
    for name, recorded in manifest["reduced_precision"].items():
        predicted = predict_all(file_predictor(folder / name), dataset.test)
        figures[name] = measure_agreement(predicted, reference, dataset.test)
        for figure, value in figures[name].items():
            if abs(value - recorded[figure]) > REDUCED_DRIFT:
                raise InputError(
                    f"{folder / name} runs otherwise here than where it was exported: {figure} is "
                    f"{value:.4f}, the manifest records {recorded[figure]:.4f}."
                )
    return figures


def whole_ensembles(folder: Path) -> dict[str, Predict]:
    """What of an export must be the trained ensemble; its members are by the mean of their probabilities."""
    names = [name for name in (SAVED_MODEL, ONNX_FILE) if (folder / name).exists()]
    predictors = {name: file_predictor(folder / name) for name in names}
    members = [file_predictor(file) for file in sorted((folder / MEMBERS).glob("*.onnx"))]

    def mean(images: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        return np.mean([predict(images) for predict in members], axis=0)

    return predictors | ({MEMBERS: mean} if members else {})


def prove_parity(
    name: str, predict: Predict, reference: npt.NDArray[np.float32], split: Split
) -> dict[str, Any]:
    """Parity figures of a file.

    Raises:
        InputError: it does not hold.
    """
    return _require_parity(name, measure_parity(reference, predict, split))


def _require_parity(name: str, parity: Parity) -> dict[str, Any]:
    if not parity.holds:
        raise InputError(
            f"{name} is not the trained ensemble: probabilities differ by up to "
            f"{parity.max_difference:.1e}, {parity.different_predictions} of {parity.images} predictions "
            f"differ, batch sizes differ by up to {parity.max_difference_between_batch_sizes:.1e}."
        )
    return dataclasses.asdict(parity)


def measure_agreement(
    probabilities: npt.NDArray[np.float32], reference: npt.NDArray[np.float32], split: Split
) -> dict[str, float]:
    """Of a file of reduced precision: its ACE, and on which share of images it agrees with the ensemble."""
    same = float((probabilities.argmax(1) == reference.argmax(1)).mean())
    return {"ace": accuracy(probabilities, split), "agreement_with_float32": same}


def accuracy(probabilities: npt.NDArray[np.float32], split: Split) -> float:
    """Share of right predictions, in [0, 1]."""
    return float((probabilities.argmax(1) == split.labels).mean())


def predictions_sha256(probabilities: npt.NDArray[np.float32]) -> str:
    """Hash of the predicted classes: what a file must predict, without the images being stored."""
    return hashlib.sha256(probabilities.argmax(1).astype(np.uint16).tobytes()).hexdigest()
