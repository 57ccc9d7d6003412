"""What is measured on a target to tell whether its gradients mislead."""

import dataclasses

import numpy as np
import numpy.typing as npt
from tqdm import tqdm

from ncen_tf.attack.attack import Attack
from ncen_tf.attack.cleverhans_attacks import FastGradient, ProjectedGradientDescent
from ncen_tf.attack.objectives import Objective
from ncen_tf.attack.square import Square
from ncen_tf.base.errors import InputError
from ncen_tf.targets.target import Target

Images = npt.NDArray[np.float32]
Labels = npt.NDArray[np.int32]
Flags = npt.NDArray[np.bool_]

EXAMPLES = 100
"""Images that a verdict needs: a share of 0.02 of them is two."""
STEPS = 40
NOISE_DRAWS = 10
QUERIES = 500
LARGE_EPS = 0.5
"""From anywhere in [0, 1], this ball reaches mid-grey: every image can become the same one."""


@dataclasses.dataclass(frozen=True)
class Symptoms:
    """Measurements on images that the target classifies right; booleans are one an image."""

    eps: float
    """Linf radius of everything but ``radii``."""
    classes: int
    noise: Flags
    """Whether it withstands 10 draws of uniform noise."""
    one_step: Flags
    """Whether it withstands FGSM."""
    iterative: Flags
    """Whether it withstands PGD with 40 steps."""
    black_box: Flags
    """Whether it withstands Square with 500 queries."""
    radii: dict[float, float]
    """Radius -> share that withstands PGD; the last is 0.5."""
    zero_gradient: Flags
    """Whether the loss has a gradient of exactly zero, or none that is finite."""
    ascends: Flags
    """Whether a step of eps / 100 along the gradient's sign raises the loss."""
    batch_difference: float
    """Largest change of a class probability when an image's batch companions change."""
    logits_are_probabilities: bool
    """Whether what should be logits lies in [0, 1] and sums to 1."""


def measure_symptoms(
    target: Target, images: Images, labels: Labels, eps: float, *, batch_size: int = 50, seed: int = 0
) -> Symptoms:
    """Attack, query and differentiate a target in the ways that tell.

    They are from Athalye et al. (2018, "Obfuscated Gradients Give a False Sense of Security") and Carlini et
    al. (2019, "On Evaluating Adversarial Robustness").

    Args:
        target: what to examine; differentiable.
        images: float32 [N, H, W, C] in [0, 1]; the first :data:`EXAMPLES` are enough.
        labels: int32 [N], their classes.
        eps: Linf radius that robustness is claimed at, > 0.
        batch_size: images at once.
        seed: of everything random, in [0, 2^31).

    Raises:
        InputError: the target classifies none of the images right.
    """
    objective = Objective(target, "ensemble")
    right = _predict(objective, images, batch_size) == labels
    if not right.any():
        raise InputError(
            f"{target.description} classifies none of {len(labels)} images right: nothing to examine."
        )
    images, labels = images[right], labels[right]
    gradients = _gradients(objective, images, labels, batch_size)
    radii = sorted({eps, 2 * eps, LARGE_EPS} if 2 * eps < LARGE_EPS else {eps, LARGE_EPS})
    attacks: list[Attack] = [
        FastGradient(eps=eps),
        Square(eps=eps, queries=QUERIES),
        *(ProjectedGradientDescent(eps=r, steps=STEPS, step_size=r / 10) for r in radii),
    ]
    withstands = {}
    for attack in tqdm(attacks, desc="masked gradients", unit="attack", disable=None):
        found = _attack(attack, objective, images, labels, batch_size, seed)
        withstands[attack.name, attack.eps] = _predict(objective, found, batch_size) == labels
    return Symptoms(
        eps=eps,
        classes=target.classes,
        noise=_withstands_noise(objective, images, labels, eps, batch_size, seed),
        one_step=withstands["FGSM", eps],
        iterative=withstands["PGD", eps],
        black_box=withstands["Square", eps],
        radii={radius: float(withstands["PGD", radius].mean()) for radius in radii},
        zero_gradient=~np.isfinite(gradients).all((1, 2, 3)) | (gradients == 0).all((1, 2, 3)),
        ascends=_ascends(objective, images, labels, gradients, eps / 100, batch_size),
        batch_difference=_batch_difference(objective, images, batch_size, seed),
        logits_are_probabilities=target.gives_logits and _are_probabilities(target, images[:batch_size]),
    )


def _batches(count: int, batch_size: int) -> list[slice]:
    return [slice(start, start + batch_size) for start in range(0, count, batch_size)]


def _predict(objective: Objective, images: Images, batch_size: int) -> Labels:
    parts = [
        _log_probabilities(objective, images[part]).argmax(1) for part in _batches(len(images), batch_size)
    ]
    return np.concatenate(parts).astype(np.int32)


def _log_probabilities(objective: Objective, images: Images) -> npt.NDArray[np.float32]:
    return np.asarray(objective.log_probabilities(images))


def _losses(objective: Objective, images: Images, labels: Labels) -> npt.NDArray[np.float32]:
    return -_log_probabilities(objective, images)[np.arange(len(labels)), labels]


def _gradients(objective: Objective, images: Images, labels: Labels, batch_size: int) -> Images:
    """Gradient of each image's loss, [N, H, W, C]."""
    parts = [
        objective.loss_and_gradient(images[part], labels[part])[1]
        for part in _batches(len(images), batch_size)
    ]
    return np.concatenate(parts)


def _attack(
    attack: Attack, objective: Objective, images: Images, labels: Labels, batch_size: int, seed: int
) -> Images:
    parts = [
        attack(objective, images[part], labels[part], seed) for part in _batches(len(images), batch_size)
    ]
    return np.concatenate(parts)


def _withstands_noise(
    objective: Objective, images: Images, labels: Labels, eps: float, batch_size: int, seed: int
) -> Flags:
    generator = np.random.default_rng(seed)
    right = np.ones(len(images), bool)
    for _ in range(NOISE_DRAWS):
        noise = generator.uniform(-eps, eps, images.shape)
        noisy = np.clip(images + noise, 0, 1).astype(np.float32)
        right &= _predict(objective, noisy, batch_size) == labels
    return right


def _ascends(
    objective: Objective, images: Images, labels: Labels, gradients: Images, step: float, batch_size: int
) -> Flags:
    # Not clipped: at the border of [0, 1] half of the steps would vanish.
    moved = (images + step * np.sign(gradients)).astype(np.float32)
    higher = [
        _losses(objective, moved[part], labels[part]) > _losses(objective, images[part], labels[part])
        for part in _batches(len(images), batch_size)
    ]
    return np.concatenate(higher)


def _batch_difference(objective: Objective, images: Images, batch_size: int, seed: int) -> float:
    batch = images[:batch_size]
    companions = np.random.default_rng(seed).uniform(size=batch.shape).astype(np.float32)
    together = np.concatenate([batch, companions])
    alone, among = (np.exp(_log_probabilities(objective, x))[: len(batch)] for x in (batch, together))
    return float(np.abs(alone - among).max())


def _are_probabilities(target: Target, images: Images) -> bool:
    outputs = target.logits(images)
    return bool((outputs >= 0).all() and np.abs(outputs.sum(-1) - 1).max() < 1e-3)
