"""Gradients through residual branches are scaled, nothing else."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from ncen_tf.attack.objectives import Objective
from ncen_tf.attack.registry import ATTACKS
from ncen_tf.attack.skip_gradient import decay_residual_gradients
from ncen_tf.base.errors import InputError
from ncen_tf.ensembles.batch_norm import BatchNorm
from ncen_tf.ensembles.resnet import build_resnet
from tests.attack.conftest import Examples
from tests.attack.stand_in import KerasTarget


def test_skip_gradient_scales_only_the_residual_branch() -> None:
    image = keras.Input((2, 2, 1))
    branch = keras.layers.Conv2D(1, 1, use_bias=False, kernel_initializer=keras.initializers.Constant(3.0))(
        image
    )
    for inputs in ([branch, image], [image, branch]):
        model = keras.Model(image, keras.layers.Flatten()(keras.layers.Add()(inputs)))
        x = tf.ones([1, 2, 2, 1])
        for gamma in (1.0, 0.25):
            decayed = decay_residual_gradients(model, gamma)
            with tf.GradientTape() as tape:
                tape.watch(x)
                total = tf.reduce_sum(decayed(x))
            assert float(total) == 16.0
            np.testing.assert_allclose(tape.gradient(total, x), np.full((1, 2, 2, 1), 1 + 3 * gamma))


def test_skip_gradient_finds_the_branches_of_a_member() -> None:
    """Option-A shortcuts are layers too; the branch is what ends in BatchNorm."""
    model = build_resnet(8, (8, 8, 1), seed=0)
    decayed = decay_residual_gradients(model, 0.2)
    images = tf.constant(np.random.default_rng(0).uniform(size=(2, 8, 8, 1)).astype(np.float32))
    np.testing.assert_array_equal(decayed(images, training=False), model(images, training=False))
    scaled = [layer for layer in decayed.layers if isinstance(layer, keras.layers.Lambda)]
    assert len(scaled) == 3
    assert all(isinstance(layer.input._keras_history.operation, BatchNorm) for layer in scaled)


def test_skip_gradient_needs_residual_keras_layers(target: KerasTarget, examples: Examples) -> None:
    attack = ATTACKS["SGM"](eps=0.1)
    batch = tf.constant(examples[0][:2]), tf.constant(examples[1][:2])
    with pytest.raises(InputError, match="SGM needs a Keras model; stand-in is none"):
        attack(Objective(target, "ensemble"), *batch, seed=0)
    with pytest.raises(InputError, match="residual Add"):
        decay_residual_gradients(keras.Sequential([keras.Input((2,)), keras.layers.Dense(2)]), 0.5)
