"""Runs a suite on a target, batch by batch, and checks what comes back."""

import hashlib
import logging
import math
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt
import tensorflow as tf
from tqdm import tqdm

from ncen_tf.attacks.attack import Attack
from ncen_tf.attacks.checks import check_adversarials, check_examples
from ncen_tf.attacks.objectives import Objective, ObjectiveName
from ncen_tf.attacks.results import (
    SHOWN,
    AttackResult,
    SavedAdversarials,
    SuiteResult,
    read_adversarials,
    read_result,
    result_file_name,
    result_key,
    write_adversarials,
    write_result,
)
from ncen_tf.attacks.suites import Suite
from ncen_tf.errors import InputError
from ncen_tf.targets.target import Target

logger = logging.getLogger(__name__)

Images = npt.NDArray[np.float32]
Labels = npt.NDArray[np.int32]


def run_suite(
    target: Target,
    images: Images,
    labels: Labels,
    suite: Suite,
    objective: ObjectiveName,
    *,
    batch_size: int = 64,
    seed: int = 0,
    state_dir: Path | None = None,
    save_adversarials: Path | None = None,
) -> SuiteResult:
    """Run every attack of a suite.

    In a cumulative suite an attack meets only the examples that are right when clean and under the attacks
    before it, at the same norm and eps.

    A finished attack is stored in ``state_dir`` under a hash of all that its outcome depends on, so the
    same call after an interruption goes on where it stopped, and any other call starts afresh.

    Args:
        target: what is attacked.
        images: float32 [N, H, W, C] in [0, 1].
        labels: int32 [N] in [0, classes).
        suite: the attacks.
        objective: what gradient attacks maximise: ``member_average`` or ``ensemble``.
        batch_size: images attacked at once; the last batch is padded to it. The most of a cumulative suite,
            whose batches are equally full.
        seed: of all random starts and searches, in [0, 2^31).
        state_dir: folder for finished attacks; ``None`` keeps none.
        save_adversarials: folder for all adversarial images, one file an attack; ``None`` saves none.

    Raises:
        InputError: images, labels or logits that cannot be used, or an attack that this target or
            installation does not allow.
        RuntimeError: an attack left its ball or [0, 1]; its numbers would be wrong.
    """
    check_examples(target, images, labels, batch_size)
    attacked = Objective(target, objective)
    clean = predict(attacked, images, batch_size, "clean images")
    context: list[str | int] = [
        target.description,
        target.sha256,
        hashlib.sha256(images.tobytes() + labels.tobytes()).hexdigest(),
        attacked.name,
        batch_size,
        seed,
    ]
    for folder in (state_dir, save_adversarials):
        if folder is not None:
            folder.mkdir(parents=True, exist_ok=True)
    results, resumed = [], 0
    standing: dict[tuple[str, float], npt.NDArray[np.bool_]] = {}
    for attack in suite.attacks:
        ball = attack.norm, attack.eps
        met = standing.get(ball, clean == labels) if suite.cumulative else np.ones(len(images), bool)
        key = result_key(attack, [*context, hashlib.sha256(met.tobytes()).hexdigest()])
        name = result_file_name(attack, key)
        saved = save_adversarials / name if save_adversarials else None
        result = read_result(state_dir / name, key) if state_dir else None
        if result is not None and (saved is None or saved.is_file()):
            logger.info("%s: finished by an earlier run", attack.label)
            resumed += 1
        else:
            shown = images[met], labels[met]
            size = _even_batch_size(len(shown[1]), batch_size) if suite.cumulative else batch_size
            adversarials, among_met = run_attack(attack, attacked, *shown, size, seed)
            result = among_met.among(met, clean)
            if saved is not None:
                images_made = SavedAdversarials(shown[0], adversarials, shown[1], result.settings)
                write_adversarials(saved, images_made)
            if state_dir is not None:
                write_result(state_dir / name, key, result)
        standing[ball] = met & (result.predictions == labels)
        results.append(result)
    return SuiteResult(labels, clean, results, resumed)


def replay(target: Target, file: Path, batch_size: int = 64) -> SuiteResult:
    """Evaluate saved adversarial examples on another target: how far an attack transfers.

    Args:
        target: what they are shown to.
        file: written by :func:`run_suite`.
        batch_size: images at once.

    Raises:
        InputError: not such a file, or images that the target does not take.
    """
    saved = read_adversarials(file)
    check_examples(target, saved.images, saved.labels, batch_size)
    started = time.perf_counter()
    shown_to = Objective(target, "ensemble")
    clean = predict(shown_to, saved.images, batch_size, "clean images")
    predictions = predict(shown_to, saved.adversarials, batch_size, "adversarial images")
    seconds = time.perf_counter() - started
    result = _result(saved.settings, saved.images, saved.adversarials, predictions, (1.0, 0.0), seconds)
    return SuiteResult(saved.labels, clean, [result], 0)


def run_attack(
    attack: Attack, objective: Objective, images: Images, labels: Labels, batch_size: int, seed: int
) -> tuple[Images, AttackResult]:
    """Make adversarial images batch by batch, with a progress bar, and see what they do.

    Args:
        attack: what makes them.
        objective: what it attacks.
        images: float32 [N, H, W, C] in [0, 1].
        labels: int32 [N].
        batch_size: images at once.
        seed: of the attack's random choices, with the batch's number.

    Returns:
        Adversarial images like ``images``, and what came of them.

    Raises:
        InputError: images that leave the attack's ball or are not finite, or answers that are not finite.
    """
    started, queries, gradients = time.perf_counter(), objective.queries, objective.gradients
    adversarials = np.empty_like(images)
    with tqdm(total=len(images), desc=attack.label, unit="image", disable=None) as progress:
        for number, (part, indices) in enumerate(_padded_batches(len(images), batch_size)):
            batch_seed = int(np.random.default_rng([seed, number]).integers(2**31))
            batch = tf.constant(images[indices]), tf.constant(labels[indices], tf.int32)
            found = np.asarray(attack(objective, *batch, batch_seed))
            adversarials[part] = found[: part.stop - part.start]
            progress.update(part.stop - part.start)
    check_adversarials(attack, images, adversarials)
    attacked = max(1, -(-len(images) // batch_size)) * batch_size
    passes = (objective.queries - queries) / attacked, (objective.gradients - gradients) / attacked
    predictions = predict(objective, adversarials, batch_size, attack.label)
    seconds = time.perf_counter() - started
    return adversarials, _result(attack.settings(), images, adversarials, predictions, passes, seconds)


def _result(
    settings: dict[str, object],
    images: Images,
    adversarials: Images,
    predictions: Labels,
    passes: tuple[float, float],
    seconds: float,
) -> AttackResult:
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


def _even_batch_size(count: int, most: int) -> int:
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
