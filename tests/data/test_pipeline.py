"""D + D_noise: what an epoch holds, how the noise is distributed, and that it can be entered anywhere."""

import math
from typing import Any

import numpy as np
import pytest
import tensorflow as tf

from ncen_tf.data.dataset import Split
from ncen_tf.data.pipeline import (
    add_truncated_noise,
    evaluation_batches,
    random_crop,
    random_flip,
    steps_per_epoch,
    training_batches,
)

KEY = tf.constant([3, 4])


def numbered_split(examples: int) -> Split:
    """Image i is filled with i + 1, so that it is known again after cropping."""
    images = np.broadcast_to(
        np.arange(1, examples + 1, dtype=np.uint8)[:, None, None, None], (examples, 28, 28, 1)
    )
    return Split(np.ascontiguousarray(images), np.arange(examples, dtype=np.int32) % 10)


def epoch(split: Split, noise_eps: float = 0.0, **where: int) -> tuple[list[np.ndarray], list[np.ndarray]]:
    settings: dict[str, Any] = {"epoch": 0, "seed": 0, "crop_padding": 4, "flip": False} | where
    batches = list(training_batches(split, 16, noise_eps=noise_eps, **settings))
    return [images.numpy() for images, _ in batches], [labels.numpy() for _, labels in batches]


def test_an_epoch_holds_every_image_twice_with_its_label() -> None:
    images, labels = epoch(numbered_split(50))
    assert [len(batch) for batch in images] == [16] * 6 + [4]
    assert len(images) == steps_per_epoch(50, 16)
    numbers = np.rint(np.concatenate(images).max((1, 2, 3)) * 255).astype(int) - 1
    assert sorted(numbers) == sorted(list(range(50)) * 2)
    np.testing.assert_array_equal(np.concatenate(labels), numbers % 10)


def test_half_of_an_epoch_is_noisy() -> None:
    split = Split(np.full((100, 28, 28, 1), 128, np.uint8), np.zeros(100, np.int32))
    images = np.concatenate(epoch(split, noise_eps=0.3)[0])
    noisy = [len(np.unique(image)) > 2 for image in images]
    assert sum(noisy) == 100


def test_seed_epoch_and_step_decide_everything() -> None:
    split = numbered_split(40)
    images, _ = epoch(split, 0.3, epoch=2, seed=7)
    again, _ = epoch(split, 0.3, epoch=2, seed=7)
    entered, _ = epoch(split, 0.3, epoch=2, seed=7, skip_steps=3)
    assert all(np.array_equal(a, b) for a, b in zip(images, again, strict=True))
    assert all(np.array_equal(a, b) for a, b in zip(images[3:], entered, strict=True))
    for other in ({"epoch": 3, "seed": 7}, {"epoch": 2, "seed": 8}):
        assert not np.array_equal(images[0], epoch(split, 0.3, **other)[0][0])


def test_noise_is_an_exactly_truncated_normal() -> None:
    eps = 0.3
    grey = tf.fill([400, 28, 28, 1], 0.5)
    noise = (add_truncated_noise(grey, KEY, eps).numpy() - 0.5).ravel() / (eps / 2)
    assert np.abs(noise).max() <= 2 + 1e-5
    assert np.abs(noise).max() > 1.999
    assert abs(noise.mean()) < 0.01
    # Variance of a standard normal cut at +-2: 1 - 2 * 2 phi(2) / (2 Phi(2) - 1)
    density, mass = math.exp(-2) / math.sqrt(2 * math.pi), math.erf(math.sqrt(2))
    assert noise.std() == pytest.approx(math.sqrt(1 - 4 * density / mass), rel=0.01)
    assert np.mean(np.abs(noise) < 1) == pytest.approx(math.erf(math.sqrt(0.5)) / mass, abs=0.01)


def test_noisy_images_stay_in_range() -> None:
    for value in (0.0, 1.0):
        noisy = add_truncated_noise(tf.fill([10, 28, 28, 1], value), KEY, 0.3).numpy()
        assert noisy.min() >= 0
        assert noisy.max() <= 1
        assert 0.4 < np.mean(noisy == value) < 0.6  # the half that was clipped


def test_crops_shift_by_up_to_four_pixels_and_bring_in_zeros() -> None:
    image = np.random.default_rng(0).uniform(0.1, 1, (9, 11, 2)).astype(np.float32)
    crops = random_crop(tf.repeat(image[None], 2000, 0), KEY, 4).numpy()
    padded = np.pad(image, ((4, 4), (4, 4), (0, 0)))
    candidates = {padded[i : i + 9, j : j + 11].tobytes(): (i, j) for i in range(9) for j in range(9)}
    seen = [candidates[crop.tobytes()] for crop in crops]
    assert len(set(seen)) == 81
    assert max(seen.count(place) for place in set(seen)) < 4 * 2000 / 81


def test_flips_mirror_about_half_of_the_images() -> None:
    images = np.random.default_rng(0).uniform(size=(500, 4, 5, 1)).astype(np.float32)
    flipped = random_flip(tf.constant(images), KEY).numpy()
    mirrored = [np.array_equal(a, b[:, ::-1]) for a, b in zip(flipped, images, strict=True)]
    kept = [np.array_equal(a, b) for a, b in zip(flipped, images, strict=True)]
    assert sum(mirrored) + sum(kept) == 500
    assert 200 < sum(mirrored) < 300


def test_evaluation_keeps_the_order() -> None:
    split = numbered_split(20)
    batches = list(evaluation_batches(split, 8))
    assert [len(labels) for _, labels in batches] == [8, 8, 4]
    np.testing.assert_allclose(np.concatenate([i for i, _ in batches]) * 255, split.images, atol=1e-4)
    np.testing.assert_array_equal(np.concatenate([labels for _, labels in batches]), split.labels)
