"""Keras models and SavedModels that this package did not make."""

from pathlib import Path
from typing import Any

import keras
import numpy as np
import numpy.typing as npt
import pytest
import tensorflow as tf

from ncen_tf.attack.evaluation import evaluate
from ncen_tf.base.errors import InputError
from ncen_tf.targets.interface import ModelInterface
from ncen_tf.targets.opening import open_target
from ncen_tf.targets.target import Target

Array = npt.NDArray[Any]

IMAGES = np.random.default_rng(0).random((5, 8, 8, 3), np.float32)
COTANGENT = np.random.default_rng(1).normal(size=(5, 1, 4)).astype(np.float32)


def small(kind: str = "float32", last: str | None = None, size: int | None = 8) -> keras.Model:
    """A classifier of images in [0, 255] with its preprocessing inside."""
    keras.utils.set_random_seed(0)
    layers = keras.layers
    image = keras.Input((size, size, 3), dtype=kind)
    x = layers.Rescaling(1 / 127.5, offset=-1)(image)
    x = layers.Normalization(mean=[0.1, 0.2, 0.3], variance=[0.5, 0.6, 0.7])(x)
    x = layers.Conv2D(6, 3, activation="tanh")(x)
    x = layers.GlobalAveragePooling2D()(x)
    return keras.Model(image, layers.Dense(4, activation=last)(x))


def expected(images: Array) -> tuple[Array, Array]:
    """Logits of `small` for images in [0, 255], and the gradient of their product with COTANGENT."""
    model, point = small(), tf.constant(images)
    with tf.GradientTape() as tape:
        tape.watch(point)
        logits = model(point)
        product = tf.reduce_sum(logits * COTANGENT[:, 0])
    return logits.numpy(), tape.gradient(product, point).numpy()


def check(target: Target, images: Array, derivative: float = 255.0) -> None:
    logits, gradient = expected(images)
    found, pull_back = target.linearize(IMAGES)
    np.testing.assert_allclose(found[:, 0], logits, atol=1e-5)
    np.testing.assert_allclose(pull_back(COTANGENT), derivative * gradient, rtol=1e-3, atol=1e-4)


RANGE = ModelInterface(input_range=(0, 255))


def test_a_keras_model_with_preprocessing_inside(tmp_path: Path) -> None:
    check(open_target(small(), interface=RANGE), 255 * IMAGES)
    check(open_target(small(size=None), interface=RANGE, image_shape=(8, 8, 3)), 255 * IMAGES)
    with pytest.raises(InputError, match="images of any size"):
        open_target(small(size=None), interface=RANGE)
    small(size=None).save(tmp_path / "m.keras")
    check(open_target(tmp_path / "m.keras", interface=RANGE, image_shape=(8, 8, 3)), 255 * IMAGES)
    sequential = keras.Sequential([keras.layers.Rescaling(255.0), small()])  # has no input yet
    check(open_target(sequential, image_shape=(8, 8, 3)), 255 * IMAGES)


def test_a_preprocessor_that_only_predict_applies_is_named(caplog: pytest.LogCaptureFixture) -> None:
    """As classifiers of KerasHub have one."""
    model = small()
    model.preprocessor = keras.layers.Rescaling(1 / 255)
    open_target(model, interface=ModelInterface(input_range=(0, 255)))
    assert "preprocessor" not in caplog.text
    open_target(model)
    assert "has a preprocessor, which `predict` applies and an attack does not" in caplog.text


def test_a_keras_model_of_integers_is_attacked_through_its_cast() -> None:
    target = open_target(small("uint8"))
    assert target.whole_pixels
    check(target, np.rint(255 * IMAGES))


def test_logits_before_the_softmax_of_keras_are_attacked() -> None:
    model = small(last="softmax")
    model.layers[-1].set_weights([1e4 * w for w in model.layers[-1].get_weights()])
    target = open_target(model, interface=RANGE)
    assert target.gives_logits
    assert target.signature is not None
    assert target.signature.output == "logits before the Softmax"
    logits, gradient = expected(255 * IMAGES)
    np.testing.assert_allclose(target.logits(IMAGES)[:, 0], 1e4 * logits, rtol=1e-3, atol=1)
    found = target.gradient(IMAGES, COTANGENT)
    np.testing.assert_allclose(found, 1e4 * 255 * gradient, rtol=1e-2, atol=1)


@pytest.mark.parametrize("last", [None, "softmax"])
def test_saved_models_by_their_serving_signature(last: str | None, tmp_path: Path) -> None:
    small(last=last).export(tmp_path / "exported", verbose=False)
    target = open_target(tmp_path / "exported", interface=RANGE)
    assert target.gives_logits
    assert target.signature is not None
    assert target.signature.output == ("logits before the Softmax" if last else "logits")
    check(target, 255 * IMAGES)


def test_a_saved_model_of_integers_is_attacked_through_its_cast(tmp_path: Path) -> None:
    small("uint8", "softmax").export(tmp_path / "exported", verbose=False)
    target = open_target(tmp_path / "exported")
    assert target.whole_pixels
    check(target, np.rint(255 * IMAGES))


LAYERS = {
    "softsign": [keras.layers.Activation("softsign"), keras.layers.GlobalAveragePooling2D()],
    "silu": [keras.layers.Activation("silu"), keras.layers.GlobalAveragePooling2D()],
    "loop": [keras.layers.Reshape((8, 24)), keras.layers.GRU(5)],
}


@pytest.mark.parametrize("last", [None, "softmax"])
@pytest.mark.parametrize("kind", LAYERS)
def test_saved_models_whose_operations_have_a_first_derivative_only(
    kind: str, last: str | None, tmp_path: Path
) -> None:
    keras.utils.set_random_seed(0)
    dense = keras.layers.Dense(4, activation=last)
    model = keras.Sequential([keras.Input((8, 8, 3)), *LAYERS[kind], dense])
    model.export(tmp_path / "exported", verbose=False)
    target = open_target(tmp_path / "exported")
    difference = np.array([1, -1, 0, 0], np.float32)  # of two logits, or of logarithms of probabilities
    point = tf.constant(IMAGES)
    with tf.GradientTape() as tape:
        tape.watch(point)
        scores = model(point)
        product = tf.reduce_sum((tf.math.log(scores) if last else scores) * difference)
    expected = np.asarray(tape.gradient(product, point))
    found = target.gradient(IMAGES, np.tile(difference, (len(IMAGES), 1, 1)))
    np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-6)
    report = evaluate(target, (IMAGES, scores.numpy().argmax(1)), suite="quick", allow_low_accuracy=True)
    assert report.attacks


def test_probabilities_that_a_saved_model_computes_otherwise_are_said(tmp_path: Path) -> None:
    model = small()

    @tf.function(input_signature=[tf.TensorSpec((None, 8, 8, 3), tf.float32)])
    def serve(images: tf.Tensor) -> tf.Tensor:
        powers = tf.exp(model(images))
        return powers / tf.reduce_sum(powers, axis=1, keepdims=True)

    module = tf.Module()
    module.model = model
    tf.saved_model.save(module, str(tmp_path / "m"), signatures={"serve": serve})
    target = open_target(tmp_path / "m", interface=RANGE)
    assert not target.gives_logits
    assert target.signature is not None
    assert target.signature.output == "probabilities"
    logits, _ = expected(255 * IMAGES)
    log_probabilities = logits - np.log(np.exp(logits).sum(1, keepdims=True))
    np.testing.assert_allclose(target.logits(IMAGES)[:, 0], log_probabilities, atol=1e-4)


def test_a_saved_model_of_a_fixed_batch_and_names_of_its_own(tmp_path: Path) -> None:
    model = small()

    @tf.function(input_signature=[tf.TensorSpec((2, 3, 8, 8), tf.float32, name="picture")])
    def serve(picture: tf.Tensor) -> dict[str, tf.Tensor]:
        scores = model(tf.transpose(picture, [0, 2, 3, 1]))
        return {"scores": scores, "label": tf.argmax(scores, 1)}

    module = tf.Module()
    module.model = model
    tf.saved_model.save(module, str(tmp_path / "m"), signatures={"own": serve})
    target = open_target(tmp_path / "m", interface=RANGE)
    assert target.signature is not None
    assert (target.signature.input_name, target.signature.output_name) == ("picture", "scores")
    assert (target.signature.batch, target.signature.layout) == ("pieces of 2", "NCHW")
    check(target, 255 * IMAGES)


def test_models_of_other_things_are_refused(tmp_path: Path) -> None:
    two = [keras.Input((8, 8, 3)), keras.Input((8, 8, 3))]
    flat = [keras.layers.Flatten()(x) for x in two]
    both = keras.Model(two, keras.layers.Dense(4)(keras.layers.Concatenate()(flat)))
    sequence = keras.Input((None, 8, 8, 3))
    video = keras.Model(sequence, keras.layers.Dense(4)(keras.layers.GlobalAveragePooling3D()(sequence)))
    for model, says in ((both, "has 2 inputs"), (video, "not a batch of images")):
        with pytest.raises(InputError, match=says):
            open_target(model)
    with pytest.raises(InputError, match=r"it can have no `interface`"):
        open_target(lambda x: x, image_shape=(8, 8, 3), interface=RANGE, differentiable=False)
    tf.saved_model.save(tf.Module(), str(tmp_path / "empty"))
    with pytest.raises(InputError, match=r"has no functions|no serving signature"):
        open_target(tmp_path / "empty")


@pytest.mark.parametrize("last", ["sigmoid", None])
def test_one_score_is_that_of_the_second_class(last: str | None) -> None:
    keras.utils.set_random_seed(0)
    dense = keras.layers.Dense(1, activation=last)
    model = keras.Sequential([keras.Input((8, 8, 3)), keras.layers.Flatten(), dense])
    if last is None:
        with pytest.raises(InputError, match="gives one score an image: set `output`"):
            open_target(model)
    target = open_target(model, interface=ModelInterface(output=None if last else "logits"))
    assert target.classes == 2
    logits, pull_back = target.linearize(IMAGES)
    weights = dense.kernel.numpy()[:, 0]
    np.testing.assert_allclose(logits[:, 0, 0], 0, atol=1e-7)
    np.testing.assert_allclose(logits[:, 0, 1], IMAGES.reshape(5, -1) @ weights, rtol=1e-4, atol=1e-5)
    cotangent = np.tile(np.array([5, 1], np.float32), (5, 1, 1))
    np.testing.assert_allclose(pull_back(cotangent).reshape(5, -1), np.tile(weights, (5, 1)), rtol=1e-4)
