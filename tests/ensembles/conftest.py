"""Images with a pattern that small members can learn, and small members."""

from collections.abc import Iterator
from typing import Any

import keras
import numpy as np
import numpy.typing as npt
import pytest

SHAPE, CLASSES = (8, 8, 1), 4


def small_member(*layers: keras.layers.Layer, **dense: Any) -> keras.Model:
    """Build layers, Flatten and Dense on images 8 x 8, as a Sequential model."""
    return keras.Sequential(
        [keras.Input(SHAPE), *layers, keras.layers.Flatten(), keras.layers.Dense(CLASSES, **dense)]
    )


def examples(count: int) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.int64]]:
    """Make noisy copies of one random image for each class."""
    generator = np.random.default_rng(0)
    patterns, labels = generator.random((CLASSES, *SHAPE)), np.arange(count) % CLASSES
    return (0.7 * patterns[labels] + 0.3 * generator.random((count, *SHAPE))).astype(np.float32), labels


@pytest.fixture(autouse=True)
def _reset_precision() -> Iterator[None]:
    """Leave no precision behind for other tests, and draw the same weights in each."""
    keras.utils.set_random_seed(0)
    yield
    keras.config.set_floatx("float32")
    keras.config.set_dtype_policy("float32")
