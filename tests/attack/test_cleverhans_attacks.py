"""The CleverHans attacks against their steps, written out in NumPy on a loss without columns."""

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import tensorflow as tf

from ncen_tf.attack.objectives import Objective, ObjectiveName
from ncen_tf.attack.registry import ATTACKS
from tests.attack.conftest import Examples
from tests.attack.stand_in import KerasTarget

Array = npt.NDArray[np.float32]
Labels = npt.NDArray[np.int32]

# Two steps: the sign of a gradient near zero is noise, and more steps would spread it.
_TWO_STEPS = {"eps": 0.1, "steps": 2, "step_size": 0.06}
SETTINGS: dict[str, dict[str, Any]] = {
    "FGSM": {"eps": 0.1},
    "MI-FGSM": _TWO_STEPS | {"decay": 0.7},
    "PGD": _TWO_STEPS,
    "BIM": _TWO_STEPS,
}


def gradient(target: KerasTarget, objective: ObjectiveName, images: Array, labels: Labels) -> Array:
    """Of the cross-entropy that the objective stands for, without its columns."""
    x = tf.constant(images)
    chosen = tf.one_hot(labels, target.classes)[:, tf.newaxis]
    with tf.GradientTape() as tape:
        tape.watch(x)
        logits = target.member_logits(x)
        if objective == "member_average":
            chosen = tf.repeat(chosen, target.members, axis=1)
            loss = tf.reduce_mean(tf.nn.softmax_cross_entropy_with_logits(chosen, logits), axis=1)
        else:
            mean = tf.reduce_mean(tf.nn.softmax(logits), axis=1)
            loss = -tf.math.log(tf.reduce_sum(mean * chosen[:, 0], axis=1))
    return np.asarray(tape.gradient(loss, x))


def written_out(
    attack: Any, target: KerasTarget, objective: ObjectiveName, start: Array, images: Array, labels: Labels
) -> Array:
    """The definition of each attack, in NumPy."""
    if attack.name == "FGSM":
        return np.clip(images + attack.eps * np.sign(gradient(target, objective, images, labels)), 0, 1)
    x, momentum = start, np.zeros_like(images)
    for _ in range(attack.steps):
        direction = gradient(target, objective, x, labels)
        if attack.name == "MI-FGSM":
            momentum = attack.decay * momentum + direction / np.abs(direction).mean((1, 2, 3), keepdims=True)
            direction = momentum
        x = np.clip(x + attack.step_size * np.sign(direction), images - attack.eps, images + attack.eps)
        x = np.clip(x, 0, 1)
    return x


@pytest.mark.parametrize("objective", ["member_average", "ensemble"])
@pytest.mark.parametrize("name", SETTINGS)
def test_cleverhans_attacks_take_the_steps_of_their_definition(
    name: str, objective: ObjectiveName, target: KerasTarget, examples: Examples
) -> None:
    images, labels = examples[0][:10], examples[1][:10]
    attack = ATTACKS[name](**SETTINGS[name])
    attacked = Objective(target, objective)
    found = np.asarray(attack(attacked, tf.constant(images), tf.constant(labels, tf.int32), seed=9))
    start = images
    if name == "PGD":
        tf.random.set_seed(9)
        noise = tf.random.uniform(images.shape, -attack.eps, attack.eps)
        start = np.clip(images + noise, 0, 1)
    expected = written_out(attack, target, objective, start, images, labels)
    assert np.mean(np.abs(found - expected) > 1e-5) < 0.002
    steps = getattr(attack, "steps", 1)
    assert (attacked.queries, attacked.gradients) == (10 * steps, 10 * steps)


def test_pgd_starts_at_random(target: KerasTarget, examples: Examples) -> None:
    attack = ATTACKS["PGD"](**SETTINGS["PGD"])
    objective = Objective(target, "ensemble")
    batch = tf.constant(examples[0][:4]), tf.constant(examples[1][:4])
    assert np.any(attack(objective, *batch, seed=1) != attack(objective, *batch, seed=2))
