"""Run by test_multi_worker in two processes: ``python -m tests.train.two_workers FOLDER`` with TF_CONFIG.

Both train one ensemble with the trainer's own loop; the chief also trains it alone, and prints the largest
difference between the weights.
"""

import sys
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf

from ncen_tf.data.dataset import load_data
from ncen_tf.ensembles.ensemble import build_ensemble
from ncen_tf.ensembles.regularizers import NCE
from ncen_tf.train.claim import claimed_run
from ncen_tf.train.config import TrainingConfig
from ncen_tf.train.fit import fit_run
from ncen_tf.train.run_directory import RunDirectory
from ncen_tf.workers.cluster import Cluster
from ncen_tf.workers.connection import connect_workers

# 20 images twice an epoch in batches of 9: four that the workers split 4 + 5, and a last one split 2 + 2.
CONFIG = TrainingConfig(
    "fashion_mnist_sample",
    ("resnet8", "resnet8"),
    "nce",
    0.5,
    0.5,
    epochs=1,
    noise_eps=0.3,
    batch_size=9,
    learning_rate=0.01,
    strategy="multi_worker",
    sync_batch_norm=True,
)
CHECKPOINT_EVERY = 100


def trained_weights(strategy: tf.distribute.Strategy, run: RunDirectory) -> list[np.ndarray]:
    with strategy.scope():
        ensemble = build_ensemble(
            CONFIG.architecture, (28, 28, 1), sync_batch_norm=True, seed=0
        )
        # Adam would blow rounding up where a gradient is almost zero.
        ensemble.compile(keras.optimizers.SGD(CONFIG.learning_rate), NCE(0.5, 0.5))
        ensemble.optimizer.build(ensemble.trainable_variables)
    dataset = load_data(CONFIG.dataset, train_examples=20, test_examples=10)
    fit_run(ensemble, CONFIG, dataset, run, strategy, CHECKPOINT_EVERY)
    with strategy.scope():
        return [weight for member in ensemble.members for weight in member.get_weights()]


def main(folder: Path) -> None:
    keras.config.set_floatx("float64")  # rounding in float32 grows with every step
    cluster = Cluster.from_environment()
    with claimed_run(folder / "both", CONFIG, CHECKPOINT_EVERY, cluster) as run:
        both = trained_weights(connect_workers(cluster), run)
    if cluster.is_chief:
        alone_run = RunDirectory(folder / "alone")
        alone_run.open(CONFIG)
        alone = trained_weights(tf.distribute.get_strategy(), alone_run)
        print(max(float(np.abs(a - b).max()) for a, b in zip(both, alone, strict=True)))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
