"""Attacks meant for transfer, DIM and SGM: the gradients that they take instead of the target's own."""

import math
from collections.abc import Callable

import keras
import numpy as np
import numpy.typing as npt
import pytest
import tensorflow as tf

from ncen_tf.attack.iterative import DiverseInput, MomentumIterative
from ncen_tf.attack.objectives import Objective, RemainingExamples
from ncen_tf.attack.skip_gradient import SkipGradient, decay_residual_gradients
from ncen_tf.base.errors import InputError
from ncen_tf.ensembles.batch_norm import BatchNorm
from ncen_tf.ensembles.resnet import build_resnet
from ncen_tf.targets.target import Target
from ncen_tf.targets.tensorflow_targets import KerasTarget
from tests.attack.helpers import Examples

Array = npt.NDArray[np.float32]


def test_diverse_input_without_diversity_is_momentum(target: KerasTarget, examples: Examples) -> None:
    objective = Objective(target, "ensemble")
    batch = examples[0][:8], examples[1][:8]
    plain = MomentumIterative(eps=0.1, steps=3, step_size=0.02)(objective, *batch, seed=0)
    same = DiverseInput(eps=0.1, steps=3, step_size=0.02, least_scale=1.0)(objective, *batch, seed=0)
    assert np.mean(np.abs(plain - same) > 1e-5) < 0.002


class LinearImages(Target):
    """One linear member of 28 x 28 images; keeps the images it is shown."""

    description, sha256, image_shape, classes, members = "linear images", "", (28, 28, 1), 3, 1
    weights = np.random.default_rng(0).normal(size=(784, 3)).astype(np.float32)
    shown: Array

    def logits(self, images: Array) -> Array:
        self.shown = images
        return (images.reshape(-1, 784) @ self.weights)[:, np.newaxis]

    def linearize(self, images: Array) -> tuple[Array, Callable[[Array], Array]]:
        return self.logits(images), lambda u: (u[:, 0] @ self.weights.T).reshape(-1, 28, 28, 1)


def test_diverse_input_differentiates_shrunk_and_shifted_copies(examples: Examples) -> None:
    attack = DiverseInput(eps=0.1, probability=1.0, least_scale=0.5)
    target, images, labels = LinearImages(), examples[0][:2], np.zeros(2, np.int32)
    remaining, sizes = RemainingExamples(Objective(target, "ensemble"), images, labels), set()
    for seed in range(20):
        gradients, _ = attack.gradients(remaining, images, np.random.default_rng(seed))
        generator = np.random.default_rng(seed)  # the same choices, in TensorFlow
        generator.random()
        size = math.ceil(generator.uniform(0.5, 1.0) * 28)
        top, left = (int(generator.integers(28 - size + 1)) for _ in range(2))
        x = tf.constant(images)
        with tf.GradientTape() as tape:
            tape.watch(x)
            shrunk = tf.image.resize(x, (size, size), method="nearest")
            copy = tf.image.pad_to_bounding_box(shrunk, top, left, 28, 28)
            logits = tf.reshape(copy, [2, -1]) @ target.weights
            loss = tf.nn.sparse_softmax_cross_entropy_with_logits(labels, logits)
        np.testing.assert_array_equal(target.shown, copy)
        expected, found = tape.gradient(loss, x).numpy(), gradients
        scales = [np.abs(g).max(axis=(1, 2, 3), keepdims=True) for g in (expected, found)]
        np.testing.assert_allclose(found / scales[1], expected / scales[0], atol=1e-5)
        sizes.add(size)
    assert len(sizes) > 5


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


def test_skip_gradient_needs_residual_keras_layers(examples: Examples) -> None:
    objective = Objective(LinearImages(), "ensemble")
    with pytest.raises(InputError, match="SGM needs a Keras model; linear images is none"):
        SkipGradient(eps=0.1)(objective, examples[0][:2], np.zeros(2, np.int32), seed=0)
    with pytest.raises(InputError, match="residual Add"):
        decay_residual_gradients(keras.Sequential([keras.Input((2,)), keras.layers.Dense(2)]), 0.5)
