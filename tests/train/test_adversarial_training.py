"""The adversary against ascent written out in NumPy on linear members, and training against it."""

import json
from collections.abc import Callable
from pathlib import Path

import keras
import numpy as np
import numpy.typing as npt
import pytest
import tensorflow as tf

from ncen_tf.ensembles.adversarial import AdversarialTraining, Form
from ncen_tf.ensembles.adversary import Adversary, AdversaryLoss, cross_entropy_to_raise
from ncen_tf.ensembles.ensemble import Ensemble
from ncen_tf.ensembles.regularizers import NCE
from tests.conftest import Program

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


def ascend(
    members: list[keras.Model], images: Array, labels: npt.NDArray[np.int32], adversary: Adversary
) -> list[Array]:
    """Sign ascent without random start, gradients by hand: member i's logits are x W_i + b_i."""
    weights = [[w.astype(float) for w in member.get_weights()] for member in members]
    truth = np.eye(CLASSES)[labels]
    points = [images.reshape(COUNT, -1).astype(float)] * len(members)
    low, high = np.clip(points[0] - adversary.eps, 0, 1), np.clip(points[0] + adversary.eps, 0, 1)
    for _ in range(adversary.steps):
        p = [softmax(x @ w + b) for x, (w, b) in zip(points, weights, strict=True)]
        if adversary.loss == "members":
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
            np.clip(x + adversary.step_size * np.sign(g), low, high)
            for x, g in zip(points, gradients, strict=True)
        ]
    return [x.reshape(images.shape) for x in points]


@pytest.mark.parametrize("loss", ["ensemble", "members"])
@pytest.mark.parametrize("steps", [1, 4])
def test_adversary_climbs_as_written_out(
    loss: AdversaryLoss, steps: int, members: list[keras.Model], batch: tuple[Array, npt.NDArray[np.int32]]
) -> None:
    images, labels = batch
    adversary = Adversary(0.2, steps, 0.07, random_start=False, loss=loss)
    raised = cross_entropy_to_raise(tf.constant(labels), loss)
    found = tf.function(lambda x: adversary(members, x, raised, KEY))(tf.constant(images))
    for ours, expected in zip(found, ascend(members, images, labels, adversary), strict=True):
        np.testing.assert_allclose(ours, expected, atol=1e-6)


def test_members_answer_the_adversary_in_inference_mode(
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
    adversary = Adversary(0.2, 3, 0.07, random_start=False)
    (found,) = AdversarialTraining(adversary).attack(
        [normalized], tf.constant(images), tf.constant(labels), KEY
    )
    np.testing.assert_allclose(found, ascend([folded], images, labels, adversary)[0], atol=1e-6)
    assert [float(v[0]) for v in normalization.non_trainable_weights] == pytest.approx([0.3, 0.04])


def test_random_starts_stay_in_the_ball_and_follow_the_key(
    members: list[keras.Model], batch: tuple[Array, npt.NDArray[np.int32]]
) -> None:
    images, labels = batch
    adversary = Adversary(0.2, 1, 1e-9, loss="members")
    raised = cross_entropy_to_raise(tf.constant(labels), "members")
    first, again = (np.array(adversary(members, tf.constant(images), raised, KEY)) for _ in range(2))
    other = np.array(adversary(members, tf.constant(images), raised, KEY + 1))
    np.testing.assert_array_equal(first, again)
    assert np.abs(first - other).max() > 0.1
    assert np.abs(first[0] - first[1]).max() > 0.1, "each member starts at a point of its own"
    assert np.abs(first - images).max() <= 0.2 + 1e-6
    assert np.abs(first - images).max() > 0.15
    assert first.min() >= 0
    assert first.max() <= 1


@pytest.mark.parametrize("form", ["pgd", "trades"])
def test_only_the_fraction_is_attacked(
    form: Form, members: list[keras.Model], batch: tuple[Array, npt.NDArray[np.int32]]
) -> None:
    images, labels = batch
    scheme = AdversarialTraining(Adversary(0.2, 2, 0.1), form, fraction=0.4)
    for found in scheme.attack(members, tf.constant(images), tf.constant(labels), KEY):
        moved = np.abs(found - images).max(axis=(1, 2, 3)) > 0
        np.testing.assert_array_equal(moved, [True, True, True, False, False, False])


def test_trades_adds_the_members_mean_divergence() -> None:
    generator = np.random.default_rng(1)
    clean, attacked = generator.normal(size=(2, COUNT, 3, CLASSES))
    p, q = softmax(clean), softmax(attacked)
    expected = (p * np.log(p / q)).sum(-1).mean(-1)
    scheme = AdversarialTraining(Adversary(0.1, 1, 0.1), "trades")
    found = scheme.divergence(tf.constant(clean), tf.constant(attacked))
    np.testing.assert_allclose(found, expected, atol=1e-12)


@pytest.mark.parametrize(
    ("scheme", "jit_compile"),
    [
        (AdversarialTraining(Adversary(0.1, 2, 0.05)), False),
        (AdversarialTraining(Adversary(0.1, 2, 0.05, loss="members"), fraction=0.5), True),
        (AdversarialTraining(Adversary(0.1, 2, 0.05), "trades", beta=3.0), False),
    ],
)
def test_step_descends_on_the_loss_at_the_adversarial_images(
    scheme: AdversarialTraining,
    jit_compile: bool,
    members: list[keras.Model],
    batch: tuple[Array, npt.NDArray[np.int32]],
) -> None:
    """One SGD step against the same loss put together outside of the model."""
    images, labels = (tf.constant(part) for part in batch)
    ensemble = Ensemble(members)
    regularizer = NCE(0.3, 0.2)
    optimizer = keras.optimizers.SGD(0.5)
    ensemble.compile(optimizer, regularizer, adversarial_training=scheme, seed=7, jit_compile=jit_compile)
    key = tf.random.fold_in(tf.constant([7, 0]), 0)
    # XLA fuses and rounds in its own way, and a sign can turn on it: compare like with like.
    attack = tf.function(lambda: scheme.attack(members, images, labels, key), jit_compile=jit_compile)
    attacked = attack()
    seen = attacked if scheme.form == "pgd" else [images] * 3
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
        total += tf.reduce_mean(regularizer(tf.stack(gradients, 1)).value)
        if scheme.form == "trades":
            for member, x in zip(members, attacked, strict=True):
                p, q = (tf.nn.softmax(member(v)) for v in (images, x))
                total += 3.0 * tf.reduce_mean(tf.reduce_sum(p * tf.math.log(p / q), 1)) / 3
    slopes = outer.gradient(total, ensemble.trainable_variables)
    logs = ensemble.train_on_batch(images, labels, return_dict=True)
    assert logs["loss"] == pytest.approx(float(total), abs=1e-5)
    for variable, before, slope in zip(ensemble.trainable_variables, start, slopes, strict=True):
        np.testing.assert_allclose(variable.numpy(), before - 0.5 * slope, atol=1e-5)


def test_compiled_ensemble_is_saved_with_its_adversary(members: list[keras.Model], tmp_path: Path) -> None:
    scheme = AdversarialTraining(Adversary(0.1, 2, 0.05, loss="members"), "trades", 0.5, 2.0)
    ensemble = Ensemble(members)
    ensemble.compile("adam", adversarial_training=scheme, seed=5)
    ensemble.save(tmp_path / "e.keras")
    loaded = keras.saving.load_model(tmp_path / "e.keras", safe_mode=True)
    assert (loaded.adversarial_training, loaded.seed) == (scheme, 5)


TINY = (
    "--dataset=fashion_mnist_sample",
    "--train_examples=40",
    "--test_examples=20",
    "--architecture=resnet8,resnet8",
    "--batch_size=16",
    "--regularizer=none",
    "--deterministic",
    "--adversarial_training=pgd",
    "--at_steps=2",
)


def test_program_resumes_step_exactly(run_program: Program, tmp_path: Path) -> None:
    """An adversary whose starts came from a running generator would differ after a restart."""
    whole, halves = tmp_path / "whole", tmp_path / "halves"
    run_program("train", *TINY, "--epochs=2", f"--run_dir={whole}")
    run_program("train", *TINY, "--epochs=1", f"--run_dir={halves}")
    (halves / "summary.json").unlink()
    flagfile = halves / "flags.cfg"
    flagfile.write_text(flagfile.read_text().replace("--epochs=1", "--epochs=2"))
    run_program("train", *TINY, "--epochs=2", f"--run_dir={halves}")
    weights = [
        keras.saving.load_model(run / "ensemble.keras", compile=False).get_weights()
        for run in (whole, halves)
    ]
    for one, other in zip(*weights, strict=True):
        np.testing.assert_array_equal(one, other)
    measured = [
        [json.loads(line)["test"] for line in (run / "metrics.jsonl").read_text().splitlines()]
        for run in (whole, halves)
    ]
    for name in ("training_attack_accuracy", "pgd_accuracy"):
        assert [test[name] for test in measured[0]] == [test[name] for test in measured[1]]
        assert 0 <= measured[0][-1][name] <= measured[0][-1]["ace"]


def test_program_trains_with_trades(run_program: Program, tmp_path: Path) -> None:
    run = tmp_path / "run"
    done = run_program("train", *TINY, "--adversarial_training=trades", "--epochs=1", f"--run_dir={run}")
    assert done.returncode == 0, done.stderr
    (line,) = map(json.loads, (run / "metrics.jsonl").read_text().splitlines())
    train = line["train"]
    assert train["divergence"] > 0
    assert train["loss"] == pytest.approx(train["ce"] + 6.0 * train["divergence"], rel=1e-4)


def test_wrong_flags_are_refused(refuse: Callable[..., None], tmp_path: Path) -> None:
    for flag, says in (
        ("--at_eps=0", "--at_eps is finite in float32 and above 0"),
        ("--at_fraction=1.5", "--at_fraction is above 0 and at most 1"),
        ("--at_steps=0", "--at_steps is at least 1"),
    ):
        refuse("train", *TINY, flag, f"--run_dir={tmp_path / 'run'}", says=says)
    refuse(
        "train",
        *TINY,
        "--adversarial_training=trades",
        "--noat_random_start",
        says="no gradient at the image",
    )
