"""Targets and images to attack: a small ensemble trained for seconds on the sample, and a linear one."""

import keras
import numpy as np
import pytest

from ncen_tf.data.loading import load_data
from ncen_tf.ensembles.ensemble import Ensemble
from ncen_tf.targets.tensorflow_targets import KerasTarget
from tests.attack.helpers import (
    Examples,
    LinearTarget,
    images_and_predictions,
    linear_target,
    small_member,
)


@pytest.fixture(scope="session")
def trained() -> list[keras.Model]:
    train = load_data("fashion_mnist_sample").train
    members = [small_member(seed) for seed in (1, 2)]
    for member in members:
        member.compile("adam", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
        member.fit(train.float_images()[:3000], train.labels[:3000], batch_size=64, epochs=2, verbose=0)
    return members


@pytest.fixture
def target(trained: list[keras.Model]) -> KerasTarget:
    return KerasTarget(Ensemble(trained), "small ensemble")


@pytest.fixture
def residual_target(trained: list[keras.Model]) -> KerasTarget:
    return KerasTarget(trained[0], "small classifier")


@pytest.fixture(scope="session")
def examples() -> Examples:
    test = load_data("fashion_mnist_sample").test
    return test.float_images()[:40], test.labels[:40].astype(np.int32)


@pytest.fixture
def linear() -> LinearTarget:
    return linear_target()


@pytest.fixture
def shown(linear: LinearTarget) -> Examples:
    """Images that the linear target classifies correctly."""
    return images_and_predictions(linear, 20)
