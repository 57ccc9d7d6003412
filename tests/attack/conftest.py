"""A small ensemble, trained for a few seconds on the embedded sample, and images to attack."""

import keras
import numpy as np
import numpy.typing as npt
import pytest

from ncen_tf.data.dataset import load_data
from tests.attack.stand_in import KerasTarget, ResidualTarget, small_member

Examples = tuple[npt.NDArray[np.float32], npt.NDArray[np.int32]]


@pytest.fixture(scope="session")
def trained() -> list[keras.Model]:
    train = load_data("fashion_mnist_sample").train
    images = train.images[:3000].astype(np.float32) / 255
    members = [small_member(seed) for seed in (1, 2)]
    for member in members:
        member.compile("adam", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
        member.fit(images, train.labels[:3000], batch_size=64, epochs=2, verbose=0)
    return members


@pytest.fixture
def target(trained: list[keras.Model]) -> KerasTarget:
    return KerasTarget(trained)


@pytest.fixture
def residual_target(trained: list[keras.Model]) -> ResidualTarget:
    return ResidualTarget(trained[0])


@pytest.fixture(scope="session")
def examples() -> Examples:
    test = load_data("fashion_mnist_sample").test
    return (test.images[:40] / 255).astype(np.float32), test.labels[:40]
