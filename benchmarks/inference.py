"""Latency of an exported ensemble: ONNX in onnxruntime against its SavedModel and Keras.

python -m benchmarks.inference RUN EXPORT
"""

import sys
from pathlib import Path

import numpy as np

from benchmarks.timing import interleaved_medians, print_medians
from ncen_tf.exporting.parity import file_predictor, keras_predictor
from ncen_tf.training.run_directory import RunDirectory
from ncen_tf.training.trained import load_trained


def main(run: Path, export: Path) -> None:
    predictors = {
        "SavedModel": file_predictor(export / "saved_model"),
        "Keras, tf.function": keras_predictor(load_trained(RunDirectory(run)).ensemble),
        "ONNX float32": file_predictor(export / "ensemble.onnx"),
    }
    for path in sorted(export.glob("ensemble.*.onnx")):
        predictors[f"ONNX {path.suffixes[-2].lstrip('.')}"] = file_predictor(path)
    for batch in (1, 64, 256):
        images = np.random.default_rng(0).uniform(size=(batch, 28, 28, 1)).astype(np.float32)
        candidates = {name: lambda p=predict, x=images: p(x) for name, predict in predictors.items()}
        print_medians(f"Inference, batch {batch}", interleaved_medians(candidates))


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
