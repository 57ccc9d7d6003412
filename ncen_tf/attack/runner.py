"""Runs a suite on a target batch by batch, or shows it saved adversarial images."""

import hashlib
import logging
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from tqdm import tqdm

from ncen_tf.attack.attack import Array, Attack, Labels, sizes_of
from ncen_tf.attack.losses import Array64, log_mean_probabilities, margins_of
from ncen_tf.attack.objectives import Objective
from ncen_tf.attack.results import (
    SHOWN,
    AttackedBatch,
    AttackFiles,
    SavedAdversarials,
    SavedInfo,
    SuiteResult,
    read_kept_images,
    result_file_name,
    result_key,
    write_adversarials,
)
from ncen_tf.attack.suites import NEAR, Suite
from ncen_tf.attack.whole_pixels import round_adversarials
from ncen_tf.base.errors import InputError
from ncen_tf.report.results import AttackResult
from ncen_tf.targets.target import Target

logger = logging.getLogger(__name__)


class Job(NamedTuple):
    """A batch to attack."""

    number: int
    """Position of the batch, from 0."""
    images: Array
    labels: Labels
    seed: int


RunJobs = Callable[[Attack, Iterable[Job]], Iterator[tuple[int, AttackedBatch]]]
"""Attacks batches, and yields them by number in any order."""

# Rounding of image + eps in float32, and of a sum of squares.
_ROUNDING = {"Linf": 1e-6, "L2": 1e-4, "L1": 1e-3, "L0": 0.0}


def run_suite(
    target: Target,
    images: Array,
    labels: Labels,
    suite: Suite,
    *,
    seed: int = 0,
    state_dir: Path | None = None,
    save_adversarials: Path | None = None,
    dataset: str = "arrays",
    class_names: Sequence[str] = (),
    run_jobs: RunJobs | None = None,
) -> SuiteResult:
    """Run every attack of a suite.

    In a cumulative suite an attack is run only on the examples that are classified correctly when clean and
    under the attacks before it, at the same norm and eps; if it is one of ``suite.near_only``, only on those
    whose margin these attacks have lowered to :data:`NEAR` of the clean image's or less.

    A finished attack is stored in ``state_dir`` under a hash of all that its outcome depends on, and so
    are the finished batches of an unfinished one: the same call after an interruption goes on with the
    next batch, and any other call starts afresh.

    Args:
        target: What is attacked.
        images: float32 [N, H, W, C] in [0, 1].
        labels: int32 [N] in [0, classes).
        suite: The attacks, what they maximise, and how many images are attacked at a time.
        seed: Of all random starts and searches, in [0, 2^31).
        state_dir: Folder for finished attacks and batches; ``None`` keeps none.
        save_adversarials: Folder for what each attack leaves of every image, one file an attack. In a
            cumulative suite, images that it was not run on are as the attacks before it left them. ``None``
            saves none.
        dataset: Name of the images' dataset, stored with saved images.
        class_names: Names of its classes, stored with saved images.
        run_jobs: Attacks the batches elsewhere, such as on a Ray cluster; ``None`` attacks them here.

    Raises:
        InputError: Images, labels or logits cannot be used, or the target or installation does not allow an
            attack.
        RuntimeError: An attack left its perturbation bound or [0, 1]; its numbers would be wrong.
    """
    check_examples(target, images, labels)
    objective = Objective(target, suite.objective)
    clean_scores = score(objective, images, suite.batch_size, "clean images")
    clean, clean_margins = clean_scores.argmax(axis=1).astype(np.int32), margins_of(clean_scores, labels)
    context: list[str | int] = [
        hashlib.sha256(images.tobytes() + labels.tobytes()).hexdigest(),
        suite.objective,
        suite.batch_size,
        seed,
    ]
    for folder in (state_dir, save_adversarials):
        if folder is not None:
            folder.mkdir(parents=True, exist_ok=True)
    results, resumed = [], 0
    correct: dict[tuple[str, float], npt.NDArray[np.bool_]] = {}
    least: dict[tuple[str, float], Array] = {}
    left: dict[tuple[str, float], Array] = {}
    for attack in suite.attacks:
        chosen = correct.get(attack.threat_model, clean == labels)
        margin = least.get(attack.threat_model, clean_margins)
        if not suite.cumulative:
            chosen = np.ones(len(images), bool)
        elif attack in suite.near_only:
            chosen = chosen & (margin <= NEAR * clean_margins)
        key = result_key(attack, target, [*context, hashlib.sha256(chosen.tobytes()).hexdigest()])
        saved = save_adversarials / result_file_name(attack, key) if save_adversarials else None
        files = AttackFiles(state_dir, attack, key)
        result = files.read_result()
        kept = read_kept_images(saved, images.shape) if result is not None else None
        if result is not None and (saved is None or kept is not None):
            logger.info("%s: finished by an earlier run", attack.label)
            resumed += 1
        else:
            size = suite.batch_size
            if suite.cumulative and chosen.any():  # as few batches as possible, all of about one size
                size = -(-int(chosen.sum()) // -(-int(chosen.sum()) // size))
            adversarials, result = run_attack(
                attack,
                objective,
                images[chosen],
                labels[chosen],
                size,
                seed,
                files,
                run_jobs,
                clean_margins[chosen],
            )
            result = result.among(chosen, clean, clean_margins)
            if saved is not None:
                kept = left.get(attack.threat_model, images).copy()
                kept[chosen] = adversarials
                info = SavedInfo(
                    settings=result.settings,
                    objective=suite.objective,
                    dataset=dataset,
                    class_names=tuple(class_names),
                )
                write_adversarials(saved, SavedAdversarials(images, kept, labels, info))
            files.write_result(result)
        before = correct.get(attack.threat_model, clean == labels)
        correct[attack.threat_model] = before & (result.predictions == labels)
        least[attack.threat_model] = np.minimum(margin, result.margins)
        if kept is not None:
            left[attack.threat_model] = kept
        results.append(result)
    return SuiteResult(labels, clean, results, resumed, clean_margins)


def replay(target: Target, saved: SavedAdversarials, batch_size: int = 100) -> SuiteResult:
    """Evaluate saved adversarial examples on another target: how far an attack transfers.

    Args:
        target: What they are shown to.
        saved: Images that :func:`run_suite` saved.
        batch_size: Number of images at a time.

    Raises:
        InputError: The target does not take the images.
    """
    check_examples(target, saved.images, saved.labels)
    started = time.perf_counter()
    objective = Objective(target, "ensemble")
    clean_scores = score(objective, saved.images, batch_size, "clean images")
    clean = clean_scores.argmax(axis=1).astype(np.int32)
    scores = score(objective, saved.adversarials, batch_size, "adversarial images")
    seconds = time.perf_counter() - started
    margins = margins_of(clean_scores, saved.labels)
    result = _measure(
        saved.info.settings,
        saved.images,
        saved.adversarials,
        saved.labels,
        scores,
        (1.0, 0.0),
        seconds,
        margins,
    )
    return SuiteResult(saved.labels, clean, [result], 0, margins)


def run_attack(
    attack: Attack,
    objective: Objective,
    images: Array,
    labels: Labels,
    batch_size: int,
    seed: int,
    files: AttackFiles | None = None,
    run_jobs: RunJobs | None = None,
    clean_margins: npt.NDArray[np.float32] | None = None,
) -> tuple[Array, AttackResult]:
    """Make adversarial images batch by batch, with a progress bar, and measure what they do.

    Args:
        attack: What makes them.
        objective: What it attacks.
        images: float32 [N, H, W, C] in [0, 1].
        labels: int32 [N].
        batch_size: Number of images at a time.
        seed: Of the attack's random choices, with the batch's number unless they are each image's own.
        files: Where batches that an earlier run finished are, and those of this one go; ``None`` keeps none.
        run_jobs: Attacks the batches elsewhere; ``None`` attacks them here.
        clean_margins: [N], by which the images that a page shows are chosen; ``None`` shows the first.

    Returns:
        Adversarial images like ``images``, and the result.

    Raises:
        InputError: Images or answers are not finite.
        RuntimeError: Images leave the attack's perturbation bound or [0, 1].
    """
    parts = list(_batches(len(images), batch_size, objective.target.batch_statistics))
    done = files.read_batches(len(parts)) if files else {}
    finished = sum(count for number, (count, _) in enumerate(parts) if number in done)
    if finished:
        logger.info("%s: %d images were attacked by an earlier run", attack.label, finished)
    jobs = (
        Job(
            number,
            images[indices],
            labels[indices],
            seed if attack.seeded_by_image else int(np.random.default_rng([seed, number]).integers(2**31)),
        )
        for number, (_, indices) in enumerate(parts)
        if number not in done
    )
    results = (
        run_jobs(attack, jobs)
        if run_jobs
        else ((job.number, attack_batch(attack, objective, job)) for job in jobs)
    )
    with tqdm(total=len(images), initial=finished, desc=attack.label, unit="image", disable=None) as progress:
        for number, batch in results:
            done[number] = batch
            if files:
                files.write_batch(number, batch)
            progress.update(parts[number][0])
    batches = [done[number] for number in range(len(parts))]
    adversarials = np.concatenate([images[:0], *(batch.adversarials for batch in batches)])[: len(images)]
    if objective.target.whole_pixels:
        adversarials = round_adversarials(attack, images, adversarials)
    _check_adversarials(attack, images, adversarials)
    started = time.perf_counter()
    scores = score(objective, adversarials, batch_size, attack.label)
    seconds = time.perf_counter() - started + sum(batch.seconds for batch in batches)
    attacked = max(1, sum(len(indices) for _, indices in parts))
    passes = (
        sum(batch.queries for batch in batches) / attacked,
        sum(batch.gradients for batch in batches) / attacked,
    )
    if clean_margins is None:
        clean_margins = np.ones(len(images), np.float32)
    return adversarials, _measure(
        attack.settings(), images, adversarials, labels, scores, passes, seconds, clean_margins
    )


def attack_batch(attack: Attack, objective: Objective, job: Job) -> AttackedBatch:
    """Attack one batch, and count what it costs."""
    started, queries, gradients = time.perf_counter(), objective.queries, objective.gradients
    adversarials = attack(objective, job.images, job.labels, job.seed)
    return AttackedBatch(
        adversarials,
        objective.queries - queries,
        objective.gradients - gradients,
        time.perf_counter() - started,
    )


def predict(objective: Objective, images: Array, batch_size: int, what: str) -> Labels:
    """Predict the ensemble's classes: float32 [N, H, W, C] -> int32 [N]; see :func:`score`."""
    return score(objective, images, batch_size, what).argmax(axis=1).astype(np.int32)


def score(objective: Objective, images: Array, batch_size: int, what: str) -> Array64:
    """Compute the ensemble's log-probabilities: float32 [N, H, W, C] -> float64 [N, classes].

    Raises:
        InputError: A logit is not finite; ``what`` names the images in the message.
    """
    found = np.empty((len(images), objective.target.classes))
    for start, (count, indices) in zip(
        range(0, len(images), batch_size),
        _batches(len(images), batch_size, objective.target.batch_statistics),
        strict=True,
    ):
        scores = log_mean_probabilities(objective.logits(images[indices]))
        if not np.isfinite(scores).all():
            raise InputError(
                f"{objective.target.description} gives NaN or infinite outputs on {what}: "
                "nothing can be measured on it."
            )
        found[start : start + count] = scores[:count]
    return found


def check_examples(target: Target, images: Array, labels: Labels) -> None:
    """Refuse images and labels that an attack cannot start from.

    Raises:
        InputError: They have a wrong shape, type, range or number.
    """
    shape = tuple(target.image_shape)
    if images.dtype != np.float32 or images.ndim != 4 or images.shape[1:] != shape:
        transposed = shape[1:] + shape[:1] == images.shape[1:]
        way_out = " If its ONNX file takes channels first, set `input_layout`=NCHW." if transposed else ""
        raise InputError(
            f"{target.description} takes float32 images of shape {shape}; "
            f"got {images.dtype} {images.shape[1:]}.{way_out}"
        )
    if not len(images) or labels.shape != (len(images),):
        raise InputError(f"Attacks need as many labels as images; got {labels.shape} and {images.shape}.")
    if not (images.min() >= 0 and images.max() <= 1):  # False for a NaN
        raise InputError("Attacks need images in [0, 1]; some are outside or NaN.")
    if labels.min() < 0 or labels.max() >= target.classes:
        raise InputError(
            f"Labels must be in [0, {target.classes}), the target's classes; got {labels.min()} to "
            f"{labels.max()}."
        )


def _batches(count: int, size: int, fill: bool) -> Iterator[tuple[int, npt.NDArray[np.intp]]]:
    """Cut the examples into batches: how many are new in each, and their indices.

    With ``fill`` the last batch is as large as the others, filled up from the first examples on: a target
    that normalises with batch statistics needs full batches, and copies within one would distort them.
    """
    for start in range(0, count, size):
        new = min(size, count - start)
        yield new, np.arange(start, start + (size if fill else new)) % count


def _measure(
    settings: dict[str, object],
    images: Array,
    adversarials: Array,
    labels: Labels,
    scores: Array64,
    passes: tuple[float, float],
    seconds: float,
    clean_margins: npt.NDArray[np.float32],
) -> AttackResult:
    change = (adversarials - images).reshape(len(images), int(np.prod(images.shape[1:])))
    l2, linf = np.linalg.norm(change, axis=1), np.abs(change).max(axis=1)
    predictions = scores.argmax(axis=1).astype(np.int32)
    broken = (clean_margins > 0) & (predictions != labels)
    shown = np.sort(np.lexsort((clean_margins, ~broken))[:SHOWN])
    return AttackResult(
        settings=settings,
        attacked=np.ones(len(images), bool),
        predictions=predictions,
        l2=l2,
        linf=linf,
        shown=adversarials[shown],
        shown_index=shown,
        queries_per_image=passes[0],
        gradients_per_image=passes[1],
        seconds=seconds,
        margins=margins_of(scores, labels),
    )


def _check_adversarials(attack: Attack, images: Array, adversarials: Array) -> None:
    """Refuse what an attack must not return."""
    if not len(images):
        return
    if not np.isfinite(adversarials).all():
        raise InputError(
            f"{attack.label} made NaN or infinite images: the target's gradients are not finite."
        )
    farthest = sizes_of(adversarials - images, attack.norm).max()
    if farthest > attack.eps + _ROUNDING[attack.norm]:
        raise RuntimeError(f"{attack.label} moved an image by {farthest:g}: a bug, its numbers are wrong.")
    if adversarials.min() < 0 or adversarials.max() > 1:
        raise RuntimeError(f"{attack.label} left [0, 1]: a bug, its numbers are wrong.")
