"""TRS: its formula on members whose input gradients are known, and its search."""

from pathlib import Path

import keras
import numpy as np
import tensorflow as tf

from ncen_tf import TRS, AdversarialTraining, Ensemble
from ncen_tf.ensembles.adversary import steepest_images
from ncen_tf.ensembles.losses import losses_per_example
from ncen_tf.ensembles.penalties import input_gradients
from tests.ensembles.conftest import examples, small_member


def members() -> list[keras.Model]:
    return [small_member(keras.layers.Conv2D(3, 3, activation="tanh")) for _ in range(3)]


def test_the_penalty_follows_its_formula() -> None:
    regularizer = TRS(0.7, 0.3, eps=0.05, steps=2)
    ensemble = Ensemble(members())
    ensemble.compile("sgd", regularizer)
    images, labels = (tf.constant(x) for x in examples(6))
    losses, parts, _ = losses_per_example(ensemble, [images] * 3, labels, training=False)
    steep = steepest_images(regularizer, ensemble.members, [images] * 3, labels, "logits")
    gradients = np.zeros((2, 3, 6, 64))  # at the images, and nearby
    for index, member in enumerate(ensemble.members):
        for place, x in enumerate((images, steep[index])):
            with tf.GradientTape() as tape:
                tape.watch(x)
                ce = tf.nn.sparse_softmax_cross_entropy_with_logits(labels, member(x))
            gradients[place, index] = tf.reshape(tape.gradient(ce, x), (6, 64))
    for b in range(6):
        a, c, d = gradients[0, :, b]
        pairs = [abs(p @ q) / np.linalg.norm(p) / np.linalg.norm(q) for p, q in ((a, c), (a, d), (c, d))]
        length = sum(np.linalg.norm(gradients[1, i, b]) for i in range(3)) / 3
        np.testing.assert_allclose(parts["similarity"][b], sum(pairs) / 3, rtol=1e-4)
        np.testing.assert_allclose(parts["steepness"][b], length, rtol=1e-4)
    np.testing.assert_allclose(
        losses, parts["ce"] + 0.7 * parts["similarity"] + 0.3 * parts["steepness"], rtol=1e-5
    )


def test_the_search_finds_longer_gradients_within_the_bound() -> None:
    own = members()
    images, labels = (tf.constant(x) for x in examples(16))
    steep = steepest_images(TRS(eps=0.1), own, [images] * 3, labels, "logits")
    for x in steep:
        assert float(tf.reduce_max(tf.abs(x - images))) <= 0.1 + 1e-6
        assert float(tf.reduce_min(x)) >= 0
        assert float(tf.reduce_max(x)) <= 1
    before, after = (
        np.linalg.norm(input_gradients(own, x, labels)[2], axis=2) for x in ([images] * 3, steep)
    )
    assert (after > before).mean() > 0.9


def test_it_trains_with_adversarial_images_of_each_member_and_is_saved(tmp_path: Path) -> None:
    ensemble = Ensemble(members())
    attack = AdversarialTraining(eps=0.1, steps=1, loss="members")
    ensemble.compile("adam", TRS(1.0, 0.1, steps=2), adversarial_training=attack)
    images, labels = examples(32)
    history = ensemble.fit(images, labels, epochs=6, batch_size=16, verbose=0).history
    assert history["steepness"][-1] > 0
    assert history["loss"][-1] < history["loss"][0]
    ensemble.save(tmp_path / "ensemble.keras")
    assert keras.saving.load_model(tmp_path / "ensemble.keras").regularizer == ensemble.regularizer
