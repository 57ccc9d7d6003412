"""Keras callbacks: measurements against NumPy, checkpoints under damage, NaN."""

import contextlib
import itertools
import os
import resource
import signal
from collections.abc import Iterator
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf

import ncen_tf
from ncen_tf.base.errors import InputError
from ncen_tf.train.callbacks import (
    PROBED_EXAMPLES,
    Checkpoint,
    DivergedError,
    GradientDiagnostics,
    RobustnessProbe,
    StopOnNaN,
)
from ncen_tf.train.run_directory import checkpoint_file, checkpoint_steps

STEPS = 100


def linear_member(classes: int, shape: tuple[int, int, int]) -> keras.Model:
    image = keras.Input(shape)
    return keras.Model(image, keras.layers.Dense(classes)(keras.layers.Flatten()(image)))


@pytest.fixture(scope="module")
def ensemble() -> ncen_tf.Ensemble:
    ensemble = ncen_tf.Ensemble([linear_member(10, (8, 8, 1)) for _ in range(2)])
    ensemble.compile(keras.optimizers.Adam())
    ensemble.optimizer.build(ensemble.trainable_variables)
    return ensemble


@pytest.fixture
def checkpoint(ensemble: ncen_tf.Ensemble, tmp_path: Path) -> Checkpoint:
    checkpoint = Checkpoint(tmp_path)
    checkpoint.set_model(ensemble)
    return checkpoint


def bias(ensemble: ncen_tf.Ensemble) -> keras.Variable:
    return ensemble.members[1].layers[-1].bias


def save(checkpoint: Checkpoint, *numbers: int) -> None:
    """Save checkpoints whose weights tell their number."""
    for number in numbers:
        checkpoint.epoch, checkpoint.step = divmod(number, STEPS)
        checkpoint.model.optimizer.iterations.assign(number)
        bias(checkpoint.model).assign(np.full(10, number))
        checkpoint.save()


def restored(checkpoint: Checkpoint) -> int:
    """Return the number of the checkpoint whose weights are read."""
    assert checkpoint.restore(checkpoint.model)
    number = checkpoint.epoch * STEPS + checkpoint.step
    np.testing.assert_array_equal(bias(checkpoint.model), np.full(10, number))
    assert int(checkpoint.model.optimizer.iterations) == number
    return number


def test_the_two_newest_checkpoints_by_steps_are_kept(checkpoint: Checkpoint, tmp_path: Path) -> None:
    assert not checkpoint.restore(checkpoint.model)
    save(checkpoint, 0, 9, 10, 200)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["step-10.npz", "step-200.npz"]
    os.utime(checkpoint_file(tmp_path, 200), (0, 0))
    assert restored(checkpoint) == 200
    assert (checkpoint.epoch, checkpoint.step) == (2, 0)


@pytest.mark.parametrize("kept", [0.0, 0.5, 0.999])
def test_a_truncated_newest_falls_back_to_the_one_before_and_says_so(
    checkpoint: Checkpoint, tmp_path: Path, caplog: pytest.LogCaptureFixture, kept: float
) -> None:
    save(checkpoint, 9, 10)
    file = checkpoint_file(tmp_path, 10)
    content = file.read_bytes()
    file.write_bytes(content[: int(len(content) * kept)])
    assert restored(checkpoint) == 9
    assert "Checkpoint 10 is damaged" in caplog.text
    assert checkpoint_steps(tmp_path) == [9], "a damaged one must not count among those kept"


def test_a_flipped_bit_and_values_that_are_not_finite_are_damage(
    checkpoint: Checkpoint, tmp_path: Path
) -> None:
    save(checkpoint, 8, 9)
    file = checkpoint_file(tmp_path, 9)
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)
    assert restored(checkpoint) == 8
    save(checkpoint, 9)
    with np.load(file) as arrays:
        np.savez(file, **{name: arrays[name] * (np.nan if "weights" in name else 1) for name in arrays})
    assert restored(checkpoint) == 8


def test_when_all_are_damaged_nothing_is_started_over(checkpoint: Checkpoint, tmp_path: Path) -> None:
    save(checkpoint, 9, 10)
    for file in tmp_path.iterdir():
        file.write_bytes(b"")
    with pytest.raises(InputError, match=r"No checkpoint in .* can be read: all 2 are damaged"):
        checkpoint.restore(checkpoint.model)
    assert checkpoint_steps(tmp_path) == [9, 10]


def test_checkpoints_of_another_model_are_refused(checkpoint: Checkpoint) -> None:
    save(checkpoint, 9)
    other = ncen_tf.Ensemble([linear_member(10, (8, 9, 1)) for _ in range(2)])
    other.compile("adam")
    other.optimizer.build(other.trainable_variables)
    with pytest.raises(InputError, match="of another model"):
        checkpoint.restore(other)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_what_is_not_finite_is_never_saved(checkpoint: Checkpoint, tmp_path: Path, value: float) -> None:
    save(checkpoint, 9)
    bias(checkpoint.model).assign(np.full(10, value))
    checkpoint.model.optimizer.iterations.assign(10)
    with pytest.raises(DivergedError, match="weights of member 1 are not"):
        checkpoint.save()
    assert checkpoint_steps(tmp_path) == [9]
    assert restored(checkpoint) == 9


@contextlib.contextmanager
def files_up_to(size: int) -> Iterator[None]:
    """The kernel refuses to write beyond this size, as on a full disk."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        signal.signal(signal.SIGXFSZ, handler)


def test_a_full_disk_leaves_earlier_checkpoints_intact(checkpoint: Checkpoint, tmp_path: Path) -> None:
    save(checkpoint, 8, 9)
    with files_up_to(1000), pytest.raises(OSError, match="File too large"):
        save(checkpoint, 10)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["step-8.npz", "step-9.npz"]
    assert restored(checkpoint) == 9


def images(count: int, shape: tuple[int, int, int], classes: int) -> ncen_tf.Split:
    generator = np.random.default_rng(0)
    pixels = generator.integers(0, 256, size=(count, *shape)).astype(np.uint8)
    names = tuple(map(str, range(classes)))
    return ncen_tf.Split(pixels, generator.integers(0, classes, count).astype(np.int32), "noise", names)


def fitted(folder: Path, epochs: int) -> tuple[list[np.ndarray], dict[str, list[float]]]:
    """Fit as in a notebook, with all callbacks."""
    data = images(30, (8, 8, 1), 10)
    keras.utils.set_random_seed(1)
    ensemble = ncen_tf.Ensemble([linear_member(10, (8, 8, 1)) for _ in range(2)])
    adversarial = ncen_tf.AdversarialTraining(eps=0.1, steps=1)
    ensemble.compile("adam", ncen_tf.NCE(), adversarial_training=adversarial)
    ensemble.optimizer.build(ensemble.trainable_variables)
    measured = [GradientDiagnostics(data), RobustnessProbe(data), StopOnNaN()]
    history = ensemble.fit(
        data.images,
        data.labels,
        batch_size=10,
        epochs=epochs,
        shuffle=False,
        verbose=2,
        callbacks=[*measured, Checkpoint(folder)],
    )
    return ensemble.get_weights(), history.history


def test_fit_goes_on_with_the_epoch_after_the_checkpoint(tmp_path: Path) -> None:
    whole, history = fitted(tmp_path / "whole", 3)
    fitted(tmp_path / "parts", 2)
    resumed, rest = fitted(tmp_path / "parts", 3)
    for one, other in zip(whole, resumed, strict=True):
        np.testing.assert_array_equal(one, other)
    assert len(history["loss"]) == 3
    assert {name: values[2:] for name, values in history.items()} == rest
    expected = {"test_clean_accuracy", "test_pairwise_cosine", "test_pgd_accuracy", "loss", "l_cos"}
    assert expected <= history.keys()


def test_a_checkpoint_within_an_epoch_is_not_for_fit(checkpoint: Checkpoint, tmp_path: Path) -> None:
    save(checkpoint, 9)
    again = Checkpoint(tmp_path)
    again.set_model(checkpoint.model)
    with pytest.raises(InputError, match="within an epoch"):
        again.on_train_begin()


def test_nan_stops_fit_and_names_parts_and_members() -> None:
    data = images(30, (8, 8, 1), 10)
    ensemble = ncen_tf.Ensemble([linear_member(10, (8, 8, 1)) for _ in range(3)])
    ensemble.compile("sgd", ncen_tf.GPMR())
    kernel = ensemble.members[1].layers[-1].kernel
    kernel.assign(kernel * 3e38)
    with pytest.raises(
        DivergedError, match=r"by step 1 of epoch 1: .*ce.* not finite; weights of member .*1"
    ):
        ensemble.fit(data.images, data.labels, batch_size=10, verbose=0, callbacks=[StopOnNaN()])


def test_diagnostics_are_means_over_all_images() -> None:
    """Linear members on 11 images in batches of 4: d CE / d x = (p - onehot) W^T."""
    generator = np.random.default_rng(0)
    ensemble = ncen_tf.Ensemble([linear_member(4, (3, 3, 1)) for _ in range(3)])
    ensemble.set_weights([generator.normal(size=w.shape) for w in ensemble.get_weights()])
    data = images(11, (3, 3, 1), 4)
    diagnostics = GradientDiagnostics(data)
    diagnostics.set_model(ensemble)
    found = diagnostics.measure(batch_size=4)

    gradients, predicted = [], []
    for member in ensemble.members:
        weights = member.get_weights()[0].astype(float)
        p = tf.nn.softmax(member(data.images / 255)).numpy().astype(float)
        predicted.append(p)
        gradients.append((p - np.eye(4)[data.labels]) @ weights.T)
    g = np.stack(gradients, axis=1)
    norms = np.linalg.norm(g, axis=2)
    deviations = norms / norms.mean(1, keepdims=True) - 1
    unit = g / norms[..., np.newaxis]
    mean = g.mean(1)
    assert found["clean_accuracy"] == pytest.approx((np.mean(predicted, 0).argmax(1) == data.labels).mean())
    assert found["gradient_norm"] == pytest.approx(norms.mean(0), rel=1e-4)
    assert found["norm_deviation"] == pytest.approx(deviations.mean(0), abs=1e-4)
    assert found["norm_spread"] == pytest.approx(np.sqrt((deviations**2).mean()), rel=1e-4)
    pairs = [(unit[:, i] * unit[:, j]).sum(1).mean() for i, j in itertools.combinations(range(3), 2)]
    assert found["pairwise_cosine"] == pytest.approx(np.mean(pairs), abs=1e-4)
    cosines = (unit * mean[:, np.newaxis]).sum(2) / np.linalg.norm(mean, axis=1)[:, np.newaxis]
    assert found["cosine_to_mean"] == pytest.approx(cosines.mean(0), abs=1e-4)


def test_probe_finds_the_accuracies_of_the_closed_form_and_warns(caplog: pytest.LogCaptureFixture) -> None:
    """Logits 0 and w (x - 1/2): within the bound, every pixel of the worst image moves along sign w."""
    eps, generator = 0.1, np.random.default_rng(0)
    weights = generator.normal(size=16)
    # More images than are used, all inside [eps, 1 - eps]; one in ten has the wrong label.
    pixels = generator.integers(64, 192, (PROBED_EXAMPLES + 50, 4, 4, 1)).astype(np.uint8)
    margins = (pixels.reshape(len(pixels), -1) / 255 - 0.5) @ weights
    labels = ((margins > 0) ^ (generator.uniform(size=len(pixels)) < 0.1)).astype(np.int32)
    ensemble = ncen_tf.Ensemble([linear_member(2, (4, 4, 1)) for _ in range(2)])
    for member in ensemble.members:
        kernel = np.stack([np.zeros_like(weights), weights], axis=1)
        member.set_weights([kernel, np.array([0, -0.5 * weights.sum()])])
    half_way = ncen_tf.AdversarialTraining(eps=eps, steps=1, step_size=eps / 2, random_start=False)
    ensemble.compile(adversarial_training=half_way)
    probe = RobustnessProbe(ncen_tf.Split(pixels, labels))
    probe.set_model(ensemble)
    logs: dict[str, float] = {}
    probe.on_epoch_end(0, logs)
    signed = (np.where(labels == 1, 1, -1) * margins)[:PROBED_EXAMPLES]
    reach = eps * np.abs(weights).sum()
    assert logs == pytest.approx(
        {
            "test_training_attack_accuracy": float((signed > reach / 2).mean()),
            "test_pgd_accuracy": float((signed > reach).mean()),
        }
    )
    assert "learnt to mislead the attack" in caplog.text
