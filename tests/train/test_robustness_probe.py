"""The probe of adversarial training against closed forms, and what it makes of a collapse."""

import keras
import numpy as np
import pytest

from ncen_tf.data.dataset import Split
from ncen_tf.ensembles.adversary import Adversary
from ncen_tf.train.robustness_probe import EXAMPLES, RobustnessProbe, warn_of_collapse

EPS = 0.1


def two_class_member(weights: np.ndarray) -> keras.Model:
    """Logits 0 and w (x - 1/2), whose worst image in a ball is known: every pixel moves along sign w."""
    image = keras.Input((4, 4, 1))
    member = keras.Model(image, keras.layers.Dense(2)(keras.layers.Flatten()(image)))
    kernel = np.stack([np.zeros_like(weights), weights], axis=1)
    member.set_weights([kernel, np.array([0, -0.5 * weights.sum()])])
    return member


@pytest.fixture
def weights() -> np.ndarray:
    return np.random.default_rng(0).normal(size=16)


@pytest.fixture
def test_split(weights: np.ndarray) -> Split:
    """More images than are used, all inside [eps, 1 - eps]; one in ten has the wrong label."""
    generator = np.random.default_rng(1)
    images = generator.integers(64, 192, (EXAMPLES + 50, 4, 4, 1)).astype(np.uint8)
    margins = (images.reshape(len(images), -1) / 255 - 0.5) @ weights
    wrong = generator.uniform(size=len(images)) < 0.1
    return Split(images, ((margins > 0) ^ wrong).astype(np.int32))


def test_accuracies_are_those_of_the_closed_form(weights: np.ndarray, test_split: Split) -> None:
    images = test_split.images[:EXAMPLES].reshape(EXAMPLES, -1) / 255
    signed = np.where(test_split.labels[:EXAMPLES] == 1, 1, -1) * ((images - 0.5) @ weights)
    half_way = Adversary(EPS, 1, EPS / 2, random_start=False)
    found = RobustnessProbe([two_class_member(weights)] * 2, half_way).measure(test_split)
    reach = EPS * np.abs(weights).sum()
    assert found == pytest.approx(
        {
            "training_attack_accuracy": float((signed > reach / 2).mean()),
            "pgd_accuracy": float((signed > reach).mean()),
        }
    )
    assert found["training_attack_accuracy"] > found["pgd_accuracy"] + 0.1
    assert "--at_steps" in (warn_of_collapse(found) or "")


def test_a_little_less_under_the_longer_attack_is_no_collapse() -> None:
    assert warn_of_collapse({"training_attack_accuracy": 0.79, "pgd_accuracy": 0.75}) is None
