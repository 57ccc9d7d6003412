"""Run by test_distribution: trains one ensemble on several replicas and on one device.

``python -m tests.train.replicas FOLDER`` splits the CPU into two devices, or takes the workers of TF_CONFIG,
and prints the number of replicas and the largest difference between the weights.
"""

import os
import sys
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf

import ncen_tf
from ncen_tf.ensembles.batch_norm import BatchNorm
from ncen_tf.train.devices import connect_workers, is_chief, make_strategy, split_device
from ncen_tf.train.loop import fit_run
from ncen_tf.train.run_directory import RunDirectory

# 20 images twice an epoch in batches of 13: three that are split 6 + 7, and a last one of a single image,
# which leaves nothing for the first replica.
CONFIG = ncen_tf.TrainConfig(
    members=("tests.train.replicas:member",) * 2,
    epochs=2,
    batch_size=13,
    learning_rate=0.01,
    ema_momentum=0.5,
    checkpoint_every=100,
)
STEPS = 4


def member(image_shape: tuple[int, int, int], classes: int) -> keras.Model:
    """Build a member that is traced in a fraction of a ResNet's time."""
    return keras.Sequential(
        [
            keras.Input(image_shape),
            keras.layers.Conv2D(4, 3, strides=2),
            BatchNorm(synchronized=True),
            keras.layers.LeakyReLU(0.1),
            keras.layers.Conv2D(8, 3, strides=2),
            BatchNorm(synchronized=True),
            keras.layers.LeakyReLU(0.1),
            keras.layers.Flatten(),
            keras.layers.Dense(classes),
        ]
    )


def trained_weights(strategy: tf.distribute.Strategy, folder: Path) -> list[np.ndarray]:
    with strategy.scope():
        ensemble = ncen_tf.build_ensemble(CONFIG.members, (28, 28, 1), sync_batch_norm=True, seed=0)
        # Adam would blow rounding up where a gradient is almost zero.
        ensemble.compile(keras.optimizers.SGD(CONFIG.learning_rate), ncen_tf.NCE(0.5, 0.5))
        ensemble.optimizer.build(ensemble.trainable_variables)
    data = ncen_tf.load_data("fashion_mnist_sample", train_examples=20, test_examples=10)
    fit_run(ensemble, CONFIG, data, RunDirectory(folder), strategy, STEPS, progress=False)
    with strategy.scope():
        return [np.array(weight) for member in ensemble.members for weight in member.get_weights()]


def compare(folder: Path) -> str | None:
    """Train on several replicas and on one device.

    Returns:
        Number of replicas and largest difference between the weights, on the chief.
    """
    keras.config.set_floatx("float64")  # rounding in float32 grows with every step
    several_workers = "TF_CONFIG" in os.environ
    if not several_workers:
        split_device(2)
    strategy = connect_workers() if several_workers else make_strategy("auto")
    chief = is_chief(strategy)
    several = trained_weights(strategy, folder / ("chief" if chief else "worker"))
    if not chief:
        return None
    alone = trained_weights(tf.distribute.get_strategy(), folder / "alone")
    difference = max(float(np.abs(a - b).max()) for a, b in zip(several, alone, strict=True))
    return f"{strategy.num_replicas_in_sync} {difference}"


def compare_on_ray(settings: dict[str, Path]) -> None:
    """Compare as a worker of Ray Train; the chief writes ``result.txt``."""
    result = compare(settings["folder"])
    if result:
        (settings["folder"] / "result.txt").write_text(result)


if __name__ == "__main__":
    print(compare(Path(sys.argv[1])) or "")
