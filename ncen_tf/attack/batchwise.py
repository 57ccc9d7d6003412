"""An attack, or a prediction, batch by batch."""

import logging
import math
import time
from collections.abc import Iterator

import numpy as np
import numpy.typing as npt
import tensorflow as tf
from tqdm import tqdm

from ncen_tf.attack.attack import Attack
from ncen_tf.attack.checks import check_adversarials
from ncen_tf.attack.objectives import Objective
from ncen_tf.attack.result_files import BatchFiles
from ncen_tf.attack.results import SHOWN, AttackedBatch, AttackResult
from ncen_tf.base.errors import InputError

logger = logging.getLogger(__name__)

Images = npt.NDArray[np.float32]
Labels = npt.NDArray[np.int32]


def run_attack(
    attack: Attack,
    objective: Objective,
    images: Images,
    labels: Labels,
    batch_size: int,
    seed: int,
    files: BatchFiles | None = None,
) -> tuple[Images, AttackResult]:
    """Make adversarial images batch by batch, with a progress bar, and see what they do.

    Args:
        attack: what makes them.
        objective: what it attacks.
        images: float32 [N, H, W, C] in [0, 1].
        labels: int32 [N].
        batch_size: images at once.
        seed: of the attack's random choices, with the batch's number.
        files: of batches that an earlier run finished, which are taken from there, and of those that this one
            does; ``None`` keeps none.

    Returns:
        Adversarial images like ``images``, and what came of them.

    Raises:
        InputError: images that leave the attack's ball or are not finite, or answers that are not finite.
    """
    done = files.read((batch_size, *images.shape[1:])) if files else []
    parts = list(_padded_batches(len(images), batch_size))
    finished = min(len(done) * batch_size, len(images))
    if finished:
        logger.info("%s: %d images were attacked by an earlier run", attack.label, finished)
    with tqdm(total=len(images), initial=finished, desc=attack.label, unit="image", disable=None) as progress:
        for number in range(len(done), len(parts)):
            part, indices = parts[number]
            batch_seed = int(np.random.default_rng([seed, number]).integers(2**31))
            done.append(_attack_batch(attack, objective, images[indices], labels[indices], batch_seed))
            if files:
                files.write(number, done[-1])
            progress.update(part.stop - part.start)
    adversarials = np.concatenate([images[:0], *(batch.adversarials for batch in done)])[: len(images)]
    check_adversarials(attack, images, adversarials)
    started = time.perf_counter()
    predictions = predict(objective, adversarials, batch_size, attack.label)
    seconds = time.perf_counter() - started + sum(batch.seconds for batch in done)
    attacked = max(1, len(done)) * batch_size
    passes = (
        sum(batch.queries for batch in done) / attacked,
        sum(batch.gradients for batch in done) / attacked,
    )
    return adversarials, measured(attack.settings(), images, adversarials, predictions, passes, seconds)


def _attack_batch(
    attack: Attack, objective: Objective, images: Images, labels: Labels, seed: int
) -> AttackedBatch:
    started, queries, gradients = time.perf_counter(), objective.queries, objective.gradients
    found = attack(objective, tf.constant(images), tf.constant(labels, tf.int32), seed)
    return AttackedBatch(
        np.asarray(found),
        objective.queries - queries,
        objective.gradients - gradients,
        time.perf_counter() - started,
    )


def measured(
    settings: dict[str, object],
    images: Images,
    adversarials: Images,
    predictions: Labels,
    passes: tuple[float, float],
    seconds: float,
) -> AttackResult:
    """What an attack came to.

    Args:
        settings: of the attack.
        images: float32 [N, H, W, C] in [0, 1].
        adversarials: like ``images``.
        predictions: int32 [N], the ensemble's classes for them.
        passes: forward and backward passes per image.
        seconds: that all of it took.
    """
    change = (adversarials - images).reshape(len(images), math.prod(images.shape[1:]))
    l2, linf = np.linalg.norm(change, axis=1), np.abs(change).max(axis=1)
    attacked = np.ones(len(images), bool)
    return AttackResult(settings, attacked, predictions, l2, linf, adversarials[:SHOWN], *passes, seconds)


def predict(objective: Objective, images: Images, batch_size: int, what: str) -> Labels:
    """Classes that a target's ensemble predicts: int32 [N] for images [N, H, W, C].

    Raises:
        InputError: an answer is not finite; ``what`` names the images in the message.
    """
    predictions = np.empty(len(images), np.int32)
    for part, indices in _padded_batches(len(images), batch_size):
        scores = np.asarray(objective.answer(tf.constant(images[indices])))
        if not np.isfinite(scores).all():
            raise InputError(
                f"{objective.target.description} gives NaN or infinite outputs on {what}: "
                "nothing can be measured on it."
            )
        predictions[part] = scores.argmax(axis=1)[: part.stop - part.start]
    return predictions


def even_batch_size(count: int, most: int) -> int:
    """The size of as few batches as possible that are as full as each other."""
    return -(-count // -(-count // most)) if count else most


def _padded_batches(count: int, batch_size: int) -> Iterator[tuple[slice, npt.NDArray[np.intp]]]:
    """Slices of the examples, each with ``batch_size`` indices.

    The last one is filled up from the first examples on: images repeated within a batch would distort its
    statistics, where a target normalises with them.
    """
    for start in range(0, count, batch_size):
        indices = np.arange(start, start + batch_size)
        yield slice(start, min(start + batch_size, count)), indices % count
