"""d(Loss)/d(weights) of a whole ensemble against float64 central differences.

The penalty is a function of input gradients, so its own gradient needs second derivatives of every
layer. This is the project's most important test: with plain Keras BatchNormalization it fails.
"""

from collections.abc import Callable, Iterator
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf

from ncen_tf.ensembles.batch_norm import BatchNorm
from ncen_tf.ensembles.ensemble import Ensemble
from ncen_tf.ensembles.losses import losses_per_example
from ncen_tf.ensembles.penalties import CrossEntropyOn
from ncen_tf.ensembles.regularizers import ADP, GAL, GPMR, NCE, NCL, TRS, Regularizer
from ncen_tf.ensembles.resnet import SubsampleShortcut

Normalization = Callable[[], keras.layers.Layer]


@pytest.fixture(autouse=True)
def _float64() -> Iterator[None]:
    # Both: a policy that another test has set once hides a later change of floatx.
    keras.config.set_floatx("float64")
    keras.config.set_dtype_policy("float64")
    yield
    keras.config.set_floatx("float32")
    keras.config.set_dtype_policy("float32")


def small_member(normalization: Normalization) -> keras.Model:
    """Convolution, normalisation, LeakyReLU and an option-A shortcut, as in a ResNet, but small."""
    image = keras.Input((5, 5, 1))
    x = keras.layers.LeakyReLU(0.1)(normalization()(keras.layers.Conv2D(2, 3, padding="same")(image)))
    y = keras.layers.Conv2D(4, 3, 2)(keras.layers.ZeroPadding2D(1)(x))
    x = keras.layers.Add()([normalization()(y), SubsampleShortcut(4)(x)])
    x = keras.layers.GlobalAveragePooling2D()(keras.layers.LeakyReLU(0.1)(x))
    return keras.Model(image, keras.layers.Dense(5)(x))


def worst_relative_error(
    normalization: Normalization, regularizer: Regularizer | None, ce_on: CrossEntropyOn = "logits"
) -> float:
    """Largest over weight tensors of |analytic - central difference| / |central difference|."""
    keras.utils.set_random_seed(3)
    ensemble = Ensemble([small_member(normalization) for _ in range(3)])
    ensemble.compile(regularizer=regularizer, ce_on=ce_on)
    generator = np.random.default_rng(5)
    images = tf.constant(generator.uniform(size=(4, 5, 5, 1)))
    labels = tf.constant(generator.integers(0, 5, size=4).astype(np.int32))

    moving = [(v, v.numpy()) for v in ensemble.non_trainable_variables]

    @tf.function
    def loss() -> tf.Tensor:
        for variable, value in moving:  # The search of TRS depends on them.
            variable.assign(value)
        return tf.reduce_mean(losses_per_example(ensemble, [images] * 3, labels, training=True)[0])

    with tf.GradientTape() as tape:
        value = loss()
    gradients = tape.gradient(value, ensemble.trainable_variables)
    errors = []
    step = 1e-5
    for variable, gradient in zip(ensemble.trainable_variables, gradients, strict=True):
        analytic = gradient.numpy().ravel()
        start = variable.numpy()
        chosen = generator.permutation(start.size)[:4]
        numeric = []
        for index in chosen:
            values = []
            for sign in (1, -1):
                moved = start.ravel().copy()
                moved[index] += sign * step
                variable.assign(moved.reshape(start.shape))
                values.append(float(loss()))
            numeric.append((values[0] - values[1]) / (2 * step))
        variable.assign(start)
        scale = max(float(np.abs(numeric).max()), 1e-3)
        errors.append(float(np.abs(analytic[chosen] - numeric).max()) / scale)
    return max(errors)


@pytest.mark.parametrize("form", ["paper", "released"])
def test_gradient_of_the_penalty_matches_finite_differences(form: Any) -> None:
    assert worst_relative_error(BatchNorm, NCE(1.0, 1.0, form)) < 1e-6


@pytest.mark.parametrize(
    "regularizer", [GAL(1.0), GPMR(1.0, 10.0), ADP(1.0, 1.0), NCL(1.0), TRS(1.0, 1.0, 0.1, 3)]
)
def test_gradient_of_the_baselines_penalties_matches_finite_differences(regularizer: Regularizer) -> None:
    assert worst_relative_error(BatchNorm, regularizer) < 1e-6


@pytest.mark.parametrize("ce_on", ["logits", "probabilities"])
def test_gradient_of_cross_entropy_matches_finite_differences(ce_on: CrossEntropyOn) -> None:
    assert worst_relative_error(BatchNorm, None, ce_on) < 1e-6
    assert worst_relative_error(BatchNorm, NCE(0.5, -0.5), ce_on) < 1e-6


def test_plain_keras_batch_normalization_would_be_wrong() -> None:
    """First derivatives agree, second ones do not: the reason why the project has its own layer."""
    plain = keras.layers.BatchNormalization
    assert worst_relative_error(plain, None) < 1e-6
    assert worst_relative_error(plain, NCE(1.0, 1.0)) > 1e-3
