"""The fused kernels against the formula in float64: values, first and second derivatives."""

import keras
import numpy as np
import numpy.typing as npt
import pytest
import tensorflow as tf

from ncen_tf.ensembles import batch_norm
from ncen_tf.ensembles.batch_norm import BatchNorm

SHAPES = [(8, 6, 5, 3), (16, 4), (3, 7, 2), (9, 1, 1, 70)]
Derivatives = dict[str, npt.NDArray[np.float64]]


def layer_of(dtype: str, channels: int) -> BatchNorm:
    """A layer with weights that are not the initial ones; its sums are in ``dtype``."""
    layer = BatchNorm(dtype=dtype)
    layer.build((None, channels))
    generator = np.random.default_rng(1)
    layer.gamma.assign(generator.normal(1, 0.3, channels))
    layer.beta.assign(generator.normal(0, 0.3, channels))
    layer.moving_mean.assign(generator.normal(3, 1, channels))
    layer.moving_variance.assign(generator.uniform(0.5, 2, channels))
    return layer


def derivatives(dtype: str, shape: tuple[int, ...], graph: bool, training: bool = True) -> Derivatives:
    """Of a loss of outputs and their input gradient, as a penalty on input gradients makes it."""
    layer = layer_of(dtype, shape[-1])
    generator = np.random.default_rng(2)
    # Channels' means are far from zero.
    values = generator.normal(3, 1, shape) * generator.normal(1, 0.5, shape[-1])
    x = tf.constant(values, layer.compute_dtype)
    weights, directions = (tf.constant(generator.normal(size=shape), layer.compute_dtype) for _ in range(2))

    def run() -> dict[str, tf.Tensor]:
        with tf.GradientTape() as outer:
            outer.watch(x)
            with tf.GradientTape() as inner:
                inner.watch(x)
                y = layer(x, training=training)
                inside = tf.reduce_sum(tf.square(y) * weights)
            by_x = inner.gradient(inside, x)
            penalty = tf.reduce_sum(tf.square(by_x) * directions) + tf.reduce_sum(tf.sin(y))
        names = ("x, twice", "gamma, after x", "beta, after x")
        second = outer.gradient(penalty, [x, layer.gamma.value, layer.beta.value])
        return {"y": y, "x": by_x} | dict(zip(names, second, strict=True))

    found = tf.function(run)() if graph else run()
    statistics = {"mean": layer.moving_mean.value, "variance": layer.moving_variance.value}
    return {name: tf.cast(value, tf.float64).numpy() for name, value in (found | statistics).items()}


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("graph", [False, True])
def test_float32_derivatives_match_the_formula_in_float64(graph: bool, shape: tuple[int, ...]) -> None:
    expected, found = (derivatives(dtype, shape, graph) for dtype in ("float64", "float32"))
    for name, value in expected.items():
        np.testing.assert_allclose(found[name], value, atol=3e-5 * np.abs(value).max(), err_msg=name)


@pytest.mark.parametrize("shape", SHAPES)
def test_operations_that_stand_in_for_a_slow_kernel_match_the_formula(
    shape: tuple[int, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(batch_norm, "FORWARD_KERNEL_IS_SLOW", not batch_norm.FORWARD_KERNEL_IS_SLOW)
    expected, found = (derivatives(dtype, shape, True) for dtype in ("float64", "float32"))
    for name, value in expected.items():
        np.testing.assert_allclose(found[name], value, atol=3e-5 * np.abs(value).max(), err_msg=name)


@pytest.mark.parametrize("training", [True, False])
def test_bfloat16_derivatives_match_the_formula_in_float64(training: bool) -> None:
    shape = (32, 8, 8, 4)
    expected, found = (derivatives(dtype, shape, True, training) for dtype in ("float64", "mixed_bfloat16"))
    for name, value in expected.items():
        error = np.linalg.norm(found[name] - value) / np.linalg.norm(value)
        assert error < 0.03, f"{name}: {error}"


@pytest.mark.parametrize("slow", [True, False])
def test_a_batch_of_one_value_is_its_mean(slow: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(batch_norm, "FORWARD_KERNEL_IS_SLOW", slow)
    layer = layer_of("float32", 4)
    normalized = layer(tf.constant([[1.0, -2.0, 1e6, 0.0]]), training=True)
    np.testing.assert_allclose(normalized[0], layer.beta.numpy(), atol=1e-6)


def test_a_derivative_it_does_not_have_is_refused() -> None:
    """A third one by the input, and a second one of the gradient by gamma."""
    layer, x = layer_of("float32", 3), tf.random.stateless_normal((6, 3), [1, 2])
    with tf.GradientTape() as third, tf.GradientTape() as second, tf.GradientTape() as first:
        for tape in (third, second, first):
            tape.watch(x)
        total = tf.reduce_sum(layer(x, training=True) ** 3)
        by_x = first.gradient(total, x)
        twice = second.gradient(tf.reduce_sum(by_x**2), x)
        with pytest.raises(LookupError, match="two derivatives"):
            third.gradient(tf.reduce_sum(twice), x)
    with tf.GradientTape() as second, tf.GradientTape() as first:
        second.watch(x)
        total = tf.reduce_sum(layer(x, training=True) ** 3)
        by_gamma = first.gradient(total, layer.gamma.value)
        with pytest.raises(LookupError, match="two derivatives"):
            second.gradient(by_gamma, x)


def test_a_keras_file_gives_the_layer_back() -> None:
    layer = BatchNorm(momentum=0.5, epsilon=1e-3, synchronized=True)
    again = keras.layers.deserialize(keras.layers.serialize(layer))
    assert again.get_config() == layer.get_config()
