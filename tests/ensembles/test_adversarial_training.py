"""The attack of training against ascent written in NumPy on linear members, and the steps trained on it."""

from typing import Any

import keras
import numpy as np
import numpy.typing as npt
import pytest
import tensorflow as tf

from ncen_tf.base.errors import InputError
from ncen_tf.ensembles.adversary import (
    AttackedLoss,
    adversarial_images,
    ascend,
    cross_entropy_to_raise,
    member_divergence,
)
from ncen_tf.ensembles.ensemble import Ensemble
from ncen_tf.ensembles.penalties import gradient_penalty
from ncen_tf.ensembles.regularizers import NCE, AdversarialTraining

Array = npt.NDArray[np.float64]
SHAPE, CLASSES, COUNT = (4, 4, 1), 5, 6
KEY = tf.constant([3, 4])


def linear_member(seed: int) -> keras.Model:
    keras.utils.set_random_seed(seed)
    image = keras.Input(SHAPE)
    return keras.Model(image, keras.layers.Dense(CLASSES)(keras.layers.Flatten()(image)))


@pytest.fixture
def members() -> list[keras.Model]:
    return [linear_member(seed) for seed in range(3)]


@pytest.fixture
def batch() -> tuple[npt.NDArray[np.float32], npt.NDArray[np.int32]]:
    generator = np.random.default_rng(0)
    images = generator.uniform(size=(COUNT, *SHAPE)).astype(np.float32)
    return images, generator.integers(0, CLASSES, COUNT).astype(np.int32)


def softmax(z: Array) -> Array:
    exponentials = np.exp(z - z.max(axis=-1, keepdims=True))
    return np.asarray(exponentials / exponentials.sum(axis=-1, keepdims=True))


def ascend_by_hand(
    members: list[keras.Model], images: Array, labels: npt.NDArray[np.int32], attack: AdversarialTraining
) -> list[Array]:
    """Sign ascent without random start, gradients by hand: member i's logits are x W_i + b_i."""
    weights = [[w.astype(float) for w in member.get_weights()] for member in members]
    truth = np.eye(CLASSES)[labels]
    points = [images.reshape(COUNT, -1).astype(float)] * len(members)
    low, high = np.clip(points[0] - attack.eps, 0, 1), np.clip(points[0] + attack.eps, 0, 1)
    for _ in range(attack.steps):
        p = [softmax(x @ w + b) for x, (w, b) in zip(points, weights, strict=True)]
        if attack.loss == "members":
            gradients = [(q - truth) @ w.T for q, (w, _) in zip(p, weights, strict=True)]
        else:  # -log of the mean probability: members weigh in by their share of it
            of_truth = np.array([(q * truth).sum(1) for q in p])
            shares = of_truth / of_truth.sum(0)
            total = sum(
                s[:, np.newaxis] * ((q - truth) @ w.T)
                for s, q, (w, _) in zip(shares, p, weights, strict=True)
            )
            gradients = [np.asarray(total)] * len(members)
        points = [
            np.clip(x + attack.resolved_step_size * np.sign(g), low, high)
            for x, g in zip(points, gradients, strict=True)
        ]
    return [x.reshape(images.shape) for x in points]


@pytest.mark.parametrize("loss", ["ensemble", "members"])
@pytest.mark.parametrize("steps", [1, 4])
def test_attack_climbs_as_written_by_hand(
    loss: AttackedLoss, steps: int, members: list[keras.Model], batch: tuple[Array, npt.NDArray[np.int32]]
) -> None:
    images, labels = batch
    attack = AdversarialTraining(eps=0.2, steps=steps, step_size=0.07, random_start=False, loss=loss)
    raised = cross_entropy_to_raise(tf.constant(labels), loss)
    found = tf.function(lambda x: ascend(attack, members, x, raised, KEY))(tf.constant(images))
    for ours, expected in zip(found, ascend_by_hand(members, images, labels, attack), strict=True):
        np.testing.assert_allclose(ours, expected, atol=1e-6)


def test_attack_runs_the_members_in_inference_mode(
    members: list[keras.Model], batch: tuple[Array, npt.NDArray[np.int32]]
) -> None:
    """Normalising by fixed statistics folds into a linear member; by the batch's own it would not."""
    images, labels = batch
    normalization = keras.layers.BatchNormalization(epsilon=0)
    image = keras.Input(SHAPE)
    normalized = keras.Model(image, members[0](normalization(image)))
    normalization.set_weights(np.array([[1.0], [0.0], [0.3], [0.04]]))
    kernel, bias = members[0].get_weights()
    folded = linear_member(0)
    folded.set_weights([kernel / 0.2, bias - 0.3 / 0.2 * kernel.sum(0)])
    attack = AdversarialTraining(eps=0.2, steps=3, step_size=0.07, random_start=False)
    (found,) = adversarial_images(attack, [normalized], tf.constant(images), tf.constant(labels), KEY)
    np.testing.assert_allclose(found, ascend_by_hand([folded], images, labels, attack)[0], atol=1e-6)
    assert [float(v[0]) for v in normalization.non_trainable_weights] == pytest.approx([0.3, 0.04])


def test_random_starts_stay_within_eps_and_follow_the_key(
    members: list[keras.Model], batch: tuple[Array, npt.NDArray[np.int32]]
) -> None:
    images, labels = batch
    attack = AdversarialTraining(eps=0.2, steps=1, step_size=1e-9, loss="members")
    raised = cross_entropy_to_raise(tf.constant(labels), "members")
    first, again = (np.array(ascend(attack, members, tf.constant(images), raised, KEY)) for _ in range(2))
    other = np.array(ascend(attack, members, tf.constant(images), raised, KEY + 1))
    np.testing.assert_array_equal(first, again)
    assert np.abs(first - other).max() > 0.1
    assert np.abs(first[0] - first[1]).max() > 0.1, "each member starts at a point of its own"
    assert np.abs(first - images).max() <= 0.2 + 1e-6
    assert np.abs(first - images).max() > 0.15
    assert first.min() >= 0
    assert first.max() <= 1


@pytest.mark.parametrize("form", ["pgd", "trades"])
def test_only_the_fraction_is_attacked(
    form: Any, members: list[keras.Model], batch: tuple[Array, npt.NDArray[np.int32]]
) -> None:
    images, labels = batch
    settings = AdversarialTraining(form, eps=0.2, steps=2, step_size=0.1, fraction=0.4)
    for found in adversarial_images(settings, members, tf.constant(images), tf.constant(labels), KEY):
        moved = np.abs(found - images).max(axis=(1, 2, 3)) > 0
        np.testing.assert_array_equal(moved, [True, True, True, False, False, False])


def test_trades_adds_the_members_mean_divergence() -> None:
    generator = np.random.default_rng(1)
    clean, attacked = generator.normal(size=(2, COUNT, 3, CLASSES))
    p, q = softmax(clean), softmax(attacked)
    expected = (p * np.log(p / q)).sum(-1).mean(-1)
    found = member_divergence(tf.constant(clean), tf.constant(attacked))
    np.testing.assert_allclose(found, expected, atol=1e-12)


@pytest.mark.parametrize(
    ("settings", "jit_compile"),
    [
        (AdversarialTraining(eps=0.1, steps=2, step_size=0.05), False),
        (AdversarialTraining(eps=0.1, steps=2, step_size=0.05, loss="members", fraction=0.5), True),
        (AdversarialTraining("trades", eps=0.1, steps=2, step_size=0.05, beta=3.0), False),
    ],
)
def test_step_descends_on_the_loss_at_the_adversarial_images(
    settings: AdversarialTraining,
    jit_compile: bool,
    members: list[keras.Model],
    batch: tuple[Array, npt.NDArray[np.int32]],
) -> None:
    """One SGD step against the same loss put together outside of the model."""
    images, labels = (tf.constant(part) for part in batch)
    ensemble = Ensemble(members)
    regularizer = NCE(0.3, 0.2)
    optimizer = keras.optimizers.SGD(0.5)
    ensemble.compile(optimizer, regularizer, adversarial_training=settings, seed=7, jit_compile=jit_compile)
    key = tf.random.fold_in(tf.constant([7, 0]), 0)
    # XLA fuses and rounds in its own way, and a sign can turn on it: compare like with like.
    attack = tf.function(
        lambda: adversarial_images(settings, members, images, labels, key), jit_compile=jit_compile
    )
    attacked = attack()
    seen = attacked if settings.form == "pgd" else [images] * 3
    start = [v.numpy() for v in ensemble.trainable_variables]
    with tf.GradientTape() as outer:
        total = 0.0
        gradients = []
        for member, x in zip(members, seen, strict=True):
            with tf.GradientTape() as inner:
                inner.watch(x)
                ce = tf.nn.sparse_softmax_cross_entropy_with_logits(labels, member(x))
            gradients.append(tf.reshape(inner.gradient(ce, x), [COUNT, -1]))
            total += tf.reduce_mean(ce) / 3
        total += tf.reduce_mean(gradient_penalty(regularizer, tf.stack(gradients, 1)).value)
        if settings.form == "trades":
            for member, x in zip(members, attacked, strict=True):
                p, q = (tf.nn.softmax(member(v)) for v in (images, x))
                total += 3.0 * tf.reduce_mean(tf.reduce_sum(p * tf.math.log(p / q), 1)) / 3
    slopes = outer.gradient(total, ensemble.trainable_variables)
    logs = ensemble.train_on_batch(images, labels, return_dict=True)
    assert logs["loss"] == pytest.approx(float(total), abs=1e-5)
    for variable, before, slope in zip(ensemble.trainable_variables, start, slopes, strict=True):
        np.testing.assert_allclose(variable.numpy(), before - 0.5 * slope, atol=1e-5)


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({"form": "PGD"}, "`form` must be 'pgd' or 'trades', got 'PGD'"),
        ({"eps": 8}, "`eps` must be less than or equal to 1"),
        ({"eps": float("nan")}, "`eps`"),
        ({"fraction": 0.0}, "`fraction` must be greater than 0"),
        ({"form": "trades", "random_start": False}, "needs `random_start`"),
        ({"epsilon": 0.1}, "`epsilon` is not a setting"),
    ],
)
def test_settings_that_would_train_on_other_images_are_refused(fields: dict[str, Any], says: str) -> None:
    with pytest.raises(InputError) as caught:
        AdversarialTraining(**fields)
    assert says in str(caught.value)


def test_default_step_is_longer_for_a_single_step() -> None:
    assert AdversarialTraining(eps=0.2, steps=1).resolved_step_size == 0.25
    assert AdversarialTraining(eps=0.2, steps=10).resolved_step_size == 0.05
