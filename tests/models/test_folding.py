"""Folded members against the members: answers and input gradients."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from ncen_tf.models.batch_norm import BatchNorm
from ncen_tf.models.folding import fold_batch_norm
from ncen_tf.models.resnet import build_resnet


def unsettle(model: keras.Model) -> keras.Model:
    """Give BatchNorm weights and statistics other than the initial ones."""
    generator = np.random.default_rng(3)
    for layer in model.layers:
        if isinstance(layer, BatchNorm):
            layer.set_weights([generator.uniform(0.5, 2, weight.shape) for weight in layer.get_weights()])
    return model


def branching() -> keras.Model:
    """One convolution that can be folded, and three that cannot: shared, an output, and activated."""
    image = keras.Input((6, 6, 2))
    folded = BatchNorm()(keras.layers.Conv2D(3, 3, padding="same", name="folded")(image))
    shared = keras.layers.Conv2D(3, 3, padding="same", name="shared")(folded)
    joined = keras.layers.Add()([BatchNorm()(shared), shared])
    activated = keras.layers.Conv2D(3, 3, activation="relu", padding="same", name="activated")(joined)
    kept = keras.layers.Conv2D(3, 3, padding="same", name="kept")(BatchNorm()(activated))
    return keras.Model(image, [BatchNorm()(kept), kept])


def answers_and_gradient(model: keras.Model, images: tf.Tensor) -> list[np.ndarray]:
    with tf.GradientTape() as tape:
        tape.watch(images)
        answers = keras.tree.flatten(model(images, training=False))
        total = tf.add_n([tf.reduce_sum(tf.sin(answer)) for answer in answers])
    return [*(answer.numpy() for answer in answers), tape.gradient(total, images).numpy()]


@pytest.mark.parametrize("name", ["resnet14", "branching"])
def test_a_folded_member_answers_as_the_member(name: str) -> None:
    member = unsettle(build_resnet(14, (9, 9, 2), seed=0) if name == "resnet14" else branching())
    folded = fold_batch_norm(member)
    images = tf.constant(np.random.default_rng(0).uniform(size=(5, *member.input_shape[1:])), tf.float32)
    for found, expected in zip(
        answers_and_gradient(folded, images), answers_and_gradient(member, images), strict=True
    ):
        np.testing.assert_allclose(found, expected, atol=2e-5 * np.abs(expected).max())


def test_only_what_can_be_folded_is() -> None:
    member = unsettle(build_resnet(14, (9, 9, 2), seed=0))
    assert not [layer for layer in fold_batch_norm(member).layers if isinstance(layer, BatchNorm)]
    assert len([layer for layer in fold_batch_norm(branching()).layers if isinstance(layer, BatchNorm)]) == 3


def test_the_member_stays_as_it_is() -> None:
    member = unsettle(build_resnet(8, (9, 9, 2), seed=0))
    before = member.get_weights()
    fold_batch_norm(member)
    for found, expected in zip(member.get_weights(), before, strict=True):
        np.testing.assert_array_equal(found, expected)
    assert member.layers[-1].output is member.output


def test_what_cannot_be_looked_into_is_left_alone() -> None:
    shared = keras.layers.Conv2D(2, 1)
    image = keras.Input((4, 4, 2))
    twice = keras.Model(image, BatchNorm()(shared(shared(image))))
    assert fold_batch_norm(twice) is twice
    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        rough = build_resnet(8, (9, 9, 1), seed=0)
    finally:
        keras.config.set_dtype_policy("float32")
    assert fold_batch_norm(rough) is rough
