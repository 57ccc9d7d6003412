"""Makes adversarial images on each member and shows them to all."""

import dataclasses
import hashlib
import logging
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from ncen_tf.attack.attack import Attack
from ncen_tf.attack.objectives import Objective
from ncen_tf.attack.results import (
    AttackFiles,
    SavedAdversarials,
    SavedInfo,
    read_kept_images,
    result_file_name,
    result_key,
    write_adversarials,
)
from ncen_tf.attack.runner import check_examples, predict, run_attack
from ncen_tf.base.errors import InputError
from ncen_tf.targets.target import Target

logger = logging.getLogger(__name__)

Images = npt.NDArray[np.float32]
Labels = npt.NDArray[np.int32]


@dataclasses.dataclass(frozen=True)
class TransferResult:
    """Predictions of k members on N clean images and on those that were made on each member."""

    labels: Labels
    """[N]."""
    clean: Labels
    """[k, N]."""
    adversarial: list[Labels]
    """For each attack [k, k, N]; [i, j] are member j's predictions on the images made on member i."""
    resumed: int
    """Sets of adversarial images that an earlier run had made."""


def run_transfer(
    members: Sequence[Target],
    images: Images,
    labels: Labels,
    attacks: Sequence[Attack],
    *,
    folder: Path,
    batch_size: int = 64,
    seed: int = 0,
    dataset: str = "arrays",
) -> TransferResult:
    """Attack each member on its own cross-entropy and show the images to every member.

    The images of each attack and member are kept in ``folder`` under a hash of all that they depend on: the
    same call after an interruption goes on with the next batch, and ``ncen_tf.attack --replay`` takes the
    finished ones.

    Args:
        members: targets with one member each.
        images: float32 [N, H, W, C] in [0, 1].
        labels: int32 [N] in [0, classes).
        attacks: what makes the images.
        folder: of adversarial images, made if it is missing.
        batch_size: images at once; PGD's random starts depend on it.
        seed: of random starts, in [0, 2^31).
        dataset: name of the images' dataset.

    Raises:
        InputError: images, labels or logits that cannot be used, or a member that is never right.
        RuntimeError: an attack left its ball or [0, 1]; its numbers would be wrong.
    """
    for member in members:
        check_examples(member, images, labels)
    # Of a single member, the ensemble's loss is the member's own cross-entropy.
    objectives = [Objective(member, "ensemble") for member in members]

    def predictions(shown: Images, what: str) -> Labels:
        return np.stack([predict(objective, shown, batch_size, what) for objective in objectives])

    clean = predictions(images, "clean images")
    _check_some_right(members, clean == labels)
    folder.mkdir(parents=True, exist_ok=True)
    examples = hashlib.sha256(images.tobytes() + labels.tobytes()).hexdigest()
    adversarial = [np.empty((len(members), *clean.shape), np.int32) for _ in attacks]
    resumed = 0
    for source, objective in enumerate(objectives):
        member = objective.target
        logger.info("%d of %d: images made on %s", source + 1, len(members), member.description)
        for attack, shown in zip(attacks, adversarial, strict=True):
            key = result_key(attack, member, [examples, batch_size, seed])
            file = folder / result_file_name(attack, key)
            files = AttackFiles(folder, attack, key)
            made = read_kept_images(file, images.shape)
            resumed += made is not None
            if made is not None:
                logger.info("%s: made by an earlier run", attack.label)
            else:
                made, result = run_attack(attack, objective, images, labels, batch_size, seed, files)
                saved = SavedAdversarials(
                    images,
                    made,
                    labels,
                    SavedInfo(settings=result.settings, objective=objective.name, dataset=dataset),
                )
                write_adversarials(file, saved)
            files.remove_batches()
            shown[source] = predictions(made, attack.label)
    return TransferResult(labels, clean, adversarial, resumed)


def _check_some_right(members: Sequence[Target], right: npt.NDArray[np.bool_]) -> None:
    for member, on_clean in zip(members, right, strict=True):
        if not on_clean.any():
            raise InputError(
                f"{member.description} classifies none of the {right.shape[1]} clean images right: it was "
                "made for another dataset, or more --num_examples are needed."
            )
