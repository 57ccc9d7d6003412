"""Runs a suite on a target, or shows it saved adversarial images."""

import hashlib
import logging
import time
from pathlib import Path

import numpy as np
import numpy.typing as npt

from ncen_tf.attack.batchwise import Images, Labels, even_batch_size, measured, predict, run_attack
from ncen_tf.attack.checks import check_examples
from ncen_tf.attack.objectives import Objective, ObjectiveName
from ncen_tf.attack.result_files import (
    BatchFiles,
    read_kept_images,
    read_result,
    result_file_name,
    result_key,
    write_adversarials,
    write_result,
)
from ncen_tf.attack.results import SavedAdversarials, SuiteResult
from ncen_tf.attack.suites import Suite
from ncen_tf.targets.target import Target

logger = logging.getLogger(__name__)


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

    A finished attack is stored in ``state_dir`` under a hash of all that its outcome depends on, and so
    are the finished batches of one that is under way: the same call after an interruption goes on with the
    next batch, and any other call starts afresh.

    Args:
        target: what is attacked.
        images: float32 [N, H, W, C] in [0, 1].
        labels: int32 [N] in [0, classes).
        suite: the attacks.
        objective: what gradient attacks maximise: ``member_average`` or ``ensemble``.
        batch_size: images attacked at once; the last batch is padded to it. The most of a cumulative suite,
            whose batches are equally full.
        seed: of all random starts and searches, in [0, 2^31).
        state_dir: folder for finished attacks and batches; ``None`` keeps none.
        save_adversarials: folder for what each attack leaves of every image, one file an attack: in a
            cumulative suite, images that it did not meet are as the attacks before it left them. ``None``
            saves none.

    Raises:
        InputError: images, labels or logits that cannot be used, or an attack that this target or
            installation does not allow.
        RuntimeError: an attack left its ball or [0, 1]; its numbers would be wrong.
    """
    check_examples(target, images, labels, batch_size)
    attacked = Objective(target, objective)
    clean = predict(attacked, images, batch_size, "clean images")
    context: list[str | int] = [
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
    left: dict[tuple[str, float], Images] = {}
    for attack in suite.attacks:
        met = standing.get(attack.ball, clean == labels) if suite.cumulative else np.ones(len(images), bool)
        key = result_key(attack, target, [*context, hashlib.sha256(met.tobytes()).hexdigest()])
        name = result_file_name(attack, key)
        saved = save_adversarials / name if save_adversarials else None
        batches = BatchFiles((state_dir / name).with_suffix(".batches"), key) if state_dir else None
        result = read_result(state_dir / name, key) if state_dir else None
        kept = read_kept_images(saved, images.shape) if result is not None and saved else None
        if result is not None and (saved is None or kept is not None):
            logger.info("%s: finished by an earlier run", attack.label)
            resumed += 1
        else:
            shown = images[met], labels[met]
            size = even_batch_size(len(shown[1]), batch_size) if suite.cumulative else batch_size
            adversarials, among_met = run_attack(attack, attacked, *shown, size, seed, batches)
            result = among_met.among(met, clean)
            if saved is not None:
                kept = left.get(attack.ball, images).copy()
                kept[met] = adversarials
                write_adversarials(
                    saved, SavedAdversarials(images, kept, labels, result.settings, attacked.name)
                )
            if state_dir is not None:
                write_result(state_dir / name, key, result)
        if batches is not None:
            batches.remove()
        standing[attack.ball] = met & (result.predictions == labels)
        if kept is not None:
            left[attack.ball] = kept
        results.append(result)
    return SuiteResult(labels, clean, results, resumed)


def replay(target: Target, saved: SavedAdversarials, batch_size: int = 64) -> SuiteResult:
    """Evaluate saved adversarial examples on another target: how far an attack transfers.

    Args:
        target: what they are shown to.
        saved: images that :func:`run_suite` saved.
        batch_size: images at once.

    Raises:
        InputError: images that the target does not take.
    """
    check_examples(target, saved.images, saved.labels, batch_size)
    started = time.perf_counter()
    shown_to = Objective(target, "ensemble")
    clean = predict(shown_to, saved.images, batch_size, "clean images")
    predictions = predict(shown_to, saved.adversarials, batch_size, "adversarial images")
    seconds = time.perf_counter() - started
    result = measured(saved.settings, saved.images, saved.adversarials, predictions, (1.0, 0.0), seconds)
    return SuiteResult(saved.labels, clean, [result], 0)
