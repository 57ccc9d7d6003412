"""The moving average of the weights: by hand, in what is measured, and in checkpoints."""

from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf

from ncen_tf import Ensemble
from ncen_tf.base.errors import InputError
from ncen_tf.data.dataset import Split
from ncen_tf.ensembles.batch_norm import BatchNorm
from ncen_tf.train.callbacks import Checkpoint, GradientDiagnostics
from ncen_tf.train.weight_average import WeightAverage

IMAGES = np.random.default_rng(0).integers(0, 256, (20, 6, 6, 1)).astype(np.uint8)
LABELS = (np.arange(20) % 4).astype(np.int32)


class Recorder(keras.callbacks.Callback):
    """Keeps the weights after each step."""

    def __init__(self) -> None:
        super().__init__()
        self.weights: list[list[np.ndarray]] = []

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        self.weights.append([np.array(w, np.float64) for w in self.model.get_weights()])


def tiny() -> Ensemble:
    keras.utils.set_random_seed(1)
    members = [
        keras.Sequential([keras.Input((6, 6, 1)), keras.layers.Flatten(), keras.layers.Dense(4), BatchNorm()])
        for _ in range(2)
    ]
    ensemble = Ensemble(members)
    ensemble.compile(keras.optimizers.LossScaleOptimizer(keras.optimizers.Adam(0.05)))
    ensemble.optimizer.build(ensemble.trainable_variables)
    return ensemble


def fit(ensemble: Ensemble, epochs: int, *callbacks: keras.callbacks.Callback) -> dict[str, list[float]]:
    history = ensemble.fit(
        IMAGES, LABELS, batch_size=8, epochs=epochs, shuffle=False, callbacks=[*callbacks], verbose=0
    )
    values: dict[str, list[float]] = history.history
    return values


def test_the_average_is_that_of_the_steps_and_predicts_at_the_end() -> None:
    ensemble, recorder = tiny(), Recorder()
    initial = [np.array(w, np.float64) for w in ensemble.get_weights()]
    fit(ensemble, 4, recorder, WeightAverage(0.4))
    expected = initial
    for t, weights in enumerate(recorder.weights, 1):
        m = min(0.4, (1 + t) / (10 + t))
        expected = [m * old + (1 - m) * new for old, new in zip(expected, weights, strict=True)]
    assert len(recorder.weights) == 12
    for found, one in zip(ensemble.get_weights(), expected, strict=True):
        np.testing.assert_allclose(found, one, rtol=1e-4, atol=1e-6)
    # In inference mode, with the averaged statistics.
    logits = ensemble.member_logits(tf.constant(IMAGES)).numpy()
    for index in range(2):
        kernel, bias, gamma, beta, mean, variance = expected[6 * index : 6 * index + 6]
        z = IMAGES.reshape(20, 36) / 255 @ kernel + bias
        z = gamma * (z - mean) / np.sqrt(variance + 1e-5) + beta
        np.testing.assert_allclose(logits[:, index], z, rtol=1e-3, atol=1e-4)


def test_the_average_is_measured_and_training_goes_on_without_it() -> None:
    test = Split(IMAGES, LABELS)
    alone, averaged, average = tiny(), tiny(), WeightAverage(0.9)
    recorders = Recorder(), Recorder()
    fit(alone, 2, recorders[0])
    found = fit(averaged, 2, recorders[1], average, GradientDiagnostics(test, average))
    for one, other in zip(recorders[0].weights, recorders[1].weights, strict=True):
        for a, b in zip(one, other, strict=True):
            np.testing.assert_array_equal(a, b)
    # At the end, the model holds the average that the last epoch was measured with.
    measured = GradientDiagnostics(test)
    measured.set_model(averaged)
    assert measured.measure()["ce"] == found["test_ce"][-1]


def test_a_resumed_average_is_that_of_an_uninterrupted_training(tmp_path: Path) -> None:
    whole, first, second = tiny(), tiny(), tiny()
    fit(whole, 3, WeightAverage(0.9))
    average = WeightAverage(0.9)
    fit(first, 1, average, Checkpoint(tmp_path, average=average))
    average = WeightAverage(0.9)
    fit(second, 3, average, Checkpoint(tmp_path, average=average))
    for one, other in zip(whole.get_weights(), second.get_weights(), strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("momentum", [1.0, -0.1, float("nan")])
def test_a_momentum_out_of_range_is_refused(momentum: float) -> None:
    with pytest.raises(InputError, match="`momentum` must be in"):
        WeightAverage(momentum)
