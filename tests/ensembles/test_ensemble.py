"""Losses, weights, labels and images of an ensemble: each is honoured or refused."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf

from ncen_tf import ADP, GAL, NCE, AdversarialTraining, Ensemble, build_ensemble
from ncen_tf.base.errors import InputError
from ncen_tf.ensembles.batch_norm import BatchNorm
from tests.conftest import ROOT
from tests.ensembles.conftest import CLASSES, SHAPE, examples, small_member

IMAGES, LABELS = examples(32)


def pair(**settings: Any) -> Ensemble:
    """Two small members; the same weights each time."""
    keras.utils.set_random_seed(7)
    ensemble = Ensemble([small_member(), small_member()])
    ensemble.compile(**{"optimizer": keras.optimizers.SGD(0.1)} | settings)
    return ensemble


def largest_difference(one: Ensemble, other: Ensemble) -> float:
    pairs = zip(one.get_weights(), other.get_weights(), strict=True)
    return max(float(np.abs(a - b).max()) for a, b in pairs)


# Loss


def test_loss_is_cross_entropy_plus_weighted_terms() -> None:
    ensemble = pair(regularizer=NCE(0.1, -0.2, "released"), ce_on="probabilities")
    history = ensemble.fit(IMAGES, LABELS, batch_size=16, epochs=2, verbose=0).history
    ce, cos, norm = (history[name][1] for name in ("ce", "l_cos", "l_norm"))
    assert history["loss"][1] == pytest.approx(ce + 0.1 * cos - 0.2 * norm, abs=1e-5)


@pytest.mark.parametrize("regularizer", [None, NCE()])
def test_losses_that_members_carry_are_added(regularizer: NCE | None) -> None:
    """With L2(0.5) on a kernel, one SGD step of 0.1 takes away 0.1 of it more than without."""
    found = []
    for penalty in (None, keras.regularizers.L2(0.5)):
        keras.utils.set_random_seed(7)
        ensemble = Ensemble([small_member(kernel_regularizer=penalty), small_member()])
        ensemble.compile(keras.optimizers.SGD(0.1), regularizer)
        before = ensemble.members[0].get_weights()[0]
        logs = ensemble.train_on_batch(IMAGES, LABELS, return_dict=True)
        found.append((logs, ensemble.members[0].get_weights()[0]))
    (plain, kernel), (logs, penalized) = found
    assert logs["ce"] == plain["ce"]
    assert logs["loss"] == pytest.approx(plain["loss"] + 0.5 * (before**2).sum(), rel=1e-5)
    np.testing.assert_allclose(penalized, kernel - 0.1 * before, atol=1e-6)
    evaluated = ensemble.evaluate(IMAGES, LABELS, verbose=0, return_dict=True)
    assert evaluated["loss"] - evaluated["ce"] > 0.4 * (penalized**2).sum()


def test_activity_losses_are_those_of_the_images_trained_on() -> None:
    """Neither the attack's own passes nor a second forward pass are counted."""
    keras.utils.set_random_seed(7)
    layer = keras.layers.Conv2D(2, 3, activity_regularizer=keras.regularizers.L2(0.1))
    ensemble = Ensemble([small_member(layer), small_member()])
    ensemble.compile("sgd", adversarial_training=AdversarialTraining("trades", eps=0.3, steps=2))
    size = float(tf.reduce_sum(tf.square(layer(IMAGES)))) / len(IMAGES)
    logs = ensemble.train_on_batch(IMAGES, LABELS, return_dict=True)
    assert logs["loss"] - logs["ce"] - 6.0 * logs["divergence"] == pytest.approx(0.1 * size, rel=1e-4)


@pytest.mark.parametrize("regularizer", [None, NCE()])
def test_scaled_losses_change_no_step(regularizer: NCE | None) -> None:
    plain, scaled = (
        pair(optimizer=optimizer, regularizer=regularizer)
        for optimizer in (
            keras.optimizers.SGD(0.1),
            keras.optimizers.LossScaleOptimizer(keras.optimizers.SGD(0.1), initial_scale=1024.0),
        )
    )
    for ensemble in (plain, scaled):
        ensemble.fit(IMAGES, LABELS, batch_size=8, epochs=2, shuffle=False, verbose=0)
    assert largest_difference(plain, scaled) < 1e-6


def test_float16_members_learn_as_float32_ones() -> None:
    """The loss is scaled even where only the members, not the global policy, are in float16."""
    losses = []
    for policy in ("float32", "mixed_float16"):
        keras.config.set_dtype_policy(policy)
        keras.utils.set_random_seed(7)
        members = [small_member(keras.layers.Conv2D(4, 3)) for _ in range(2)]
        keras.config.set_dtype_policy("float32")
        ensemble = Ensemble(members)
        ensemble.compile(keras.optimizers.SGD(0.1), GAL())
        losses.append(ensemble.fit(IMAGES, LABELS, batch_size=8, epochs=8, verbose=0).history["ce"])
    assert isinstance(ensemble.optimizer, keras.optimizers.LossScaleOptimizer)
    assert losses[0][-1] < 0.8 * losses[0][0]
    assert losses[1][-1] < 0.9 * losses[1][0]


@pytest.mark.parametrize("policy", ["float16", "bfloat16", "mixed_float16", "float64"])
def test_logits_of_every_precision_are_trained_on(policy: str) -> None:
    keras.config.set_dtype_policy(policy)
    members = [small_member() for _ in range(2)]
    keras.config.set_dtype_policy("float32")
    for regularizer, attack in ((NCE(), None), (ADP(), AdversarialTraining("trades", steps=2))):
        ensemble = Ensemble(members)
        ensemble.compile("sgd", regularizer, adversarial_training=attack)
        logs = ensemble.train_on_batch(IMAGES, LABELS, return_dict=True)
        assert np.isfinite(list(logs.values())).all()
        assert ensemble.member_logits(IMAGES).dtype == ensemble(IMAGES).dtype == tf.float32


def test_frozen_members_and_layers_do_not_change() -> None:
    """Their BatchNorm neither normalises by the batch nor moves its statistics."""
    ensemble = Ensemble([small_member(keras.layers.Conv2D(3, 3), BatchNorm()) for _ in range(2)])
    frozen, partly = ensemble.members
    frozen.trainable = False
    partly.layers[1].trainable = False
    ensemble.compile("adam", NCE())
    parts = (frozen, partly.layers[1], partly.layers[0])
    before, logits = [part.get_weights() for part in parts], frozen(IMAGES).numpy()
    ensemble.fit(IMAGES, LABELS, verbose=0)
    changed = [
        any((a != b).any() for a, b in zip(old, part.get_weights(), strict=True))
        for old, part in zip(before, parts, strict=True)
    ]
    assert changed == [False, False, True]
    np.testing.assert_array_equal(frozen(IMAGES), logits)


# Weights, labels, images


def test_sample_weights_are_those_of_the_mean_loss() -> None:
    """Weight 2 on one half of a batch and 0 on the other is training on the first half alone."""
    weights = np.repeat([2.0, 0.0], 16)
    weighted, half = pair(regularizer=NCE(1.0, 1.0)), pair(regularizer=NCE(1.0, 1.0))
    logs = weighted.train_on_batch(IMAGES, LABELS, sample_weight=weights, return_dict=True)
    expected = half.train_on_batch(IMAGES[:16], LABELS[:16], return_dict=True)
    assert largest_difference(weighted, half) < 1e-6
    assert logs["loss"] == pytest.approx(expected["loss"], rel=1e-5)


def test_class_weights_are_the_sample_weights_of_the_classes() -> None:
    classes = {0: 2.0, 1: 0.0, 2: 1.0, 3: 0.5}
    by_class, by_sample = pair(), pair()
    by_class.fit(IMAGES, LABELS, batch_size=32, shuffle=False, class_weight=classes, verbose=0)
    weights = np.array([classes[label] for label in LABELS])
    by_sample.fit(IMAGES, LABELS, batch_size=32, shuffle=False, sample_weight=weights, verbose=0)
    assert largest_difference(by_class, by_sample) == 0


def test_weighted_metrics_are_weighted_and_metrics_are_not() -> None:
    ensemble = pair(
        metrics=[keras.metrics.SparseCategoricalCrossentropy(name="plain")],
        weighted_metrics=[keras.metrics.SparseCategoricalCrossentropy(name="weighted")],
    )
    weights = np.random.default_rng(0).random(32)
    measured = ensemble.evaluate(IMAGES, LABELS, sample_weight=weights, verbose=0, return_dict=True)
    values = -np.log(ensemble(IMAGES).numpy()[np.arange(32), LABELS])
    assert measured["plain"] == pytest.approx(values.mean(), rel=1e-4)
    assert measured["weighted"] == pytest.approx((weights * values).sum() / weights.sum(), rel=1e-4)


def test_bytes_are_divided_by_255() -> None:
    pixels = np.round(255 * IMAGES).astype(np.uint8)
    one, other = pair(), pair()
    one.fit(pixels, LABELS, shuffle=False, verbose=0)
    other.fit(pixels / np.float32(255), LABELS, shuffle=False, verbose=0)
    assert largest_difference(one, other) < 1e-6  # Graphs multiply by 1 / 255.
    np.testing.assert_allclose(one(pixels), one(pixels / np.float32(255)), atol=1e-6)


def test_images_on_another_scale_are_refused() -> None:
    """Everywhere, and before a weight changes."""
    ensemble = pair(adversarial_training=AdversarialTraining(steps=1))
    before = ensemble.get_weights()
    nan, integers = np.full_like(IMAGES, np.nan), (255 * IMAGES).astype(np.int32)
    for images in (255 * IMAGES, 2 * IMAGES - 1, IMAGES - 0.1, nan, integers):
        with pytest.raises(InputError, match=r"divide \[0, 255\] by 255"):
            ensemble.train_on_batch(images, LABELS)
    images = 255 * IMAGES
    batches = tf.data.Dataset.from_tensor_slices((images, LABELS)).batch(8)
    calls: list[Callable[[], Any]] = [
        lambda: ensemble.fit(images, LABELS, verbose=0),
        lambda: ensemble.fit(batches, verbose=0),
        lambda: ensemble.evaluate(images, LABELS, verbose=0),
        lambda: ensemble.predict(images, verbose=0),
    ]
    for call in calls:
        with pytest.raises(InputError, match=r"divide \[0, 255\] by 255"):
            call()
    assert all(np.array_equal(a, b) for a, b in zip(before, ensemble.get_weights(), strict=True))


def test_labels_are_class_numbers() -> None:
    pair().fit(IMAGES, LABELS[:, np.newaxis], verbose=0)
    for labels, says in (
        (keras.utils.to_categorical(LABELS), "argmax"),
        (LABELS + 1, "from 0 to"),
        (LABELS - 1, "from 0 to"),
        (None, "no labels were given"),
    ):
        with pytest.raises(InputError, match=says):
            pair().fit(IMAGES, labels, verbose=0)


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"loss": "mse"}, "`loss` cannot be chosen"),
        ({"regularizer": keras.regularizers.L2(0.1)}, "`regularizer` must be of type Regularizer"),
        ({"adversarial_training": "pgd"}, "`adversarial_training` must be of type AdversarialTraining"),
        ({"ce_on": "softmax"}, "`ce_on` must be 'logits' or 'probabilities'"),
    ],
)
def test_what_cannot_be_compiled_is_refused(settings: dict[str, Any], says: str) -> None:
    with pytest.raises(InputError) as caught:
        pair(**settings)
    assert says in str(caught.value)


def test_empty_replicas_harm_nothing() -> None:
    command = [sys.executable, "-m", "tests.ensembles.empty_replica"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=600, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    *kinds, nce, dverge = done.stdout.splitlines()[-5:]
    assert kinds == ["own 0 True", "synchronized 0 True", "keras 0 True"]
    for difference in (nce, dverge):
        assert float(difference.split()[1]) < 1e-6, "shared moments must be those of one device"


# Files


def test_a_saved_ensemble_loads_in_a_fresh_process(tmp_path: Path) -> None:
    ensemble = Ensemble([small_member(), small_member()])
    ensemble.compile("adam", NCE(0.1, -0.2, "released"), ce_on="probabilities", seed=5)
    ensemble.fit(IMAGES, LABELS, verbose=0)
    ensemble.save(tmp_path / "e.keras")
    np.savez(tmp_path / "e.npz", images=IMAGES, probabilities=ensemble.predict(IMAGES, verbose=0))
    script = (
        "import keras, ncen_tf, numpy as np\n"
        "ncen_tf.Ensemble  # Public names are loaded at first use, and the class registers itself then.\n"
        f"e = keras.saving.load_model({str(tmp_path / 'e.keras')!r}, safe_mode=True)\n"
        f"data = np.load({str(tmp_path / 'e.npz')!r})\n"
        "assert np.abs(e.predict(data['images'], verbose=0) - data['probabilities']).max() < 1e-6\n"
        "assert e.regularizer == ncen_tf.NCE(0.1, -0.2, 'released'), e.regularizer\n"
        "assert (e.ce_on, e.seed) == ('probabilities', 5)\n"
        "e.fit(data['images'], np.zeros(32), verbose=0)\n"
    )
    subprocess.run([sys.executable, "-c", script], check=True, timeout=200, cwd=ROOT)


def test_mixed_precision_keeps_logits_and_statistics_in_float32() -> None:
    keras.config.set_dtype_policy("mixed_bfloat16")
    ensemble = build_ensemble(["resnet8"] * 2, SHAPE, CLASSES, seed=0)
    assert ensemble.members[0](IMAGES).dtype == tf.float32
    convolution, normalization = ensemble.members[0].layers[1:3]
    assert convolution.compute_dtype == "bfloat16"
    assert normalization.moving_variance.dtype == "float32"
    # Statistics taken in bfloat16 would be off by about 1 part in 256.
    x = tf.cast(convolution(IMAGES), tf.float32)
    fresh = type(normalization)()
    fresh(x, training=True)
    expected = 0.1 * tf.math.reduce_variance(x, [0, 1, 2]) + 0.9
    np.testing.assert_allclose(fresh.moving_variance, expected, rtol=1e-5)
