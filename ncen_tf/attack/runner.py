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

from ncen_tf.attack.attack import Array, Attack, Budget, Labels, sizes_of
from ncen_tf.attack.losses import Array64, margins_of
from ncen_tf.attack.objectives import Objective
from ncen_tf.attack.results import (
    SHOWN,
    AttackedBatch,
    AttackFiles,
    SavedAdversarials,
    SavedInfo,
    read_kept_images,
    result_file_name,
    result_key,
    write_adversarials,
)
from ncen_tf.attack.scoring import batches_of, check_examples, round_adversarials, score
from ncen_tf.attack.suites import NEAR, Suite
from ncen_tf.base.errors import InputError
from ncen_tf.report.results import AttackResult, SuiteResult
from ncen_tf.targets.target import Target

logger = logging.getLogger(__name__)


class Job(NamedTuple):
    """A batch to attack."""

    number: int
    """Position of the batch, from 0."""
    images: Array
    labels: Labels
    seed: int


class _State(NamedTuple):
    """What the attacks so far, at one norm and eps, have left of N images."""

    correct: npt.NDArray[np.bool_]
    margins: Array
    """The least ones."""
    images: Array
    spent: Budget = Budget(0, 0)
    """Passes for all images together."""


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
    whose margin these attacks have lowered to ``NEAR`` of the clean image's or less. Where the suite has an
    allowance, an attack is run on fewer images if it could cost more than is left.

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
        class_names: Names of its classes.
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
        *(["8 bits"] if suite.round_to_8bit else []),
    ]
    for folder in (state_dir, save_adversarials):
        if folder is not None:
            folder.mkdir(parents=True, exist_ok=True)
    results, resumed = [], 0
    states: dict[tuple[str, float], _State] = {}
    for attack in suite.attacks:
        state = states.get(attack.threat_model, _State(clean == labels, clean_margins, images))
        chosen = state.correct if suite.cumulative else np.ones(len(images), bool)
        if suite.cumulative and attack in suite.near_only:
            chosen = chosen & (state.margins <= NEAR * clean_margins)
        if suite.allowance is not None:
            chosen = _afford(attack, target, chosen, state, suite.allowance)
        key = result_key(attack, target, [*context, hashlib.sha256(chosen.tobytes()).hexdigest()])
        saved = save_adversarials / result_file_name(attack, key) if save_adversarials else None
        files = AttackFiles(state_dir, attack, key) if state_dir else None
        result = files.read_result() if files else None
        kept = read_kept_images(saved, images.shape) if saved and result else None
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
                suite.round_to_8bit,
            )
            result = result.among(chosen, clean, clean_margins)
            if saved is not None:
                kept = state.images.copy()
                kept[chosen] = adversarials
                info = SavedInfo(
                    settings=result.settings,
                    objective=suite.objective,
                    dataset=dataset,
                    class_names=tuple(class_names),
                )
                write_adversarials(saved, SavedAdversarials(images, kept, labels, info))
            if files:
                files.write_result(result)
        states[attack.threat_model] = _State(
            state.correct & (result.predictions == labels),
            np.minimum(state.margins, result.margins),
            images if kept is None else kept,
            Budget(state.spent.gradients + result.gradients, state.spent.queries + result.queries),
        )
        results.append(result)
    return SuiteResult(labels, clean, clean_margins, results, tuple(class_names), resumed)


def _afford(
    attack: Attack, target: Target, chosen: npt.NDArray[np.bool_], state: _State, allowance: Budget
) -> npt.NDArray[np.bool_]:
    """Keep the chosen images [N] of the smallest margins: as many as what is left pays the attack for."""
    budget = attack.budget(target.classes, target.members)
    if budget is None:
        raise InputError(
            f"{attack.label}: its passes are not known beforehand, so `allowance` cannot be kept."
        )
    count = int(chosen.sum())
    for each, spent, needed in zip(allowance, state.spent, budget, strict=True):
        if needed:
            left = each * target.calls * len(chosen) - spent
            count = min(count, max(0, left) // (needed * target.calls))
    nearest = np.argsort(np.where(chosen, state.margins, np.inf), kind="stable")[:count]
    kept = np.zeros_like(chosen)
    kept[nearest] = True
    return kept


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
    settings, images, adversarials = saved.info.settings, saved.images, saved.adversarials
    result = _measure(settings, images, adversarials, saved.labels, scores, (1.0, 0.0), seconds, margins)
    return SuiteResult(saved.labels, clean, margins, [result], saved.info.class_names)


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
    round_to_8bit: bool = False,
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
        round_to_8bit: Round the images to multiples of 1/255, as for a target that takes whole pixels.

    Returns:
        Adversarial images like ``images``, and the result.

    Raises:
        InputError: Images or answers are not finite.
        RuntimeError: Images leave the attack's perturbation bound or [0, 1].
    """
    parts = list(batches_of(len(images), batch_size, objective.target.batch_statistics))
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
    if round_to_8bit or objective.target.whole_pixels:
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
    shown = np.sort(np.lexsort((clean_margins, ~broken))[: min(SHOWN, int(broken.sum()))])
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
