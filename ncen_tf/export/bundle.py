"""An export: model files and the manifest that proves them, written whole or not at all."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import onnx
import tensorflow as tf

from ncen_tf.data.dataset import Dataset
from ncen_tf.base.environment import describe_environment
from ncen_tf.base.errors import InputError
from ncen_tf.export.manifest import FORMAT, MANIFEST, MEMBERS, ONNX_FILE, SAVED_MODEL, describe_files
from ncen_tf.export.onnx_file import DEFAULT_OPSET, convert_to_onnx
from ncen_tf.export.parity import file_predictor, keras_predictor, predict_all
from ncen_tf.export.proof import (
    accuracy,
    measure_agreement,
    predictions_sha256,
    prove_parity,
    whole_ensembles,
)
from ncen_tf.export.reduced_precision import reduce_precision
from ncen_tf.export.saved_model import save_saved_model
from ncen_tf.base.files import replacing_directory, write_json
from ncen_tf.ensembles.ensemble import Ensemble
from ncen_tf.train.trained import TrainedEnsemble

FORMATS = ("onnx", "saved_model")


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
    shape = dataset.image_shape
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
                name: prove_parity(name, predict, reference, dataset.test)
                for name, predict in whole_ensembles(folder).items()
            }
            reduced = {}
            for precision in onnx_precisions:
                file = reduce_precision(folder / ONNX_FILE, precision, dataset.train)
                reduced[file.name] = measure_agreement(
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
        "members": list(trained.config.members),
        "training_flags": {n: str(v) for n, v in trained.config.flat().items() if v is not None},
        "epochs_trained": trained.epochs_done,
        "weights_sha256": trained.weights_sha256(),
    }
