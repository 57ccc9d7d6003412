"""What a training step costs with and without NCE, and whether the data keeps up.

python -m benchmarks.training_step
"""

import time

import keras
import tensorflow as tf

from benchmarks.timing import interleaved_medians, print_medians
from ncen_tf.data.datasets import DATASETS
from ncen_tf.data.loading import load_dataset
from ncen_tf.data.pipeline import training_batches
from ncen_tf.models.ensemble import build_ensemble
from ncen_tf.regularizers.nce import NCE
from ncen_tf.training.nc_ensemble import NCEnsemble

BATCH = 64


def main() -> None:
    dataset = load_dataset("fashion_mnist_sample")
    settings = {"epoch": 0, "seed": 0, "noise_eps": DATASETS["fashion_mnist"].noise_eps, "crop_padding": 4}
    batches = training_batches(dataset.train, dataset.spec, BATCH, **settings)
    batch = next(iter(batches))
    steps = {}
    for precision in ("float32", "mixed_bfloat16"):
        keras.config.set_dtype_policy(precision)
        for name, regularizer in (("CE", None), ("NCE", NCE())):
            ensemble = build_ensemble(["resnet20"] * 3, (28, 28, 1), ensemble_class=NCEnsemble)
            ensemble.compile(keras.optimizers.Adam(1e-3), regularizer)
            step = tf.function(ensemble.train_step)
            steps[f"{name} step, 3 x ResNet20, batch {BATCH}, {precision}"] = lambda s=step: s(batch)
    medians = interleaved_medians(steps)
    print_medians("Training step", medians)
    started = time.perf_counter()
    images = sum(len(labels) for _, labels in batches)
    rate = images / (time.perf_counter() - started)
    print(f"input pipeline alone: {rate:,.0f} images/s")
    for name, seconds in medians.items():
        print(f"{name}: {BATCH / seconds:,.0f} images/s")


if __name__ == "__main__":
    main()
