"""Splits: what images they take, and the samples that are drawn from them."""

import logging

import numpy as np
import pytest

from ncen_tf.base.errors import InputError
from ncen_tf.data.dataset import Split


def numbered(labels: list[int]) -> Split:
    """One pixel an image, which holds its number."""
    images = np.arange(len(labels), dtype=np.uint8).reshape(-1, 1, 1, 1)
    return Split(images, np.array(labels), class_names=("a", "b", "c"))


@pytest.mark.parametrize("dtype", ["uint8", "float32", "float64", "float16"])
def test_bytes_and_floats_are_the_same_images(dtype: str) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (5, 4, 3, 3)).astype(np.uint8)
    given = pixels if dtype == "uint8" else (pixels / 255).astype(dtype)
    split = Split(given, np.arange(5, dtype=np.int32))
    assert split.images.dtype == (np.uint8 if dtype == "uint8" else np.float32)
    assert split.float_images().dtype == np.float32
    np.testing.assert_allclose(split.float_images(), pixels / 255, atol=1e-3 if dtype == "float16" else 1e-7)


def test_arrays_as_keras_datasets_has_them_are_taken() -> None:
    pixels, labels = np.arange(32, dtype=np.uint8).reshape(2, 4, 4), np.array([[1], [0]])
    split = Split(pixels, labels)
    np.testing.assert_array_equal(split.images, pixels[:, :, :, np.newaxis])
    assert split.labels.tolist() == [1, 0]


@pytest.mark.parametrize(
    ("images", "says"),
    [
        (np.zeros((2, 4, 4, 3), np.int64), r"uint8 or floats \[N, H, W, C\] .* got int64 \[2, 4, 4, 3\]"),
        (np.zeros((2, 4, 4, 3), np.uint16), "uint8 or floats in .* got uint16"),
        (np.zeros((2, 3, 4, 4), np.uint8), r"1 or 3 channels, got uint8 \[2, 3, 4, 4\]"),
        (np.zeros((2, 16), np.uint8), r"got uint8 \[2, 16\]"),
        (np.full((2, 4, 4, 1), 255.0), r"in \[0, 1\], got 255 to 255: divide"),
        (np.full((2, 4, 4, 1), np.nan), r"in \[0, 1\], got nan"),
        (np.full((2, 4, 4, 1), -1.0), r"map \[-1, 1\] by"),
        (np.full((2, 4, 4, 1), "x"), "got <U1"),
    ],
)
def test_what_are_no_images_is_refused(images: np.ndarray, says: str) -> None:
    with pytest.raises(InputError, match=says):
        Split(images, np.zeros(2, int))


def test_a_sample_without_a_seed_is_the_first_of_every_class_in_order() -> None:
    part = numbered([1, 0, 2, 0, 1, 2, 1, 0, 0]).sample(6)
    assert part.images.ravel().tolist() == [0, 1, 2, 3, 4, 5]
    assert part.labels.tolist() == [1, 0, 2, 0, 1, 2]


def test_a_sample_is_as_balanced_as_the_numbers_allow(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "ncen_tf")
    split = numbered([0] * 10 + [1] * 2 + [2] * 7)
    for examples, counts in (
        (3, [1, 1, 1]), (6, [2, 2, 2]), (7, [3, 2, 2]), (8, [3, 2, 3]), (15, [6, 2, 7]), (19, [10, 2, 7])
    ):  # fmt: skip
        for seed in (None, 3):
            assert np.bincount(split.sample(examples, seed).labels).sum() == examples
            assert sorted(np.bincount(split.sample(examples, seed).labels)) == sorted(counts)
    assert "Drew 8 of 19 images: 2 to 3 of each class" in caplog.text
    assert "Drew 6 of" not in caplog.text


def test_a_seed_draws_at_random_and_again_the_same() -> None:
    split = numbered([0, 1, 2] * 60)
    drawn = [split.sample(30, seed).images.ravel().tolist() for seed in (0, 0, 1)]
    assert drawn[0] == drawn[1] != drawn[2]
    assert drawn[0] == sorted(set(drawn[0]))
    # Every image is as likely as any other: 400 samples of 1 in 6 images, 67 times each on average.
    counts = np.bincount(np.concatenate([split.sample(30, seed).images.ravel() for seed in range(400)]))
    assert 30 < counts.min() < counts.max() < 110


@pytest.mark.parametrize("examples", [0, -2, 8])
def test_impossible_samples_are_refused(examples: int) -> None:
    with pytest.raises(
        InputError, match=f"`examples` must be from 1 to 7, the number of images, got {examples}"
    ):
        numbered([1, 0, 0, 1, 1, 0, 0]).sample(examples)
