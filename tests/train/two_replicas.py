"""Run by test_distribution in a process of its own, as devices are split before TensorFlow's first use.

Trains the same ensemble on one device and on two, with the trainer's own loop, and prints the largest
difference between their weights.
"""

import sys
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf

from ncen_tf.data.dataset import load_data
from ncen_tf.ensembles.ensemble import build_ensemble
from ncen_tf.ensembles.regularizers import NCE
from ncen_tf.train.config import TrainingConfig
from ncen_tf.train.fit import fit_run
from ncen_tf.train.run_directory import RunDirectory
from ncen_tf.train.strategy import make_strategy, split_device


def trained_weights(strategy_name: str, folder: Path) -> list[np.ndarray]:
    # 20 images twice an epoch in batches of 9: four split 5 + 4, and a last one split 2 + 2.
    config = TrainingConfig(
        "fashion_mnist_sample",
        ("resnet8", "resnet8"),
        "nce",
        0.5,
        0.5,
        epochs=2,
        noise_eps=0.3,
        batch_size=9,
        learning_rate=0.01,
        strategy=strategy_name,
        sync_batch_norm=True,
    )
    dataset = load_data(config.dataset, train_examples=20, test_examples=10)
    strategy = make_strategy(strategy_name)
    with strategy.scope():
        ensemble = build_ensemble(
            config.architecture, (28, 28, 1), sync_batch_norm=True, seed=0
        )
        # Adam would blow rounding up where a gradient is almost zero.
        ensemble.compile(keras.optimizers.SGD(config.learning_rate), NCE(0.5, 0.5))
        ensemble.optimizer.build(ensemble.trainable_variables)
    run = RunDirectory(folder / strategy_name)
    run.open(config)
    fit_run(ensemble, config, dataset, run, strategy, checkpoint_every=100)
    return [weight for member in ensemble.members for weight in member.get_weights()]


if __name__ == "__main__":
    split_device(2)
    keras.config.set_floatx("float64")  # rounding in float32 grows to 3e-5 in these ten steps
    assert len(tf.config.list_logical_devices("CPU")) == 2
    one, two = (trained_weights(name, Path(sys.argv[1])) for name in ("one_device", "mirrored"))
    assert make_strategy("auto").num_replicas_in_sync == 2
    print(max(float(np.abs(a - b).max()) for a, b in zip(one, two, strict=True)))
