"""Export an ensemble to files that are measured to be the same ensemble, and verify them later."""

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np
import onnx
import tensorflow as tf
from pydantic_core import to_jsonable_python

from ncen_tf.base.environment import describe_environment
from ncen_tf.base.errors import InputError
from ncen_tf.base.files import replacing_directory
from ncen_tf.data.dataset import Dataset, Split
from ncen_tf.ensembles.ensemble import Ensemble
from ncen_tf.export.conversion import (
    Array,
    Predict,
    convert_to_onnx,
    ensemble_predictor,
    file_predictor,
    in_float32,
    reduce_precision,
    save_saved_model,
)
from ncen_tf.export.manifest import (
    MANIFEST,
    MEMBERS,
    ONNX_FILE,
    SAVED_MODEL,
    Accuracy,
    ExportSettings,
    ImageInput,
    Manifest,
    Parity,
    ReducedPrecision,
    describe_files,
)
from ncen_tf.train.trained_run import TrainedRun

MAX_DIFFERENCE = 1e-5
"""Largest accepted difference between two probabilities of the same image."""
REDUCED_DRIFT = 0.01
"""Accepted change of an accuracy or agreement on processors with other int8 or float16 instructions."""
BATCH_SIZES, BATCHED_IMAGES = (1, 7, 256), 256


def export_ensemble(
    model: Ensemble | TrainedRun,
    folder: Path | str,
    *,
    data: Split | Dataset,
    formats: Sequence[str] = ("onnx", "saved_model"),
    opset: int = 17,
    members: bool = False,
    precisions: Sequence[str] = (),
    calibration: Split | None = None,
    overwrite: bool = False,
) -> Manifest:
    """Write an export, and measure that its files give the probabilities of the ensemble.

    Args:
        model: Ensemble of members of any architecture, or a training run.
        folder: Folder to write. It appears whole or not at all.
        data: Test images that measure parity and accuracy. Of a ``Dataset``, the test images are taken,
            and the training images for ``calibration``.
        formats: Of ``onnx`` and ``saved_model``.
        opset: ONNX opset, 11 to 18.
        members: Whether to write each member as ``members/member_I.onnx`` too.
        precisions: Of ``float16`` and ``int8``: ONNX files of reduced precision.
        calibration: Training images, whose first 512 give int8 the range of its values.
        overwrite: Whether to replace an export in the same folder.

    Returns:
        The manifest, which is also written to ``manifest.json``.

    Raises:
        InputError: An argument cannot be used, a layer cannot be converted, a file differs from the ensemble
            or gives NaN, or the folder exists or cannot be written. Nothing is left behind.

    Examples:
        >>> import ncen_tf
        >>> data = ncen_tf.load_data("fashion_mnist_sample", test_examples=20)
        >>> ensemble = ncen_tf.build_ensemble(["resnet8"] * 2, (28, 28, 1), 10)
        >>> manifest = ncen_tf.export_ensemble(ensemble, "exports/own", data=data, precisions=["float16"])
        >>> manifest.parity["ensemble.onnx"].different_predictions
        0
    """
    folder = Path(folder)
    split, source = _test_images(data)
    if calibration is None and isinstance(data, Dataset):
        calibration = data.train
    wanted: dict[str, Any] = {"formats": tuple(formats), "precisions": tuple(precisions)}
    chosen = ExportSettings(opset=opset, members=members, **wanted)
    if "int8" in chosen.precisions and calibration is None:
        raise InputError("int8 needs training images as `calibration`.")
    if folder.exists() and not (overwrite and (folder / MANIFEST).is_file()):
        raise InputError(f"{folder} exists: choose another folder, or `overwrite` it if it is an export.")
    run = model if isinstance(model, TrainedRun) else None
    ensemble = run.ensemble if run else model
    if not isinstance(ensemble, Ensemble):
        raise InputError(f"`model` must be an Ensemble or a training run, got a {type(model).__name__}.")
    image_shape, expected = split.images.shape[1:], ensemble.members[0].input_shape[1:]
    if any(size not in (None, given) for size, given in zip(expected, image_shape, strict=True)):
        raise InputError(f"`data` has images of shape {image_shape}; the ensemble takes {expected}.")
    float32 = [in_float32(member) for member in ensemble.members]
    reference = predict_all(ensemble_predictor(float32, image_shape), split)
    about: dict[str, Any] = {
        "dataset": split.name,
        "class_names": _class_names(split, reference.shape[1]),
        "input": ImageInput(shape=("N", *image_shape)),
        "members": run.config.members if run else tuple(member.name for member in ensemble.members),
        "training": run.config if run else None,
        "epochs_trained": run.epochs_trained if run else None,
        "weights_sha256": _weights_sha256(float32),
    }
    metadata = to_jsonable_python(about)
    try:
        with replacing_directory(folder) as new:
            if "saved_model" in chosen.formats:
                save_saved_model(float32, image_shape, new / SAVED_MODEL)
            if "onnx" in chosen.formats:
                onnx.save(convert_to_onnx(float32, image_shape, metadata, opset), new / ONNX_FILE)
            if members:
                (new / MEMBERS).mkdir()
                for index, member in enumerate(float32):
                    converted = convert_to_onnx([member], image_shape, metadata | {"member": index}, opset)
                    onnx.save(converted, new / MEMBERS / f"member_{index}.onnx")
            predictors = whole_ensembles(new)
            parity = {name: measure_parity(name, p, reference, split) for name, p in predictors.items()}
            files = [reduce_precision(new / ONNX_FILE, name, calibration) for name in chosen.precisions]
            reduced = {file.name: measure_agreement(file, reference, split) for file in files}
            manifest = Manifest(
                **about,
                opset=opset,
                accuracy=Accuracy(
                    clean_accuracy=accuracy(reference, split),
                    test_examples=len(split),
                    dataset_source=source,
                    predictions_sha256=predictions_sha256(reference),
                ),
                parity=parity,
                reduced_precision=reduced,
                environment=describe_environment(),
                files=describe_files(new),
            )
            manifest.write(new / MANIFEST)
    except tf.errors.OpError as error:
        raise InputError(f"{folder} cannot be written: {' '.join(str(error).split())[:200]}") from error
    return manifest


def verify_export(folder: Path | str, data: Split | Dataset | None = None) -> Manifest:
    """Check the files of an export against its manifest, and their answers where data is given.

    Args:
        folder: Folder of an export.
        data: Test images that the export was measured with, or a dataset that begins with them. They are
            needed to compare the answers: parity among the files, the predicted classes, and the accuracy
            of files of reduced precision.

    Returns:
        The manifest. With ``data``, its ``parity`` is measured anew against the first file that holds the
        whole ensemble, and its ``reduced_precision`` is measured anew.

    Raises:
        InputError: A file is missing or changed, cannot be loaded, or gives other answers; it is named.

    Examples:
        >>> import ncen_tf
        >>> data = ncen_tf.load_data("fashion_mnist_sample", test_examples=20)
        >>> ensemble = ncen_tf.build_ensemble(["resnet8"] * 2, (28, 28, 1), 10)
        >>> _ = ncen_tf.export_ensemble(ensemble, "exports/own", data=data.test, formats=["onnx"])
        >>> manifest = ncen_tf.verify_export("exports/own")  # Hashes.
        >>> manifest = ncen_tf.verify_export("exports/own", data)  # Answers, too.
    """
    folder = Path(folder)
    manifest = Manifest.read(folder)
    manifest.check_files(folder)
    if data is None:
        return manifest
    split, examples = _test_images(data)[0], manifest.accuracy.test_examples
    if len(split) < examples:
        raise InputError(f"{folder} was measured with {examples} images; `data` has {len(split)}.")
    split = split if len(split) == examples else split.sample(examples)
    predictors = whole_ensembles(folder)
    if not predictors:
        raise InputError(f"{folder} has neither {ONNX_FILE} nor {SAVED_MODEL}.")
    first = next(iter(predictors))
    reference = predict_all(predictors[first], split)
    parity = {name: measure_parity(name, p, reference, split) for name, p in predictors.items()}
    if predictions_sha256(reference) != manifest.accuracy.predictions_sha256:
        raise InputError(
            f"{folder / first} is the exported file, but does not predict the classes that the manifest "
            f"records: check that `data` begins with the {examples} images that it was measured with."
        )
    reduced = {}
    for name, recorded in manifest.reduced_precision.items():
        reduced[name] = measure_agreement(folder / name, reference, split)
        for figure, value in reduced[name].model_dump().items():
            if abs(value - getattr(recorded, figure)) > REDUCED_DRIFT:
                raise InputError(
                    f"{folder / name} gives other answers here than where it was exported: {figure} is "
                    f"{value:.4f}, the manifest records {getattr(recorded, figure):.4f}."
                )
    return manifest.model_copy(update={"parity": parity, "reduced_precision": reduced})


def whole_ensembles(folder: Path) -> dict[str, Predict]:
    """Open everything in an export that must be the whole ensemble; members by the mean of their answers."""
    names = [name for name in (SAVED_MODEL, ONNX_FILE) if (folder / name).exists()]
    predictors = {name: file_predictor(folder / name) for name in names}
    members = [file_predictor(file) for file in sorted((folder / MEMBERS).glob("*.onnx"))]

    def mean(images: Array) -> Array:
        return np.mean([predict(images) for predict in members], axis=0)

    return predictors | ({MEMBERS: mean} if members else {})


def predict_all(predict: Predict, split: Split, batch_size: int = 256) -> Array:
    """Compute the probabilities [N, classes] of all images of a split."""
    starts = range(0, len(split), batch_size)
    return np.concatenate([predict(split[i : i + batch_size].float_images()) for i in starts])


def measure_parity(name: str, predict: Predict, reference: Array, split: Split) -> Parity:
    """Compare answers with the reference on a split, and answers in batches of several sizes.

    Raises:
        InputError: A probability differs by :data:`MAX_DIFFERENCE` or more, or a predicted class differs.
    """
    probabilities = predict_all(predict, split)
    difference = np.abs(probabilities - reference)
    by_size = [predict_all(predict, split[:BATCHED_IMAGES], size) for size in BATCH_SIZES]
    parity = Parity(
        images=len(split),
        max_difference=float(difference.max()),
        mean_difference=float(difference.mean()),
        different_predictions=int((probabilities.argmax(1) != reference.argmax(1)).sum()),
        max_difference_between_batch_sizes=max(float(np.abs(b - by_size[0]).max()) for b in by_size),
    )
    largest = max(parity.max_difference, parity.max_difference_between_batch_sizes)
    if largest >= MAX_DIFFERENCE or parity.different_predictions:
        raise InputError(
            f"{name} is not the trained ensemble: probabilities differ by up to "
            f"{parity.max_difference:.1e}, {parity.different_predictions} of {parity.images} predictions "
            f"differ, batch sizes differ by up to {parity.max_difference_between_batch_sizes:.1e}."
        )
    return parity


def measure_agreement(file: Path, reference: Array, split: Split) -> ReducedPrecision:
    """Measure the accuracy of a file of reduced precision, and its agreement with the ensemble."""
    probabilities = predict_all(file_predictor(file), split)
    same = float((probabilities.argmax(1) == reference.argmax(1)).mean())
    return ReducedPrecision(clean_accuracy=accuracy(probabilities, split), agreement_with_float32=same)


def accuracy(probabilities: Array, split: Split) -> float:
    """Compute the share of correct predictions, in [0, 1]."""
    return float((probabilities.argmax(1) == split.labels).mean())


def predictions_sha256(probabilities: Array) -> str:
    """Hash the predicted classes."""
    return hashlib.sha256(probabilities.argmax(1).astype(np.uint16).tobytes()).hexdigest()


def _test_images(data: Split | Dataset) -> tuple[Split, str | None]:
    """Return the test images and the kind of source that they were read from."""
    return (data.test, data.source) if isinstance(data, Dataset) else (data, None)


def _class_names(split: Split, classes: int) -> tuple[str, ...]:
    names, numbers = split.class_names, tuple(map(str, range(classes)))
    if len(names) == classes:
        return names
    if len(names) < classes and names == numbers[: len(names)]:
        return numbers  # A split without class names numbers the classes that its images have.
    raise InputError(f"`data` has {len(names)} classes, and the ensemble gives {classes} logits.")


def _weights_sha256(members: Sequence[keras.Model]) -> str:
    digest = hashlib.sha256()
    for member in members:
        for weight in member.get_weights():
            digest.update(weight.astype("<f4").tobytes())
    return digest.hexdigest()
