"""Diagnostics of members' gradients against NumPy, on members whose gradients are known."""

import itertools

import keras
import numpy as np
import pytest
import tensorflow as tf

from ncen_tf.data.dataset import Split
from ncen_tf.data.pipeline import evaluation_batches
from ncen_tf.ensembles.ensemble import Ensemble
from ncen_tf.train.evaluation import Evaluator


def test_diagnostics_are_means_over_all_examples() -> None:
    """Linear members on 11 images in batches of 4: d CE / d x = (p - onehot) W^T."""
    generator = np.random.default_rng(0)
    image = keras.Input((3, 3, 1))
    ensemble = Ensemble(
        [keras.Model(image, keras.layers.Dense(4)(keras.layers.Flatten()(image))) for _ in range(3)]
    )
    ensemble.set_weights([generator.normal(size=w.shape) for w in ensemble.get_weights()])
    pixels = generator.integers(0, 256, size=(11, 3, 3, 1)).astype(np.uint8)
    labels = generator.integers(0, 4, size=11).astype(np.int32)
    found = Evaluator(ensemble).measure(evaluation_batches(Split(pixels, labels), batch_size=4))

    gradients = []
    for member in ensemble.members:
        weights = member.get_weights()[0].astype(float)
        p = tf.nn.softmax(member(pixels / 255)).numpy().astype(float)
        gradients.append((p - np.eye(4)[labels]) @ weights.T)
    g = np.stack(gradients, axis=1)
    norms = np.linalg.norm(g, axis=2)
    deviations = norms / norms.mean(1, keepdims=True) - 1
    unit = g / norms[..., np.newaxis]
    mean = g.mean(1)
    assert found.gradient_norm == pytest.approx(norms.mean(0), rel=1e-4)
    assert found.norm_deviation == pytest.approx(deviations.mean(0), abs=1e-4)
    assert found.norm_spread == pytest.approx(np.sqrt((deviations**2).mean()), rel=1e-4)
    pairs = [(unit[:, i] * unit[:, j]).sum(1).mean() for i, j in itertools.combinations(range(3), 2)]
    assert found.pairwise_cosine == pytest.approx(np.mean(pairs), abs=1e-4)
    cosines = (unit * mean[:, np.newaxis]).sum(2) / np.linalg.norm(mean, axis=1)[:, np.newaxis]
    assert found.cosine_to_mean == pytest.approx(cosines.mean(0), abs=1e-4)
