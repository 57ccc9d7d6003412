"""Run by test_training in a process of its own, because devices are split before TensorFlow's first use.

Fits ensembles on two replicas whose last batch has a single image, and prints the number of variables that
hold NaN afterwards, for each kind of member.
"""

import contextlib
from typing import Any

import keras
import numpy as np
import numpy.typing as npt
import tensorflow as tf

import ncen_tf
from ncen_tf.ensembles.batch_norm import BatchNorm
from ncen_tf.ensembles.regularizers import Regularizer

Array = npt.NDArray[Any]

SHAPE, CLASSES = (6, 6, 1), 4


def member(normalization: keras.layers.Layer, dropout: float = 0.2) -> keras.Model:
    """Build a small member with a normalisation layer."""
    return keras.Sequential(
        [
            keras.Input(SHAPE),
            keras.layers.Conv2D(3, 3),
            normalization,
            keras.layers.Dropout(dropout),
            keras.layers.Flatten(),
            keras.layers.Dense(CLASSES),
        ]
    )


def main() -> None:
    """Fit each kind of member and print what is not finite."""
    cpu = tf.config.list_physical_devices("CPU")[0]
    tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
    generator = np.random.default_rng(0)
    images = generator.random((9, *SHAPE), np.float32)
    labels = np.arange(9) % CLASSES
    strategy = tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])
    for name, make, regularizer in (
        ("own", BatchNorm, ncen_tf.NCE()),
        ("synchronized", lambda: BatchNorm(synchronized=True), ncen_tf.NCE()),
        ("keras", keras.layers.BatchNormalization, None),
    ):
        with strategy.scope():
            ensemble = ncen_tf.Ensemble([member(make()) for _ in range(2)])
            ensemble.compile(
                keras.optimizers.SGD(0.01), regularizer, metrics=["sparse_categorical_crossentropy"]
            )
        history = ensemble.fit(images, labels, batch_size=4, epochs=2, verbose=0, shuffle=False).history
        measured = ensemble.evaluate(images, labels, batch_size=4, verbose=0)
        bad = sum(not np.isfinite(np.asarray(v)).all() for v in ensemble.variables)
        bad += sum(not np.isfinite(values).all() for values in (*history.values(), measured))
        print(name, bad, ensemble.predict(images, batch_size=4, verbose=0).shape == (9, CLASSES))
    print("difference", difference_to_one_device(strategy, ncen_tf.NCE(), images, labels))
    # Each replica pairs its own images, so both get the same ones.
    twice = np.concatenate([images[:2], images[:2], images[4:6], images[4:6]])
    print("dverge", difference_to_one_device(strategy, ncen_tf.DVERGE(steps=2), twice, labels[[0, 1] * 4]))


def difference_to_one_device(
    strategy: tf.distribute.Strategy, regularizer: Regularizer, images: Array, labels: Array
) -> float:
    """Fit with shared moments on two replicas and on one device, and compare the weights."""
    start: list[Array] = []
    fitted = []
    for scope in (strategy.scope(), contextlib.nullcontext()):
        with scope:
            ensemble = ncen_tf.Ensemble([member(BatchNorm(synchronized=True), dropout=0.0) for _ in range(2)])
            ensemble.compile(keras.optimizers.SGD(0.01), regularizer)
            if start:
                ensemble.set_weights(start)
            start = ensemble.get_weights()
        ensemble.fit(images, labels, batch_size=4, epochs=2, verbose=0, shuffle=False)
        fitted.append(ensemble.get_weights())
    return max(float(np.abs(one - other).max()) for one, other in zip(*fitted, strict=True))


if __name__ == "__main__":
    main()
