"""DVERGE: its images against NumPy, its loss against plain loops, its gradient against differences."""

from pathlib import Path

import keras
import numpy as np
import numpy.typing as npt
import pytest
import tensorflow as tf

import ncen_tf
from ncen_tf import DVERGE, AdversarialTraining, Ensemble
from ncen_tf.ensembles.adversary import distill, distilled_images, feature_extractors
from ncen_tf.ensembles.batch_norm import BatchNorm
from ncen_tf.ensembles.losses import attack_key, loss_and_gradients, losses_per_example, training_views
from ncen_tf.ensembles.resnet import build_resnet
from ncen_tf.train.run_directory import RunDirectory, checkpoint_file, checkpoint_steps
from tests.ensembles.conftest import examples, small_member

Array = npt.NDArray[np.float64]


def compiled(regularizer: DVERGE, attack: AdversarialTraining | None = None) -> Ensemble:
    members = [small_member(keras.layers.Conv2D(3, 3, activation="tanh"), BatchNorm()) for _ in range(3)]
    ensemble = Ensemble(members)
    ensemble.compile("adam", regularizer, adversarial_training=attack, seed=3)
    ensemble.optimizer.build(ensemble.trainable_variables)
    return ensemble


def test_images_descend_as_written_by_hand() -> None:
    """Features are x K: the gradient of their distance is 2 (x - target) K K^T."""
    keras.config.set_floatx("float64")
    keras.config.set_dtype_policy("float64")
    linear = small_member(use_bias=False)
    kernel = linear.get_weights()[0]
    images = examples(5)[0].astype(np.float64)
    found = distill(DVERGE(eps=0.2, steps=6, step_size=0.05), linear, tf.constant(images))
    for index in range(5):
        source, target = images[index].ravel(), images[index - 1].ravel()
        x, total = source.copy(), np.zeros(64)
        for _ in range(6):
            slope = 2 * kernel @ (kernel.T @ (x - target))
            total = total + slope / np.abs(slope).sum()
            x = np.clip(x - 0.05 * np.sign(total), np.maximum(source - 0.2, 0), np.minimum(source + 0.2, 1))
        np.testing.assert_allclose(found[index].numpy().ravel(), x, atol=1e-12)


def test_features_come_closer_to_those_of_the_other_image() -> None:
    images = tf.constant(examples(8)[0])
    features = feature_extractors(compiled(DVERGE()).members[0])[0]

    def distances(points: tf.Tensor) -> Array:
        gaps = features(points) - features(tf.roll(images, 1, axis=0))
        return np.square(gaps).sum(axis=(1, 2, 3))

    found = distill(DVERGE(eps=0.1), features, images)
    assert (distances(found) < 0.8 * distances(images)).all()
    assert float(tf.reduce_max(tf.abs(found - images))) <= 0.1 + 1e-6
    # By default, ten steps of eps / 10 reach the bound.
    assert float(tf.reduce_max(tf.abs(found - images))) == pytest.approx(0.1, abs=1e-6)


def test_layers_are_residual_blocks_and_every_one_is_drawn() -> None:
    member = build_resnet(14, (8, 8, 1), 4, seed=0)
    extractors = feature_extractors(member)
    assert [one.output_shape[1:] for one in extractors] == [(8, 8, 16)] * 2 + [(4, 4, 32)] * 2 + [
        (2, 2, 64)
    ] * 2
    # Before the activation: with slope 0.1 below zero, it would shrink the negative values.
    images, settings = tf.constant(examples(3)[0]), DVERGE(eps=0.1, steps=1)
    of_layers = [distill(settings, features, images).numpy() for features in extractors]
    make = tf.function(lambda key: distilled_images(settings, [member], images, key)[0])
    drawn = []
    for step in range(40):
        found = make(tf.constant([0, step])).numpy()
        (layer,) = [i for i, one in enumerate(of_layers) if np.abs(one - found).mean() < 1e-3]
        drawn.append(layer)
    assert set(drawn) == set(range(6))


def test_members_without_residual_blocks_give_convolutions_or_logits() -> None:
    convolutional = small_member(keras.layers.Conv2D(3, 3), keras.layers.Conv2D(2, 3))
    assert [one.output_shape for one in feature_extractors(convolutional)] == [
        (None, 6, 6, 3),
        (None, 4, 4, 2),
    ]
    linear = small_member()
    assert feature_extractors(linear) == [linear]


@pytest.mark.parametrize("attack", [None, AdversarialTraining(eps=0.1, steps=1)])
def test_each_member_is_trained_on_the_images_of_the_others(attack: AdversarialTraining | None) -> None:
    settings = DVERGE(eps=0.1, steps=3)
    ensemble = compiled(settings, attack)
    images, labels = (tf.constant(x) for x in examples(6))
    key = attack_key(ensemble, 0)
    made = distilled_images(settings, ensemble.members, images, key)
    seen = [[made[j] for j in range(3) if j != i] for i in range(3)]
    if attack is not None:
        own = training_views(ensemble, images, labels, key)[1]
        seen = [[*of_member, own[i]] for i, of_member in enumerate(seen)]
    # Before the members below change the moving statistics, which the search depends on.
    _, losses, parts, _ = loss_and_gradients(ensemble, images, labels, None, tf.constant(6), key)
    expected = np.zeros(6)
    for member, batches in zip(ensemble.members, seen, strict=True):
        for batch in batches:
            p = tf.nn.softmax(member(batch, training=True)).numpy()
            expected += -np.log(p[np.arange(6), labels]) / 3
    np.testing.assert_allclose(losses, expected, rtol=1e-4)
    np.testing.assert_allclose(parts["ce"], expected / len(seen[0]), rtol=1e-4)


def test_gradient_matches_finite_differences_with_the_images_held_fixed() -> None:
    keras.config.set_floatx("float64")
    keras.config.set_dtype_policy("float64")
    ensemble = compiled(DVERGE(eps=0.1, steps=2))
    images, labels = tf.constant(examples(6)[0], tf.float64), tf.constant(examples(6)[1])
    key = attack_key(ensemble, 0)
    passes, _ = training_views(ensemble, images, labels, key)

    @tf.function
    def loss() -> tf.Tensor:
        return tf.reduce_mean(sum(losses_per_example(ensemble, views, labels, True)[0] for views in passes))

    statistics = [(v, v.numpy()) for v in ensemble.non_trainable_variables]
    gradients, *_ = loss_and_gradients(ensemble, images, labels, None, tf.constant(6), key)
    for variable, value in statistics:
        variable.assign(value)
    generator = np.random.default_rng(0)
    for variable, gradient in zip(ensemble.trainable_variables, gradients, strict=True):
        start = variable.numpy()
        direction = generator.normal(size=start.shape)
        values = []
        for sign in (1, -1):
            variable.assign(start + sign * 1e-5 * direction)
            values.append(float(loss()))
        variable.assign(start)
        slope = float(np.sum(gradient.numpy() * direction))
        assert (values[0] - values[1]) / 2e-5 == pytest.approx(slope, rel=1e-6, abs=1e-9)


def test_it_learns_is_measured_on_clean_images_and_is_saved(tmp_path: Path) -> None:
    ensemble = compiled(DVERGE(eps=0.05, steps=2))
    images, labels = examples(32)
    history = ensemble.fit(images, labels, epochs=8, batch_size=16, verbose=0).history
    assert history["ce"][-1] < history["ce"][0]
    measured = ensemble.evaluate(images, labels, verbose=0, return_dict=True)
    assert measured["loss"] == measured["ce"] < history["loss"][-1]
    file = tmp_path / "ensemble.keras"
    ensemble.save(file)
    loaded = keras.saving.load_model(file)
    assert loaded.regularizer == ensemble.regularizer
    again, expected = (e.fit(images, labels, verbose=0).history["loss"] for e in (loaded, ensemble))
    assert again == pytest.approx(expected, rel=1e-5)


def test_a_run_resumes_to_the_same_weights(tmp_path: Path) -> None:
    """From flags; the last checkpoint and the result are taken away, the same call makes them again."""
    flags = {"dataset": "fashion_mnist_sample", "architecture": ["resnet8"] * 2, "regularizer": "dverge"}
    sizes = {"dverge_steps": 2, "batch_size": 10, "epochs": 1, "checkpoint_every": 2, "deterministic": True}
    config = ncen_tf.TrainConfig.from_flags(flags | sizes | {"dverge_eps": 0.2})
    assert config.regularizer == DVERGE(eps=0.2, steps=2)
    data = ncen_tf.load_data("fashion_mnist_sample", train_examples=20, test_examples=10)
    whole = ncen_tf.train_ensemble(config, data, tmp_path, progress=False).ensemble.get_weights()
    run = RunDirectory(tmp_path)
    run.model_file.unlink()
    run.summary_file.unlink()
    checkpoint_file(run.checkpoints, max(checkpoint_steps(run.checkpoints))).unlink()
    resumed = ncen_tf.train_ensemble(config, data, tmp_path, progress=False).ensemble.get_weights()
    for one, other in zip(whole, resumed, strict=True):
        np.testing.assert_array_equal(one, other)
