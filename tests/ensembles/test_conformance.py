"""What every ensemble must do as a Keras model, whatever its members and precision."""

from collections.abc import Callable
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf

import ncen_tf
from tests.ensembles.conftest import CLASSES, SHAPE, examples, small_member


def resnets() -> ncen_tf.Ensemble:
    return ncen_tf.build_ensemble(["resnet8", "resnet8"], SHAPE, CLASSES, seed=0)


def sequential() -> ncen_tf.Ensemble:
    return ncen_tf.Ensemble([small_member(keras.layers.Conv2D(3, 3, activation="relu")) for _ in range(3)])


def functional() -> ncen_tf.Ensemble:
    def member(width: int) -> keras.Model:
        image = keras.Input(SHAPE)
        x = keras.layers.Conv2D(width, 3, padding="same")(image)
        x = keras.layers.Add()([x, keras.layers.Activation("tanh")(x)])
        x = keras.layers.Dense(CLASSES)(keras.layers.GlobalAveragePooling2D()(x))
        return keras.Model(image, keras.layers.Activation("linear", dtype="float32")(x))

    return ncen_tf.Ensemble([member(4), member(6)])


@pytest.mark.parametrize("policy", ["float32", "mixed_bfloat16"])
@pytest.mark.parametrize("build", [resnets, sequential, functional])
def test_ensemble_behaves_as_a_keras_model(
    build: Callable[[], ncen_tf.Ensemble], policy: str, tmp_path: Path
) -> None:
    keras.config.set_dtype_policy(policy)
    ensemble = build()
    keras.config.set_dtype_policy("float32")
    images, labels = examples(8)
    attack = ncen_tf.AdversarialTraining(eps=0.05, steps=1, loss="members", fraction=0.5)
    metrics = ["sparse_categorical_crossentropy"]
    ensemble.compile("adam", ncen_tf.NCE(0.1, 0.1), adversarial_training=attack, metrics=metrics)

    # fit: from arrays of floats and of bytes, and from tf.data
    batches = tf.data.Dataset.from_tensor_slices((images, labels)).batch(4)
    names = {"loss", "ce", "l_cos", "l_norm", "accuracy", "sparse_categorical_crossentropy"}
    for data in ((images, labels), ((255 * images).astype(np.uint8), labels), (batches,)):
        history = ensemble.fit(*data, batch_size=4 if len(data) > 1 else None, verbose=0).history
        assert set(history) == names
        assert np.isfinite(list(history.values())).all()

    # predict: probabilities, in batches as in one call
    probabilities = ensemble.predict(images, batch_size=4, verbose=0)
    assert probabilities.shape == (8, CLASSES)
    assert probabilities.dtype == np.float32
    np.testing.assert_allclose(probabilities.sum(axis=1), 1, atol=1e-5)
    np.testing.assert_allclose(probabilities, ensemble(images), atol=1e-6 if policy == "float32" else 1e-2)
    scores = np.exp(np.stack([member(images).numpy() for member in ensemble.members]).astype(float))
    np.testing.assert_allclose(probabilities, (scores / scores.sum(2, keepdims=True)).mean(0), atol=1e-2)

    # evaluate: Keras's metrics of these probabilities
    measured = ensemble.evaluate(images, labels, batch_size=4, verbose=0, return_dict=True)
    assert set(measured) == names
    assert measured["accuracy"] == pytest.approx((probabilities.argmax(1) == labels).mean())
    expected = -np.log(probabilities[np.arange(8), labels]).mean()
    assert measured["sparse_categorical_crossentropy"] == pytest.approx(expected, rel=1e-2)

    # save and load, with what was compiled
    ensemble.save(tmp_path / "e.keras")
    loaded = keras.saving.load_model(tmp_path / "e.keras", safe_mode=True)
    np.testing.assert_array_equal(loaded.predict(images, batch_size=4, verbose=0), probabilities)
    assert (loaded.regularizer, loaded.adversarial_training) == (ensemble.regularizer, attack)
    assert loaded.evaluate(images, labels, batch_size=4, verbose=0, return_dict=True) == pytest.approx(
        measured
    )
    assert loaded.optimizer.iterations == ensemble.optimizer.iterations == 6
    again = [e.train_on_batch(images, labels, return_dict=True) for e in (ensemble, loaded)]
    assert again[0] == pytest.approx(again[1], rel=1e-5)

    # configuration
    config = ensemble.get_config()
    rebuilt = ncen_tf.Ensemble.from_config(config)
    rebuilt.set_weights(ensemble.get_weights())
    np.testing.assert_array_equal(rebuilt(images), ensemble(images))
    keras.config.set_dtype_policy(policy)  # A Sequential is rebuilt with the global policy.
    try:
        assert ncen_tf.Ensemble.from_config(config).get_config() == config
    finally:
        keras.config.set_dtype_policy("float32")
