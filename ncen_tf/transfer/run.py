"""Makes adversarial images on each member alone and shows them to all members."""

import dataclasses
import hashlib
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ncen_tf.attack.attack import ATTACKS, Attack, find_attack
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
from ncen_tf.attack.runner import run_attack
from ncen_tf.attack.scoring import check_examples, predict
from ncen_tf.base.environment import describe_environment
from ncen_tf.base.errors import InputError
from ncen_tf.data.dataset import Split
from ncen_tf.data.sources import test_images
from ncen_tf.export.manifest import MANIFEST
from ncen_tf.report.metrics import clean_accuracy
from ncen_tf.targets.opening import open_target
from ncen_tf.targets.target import Target
from ncen_tf.transfer.record import MemberInfo, Transfer, count_transfer

logger = logging.getLogger(__name__)

Images = npt.NDArray[np.float32]
Labels = npt.NDArray[np.int32]

MI_FGSM_STEP = 0.01


def measure_transfer(
    targets: Sequence[Path | str],
    data: Any,
    out: Path | str,
    *,
    attacks: Sequence[str] = ("PGD", "MI-FGSM"),
    eps: float = 0.05,
    steps: int = 40,
    step_size: float | None = None,
    batch_size: int = 100,
    seed: int = 0,
    providers: Sequence[str] = ("CPUExecutionProvider",),
    allow_unverified: bool = False,
) -> Transfer:
    """Measure how far adversarial images made on one member fool the others (Luo et al., section IV-C).

    The images of each attack and member are kept in ``out`` under a hash of all that they depend on: the same
    call after an interruption continues with the next batch.

    Args:
        targets: Run directories, ``.keras`` files, SavedModels, ``.onnx`` files or exports, whose members are
            compared. Of an export with member files those are taken, because ``ensemble.onnx`` computes all
            members for the sake of one.
        data: Images that are attacked, and labels: a ``Split``, a ``Dataset``, a pair of arrays, or
            another source of ``ncen_tf.load_data``.
        out: Folder for adversarial images.
        attacks: Names of attacks; upper or lower case, ``_`` or ``-``.
        eps: Linf bound; images are in [0, 1].
        steps: Gradient steps of each attack.
        step_size: Size of each step; ``None`` takes the paper's, which is eps for PGD and 0.01 for MI-FGSM
            (Luo et al., section IV-B).
        batch_size: Images attacked at a time; PGD's random starts depend on it.
        seed: Seed of random starts, in [0, 2^31).
        providers: onnxruntime execution providers for ONNX files.
        allow_unverified: Open files whose hash differs from their manifest's.

    Raises:
        InputError: A target cannot be opened, there are fewer than two members, members differ in image shape
            or classes, one is never right, or a setting is out of range.

    Examples:
        >>> import ncen_tf
        >>> data = ncen_tf.load_data("fashion_mnist_sample", test_examples=10)
        >>> transfer = ncen_tf.measure_transfer(
        ...     ["exports/reference"], data.test, "reports/transfer", attacks=["MI-FGSM"], steps=1
        ... )
        >>> transfer.attacks[0].attack, len(transfer.members)
        ('MI-FGSM', 3)
    """
    built = build_attacks(attacks, eps, steps, step_size)
    members = open_members([Path(target) for target in targets], tuple(providers), allow_unverified)
    data = test_images(data)
    folder, labels = Path(out) / "adversarials", data.labels
    clean, adversarial = predict_all(members, data, built, folder, batch_size=batch_size, seed=seed)
    return Transfer(
        dataset=data.name,
        examples=len(labels),
        seed=seed,
        batch_size=batch_size,
        members=tuple(
            MemberInfo(
                description=member.description,
                sha256=member.sha256,
                providers=tuple(member.providers),
                clean_accuracy=clean_accuracy(labels, predicted),
            )
            for member, predicted in zip(members, clean, strict=True)
        ),
        attacks=tuple(
            count_transfer(attack.settings(), labels, clean, predictions)
            for attack, predictions in zip(built, adversarial, strict=True)
        ),
        environment=describe_environment(),
    )


def build_attacks(
    names: Sequence[str], eps: float, steps: int, step_size: float | None = None
) -> tuple[Attack, ...]:
    """Make attacks with one bound and one number of steps; see :func:`measure_transfer`."""
    if not names:
        raise InputError(f"`attacks` must list some of {', '.join(ATTACKS)}; none was given.")
    paper = {"PGD": eps, "MI-FGSM": MI_FGSM_STEP}
    known = {name.upper(): name for name in ATTACKS}
    attacks = {}
    for given in names:
        name = known.get(given.upper().replace("_", "-"))
        if name is None:
            raise InputError(f"`attacks` must list some of {', '.join(ATTACKS)}; got {given!r}.")
        kind = find_attack(name)
        step = paper.get(name) if step_size is None else step_size
        wanted: dict[str, Any] = {"eps": eps, "steps": steps, "step_size": step}
        fields = {field.name for field in dataclasses.fields(kind)}
        attacks[name] = kind(**{k: v for k, v in wanted.items() if k in fields and v is not None})
    return tuple(attacks.values())


def open_members(
    paths: Sequence[Path],
    providers: tuple[str, ...] = ("CPUExecutionProvider",),
    allow_unverified: bool = False,
) -> list[Target]:
    """Open every member of everything named as a target of its own; see :func:`measure_transfer`."""
    files: list[Path] = []
    for path in paths:
        found = (path / "members").glob("member_*.onnx") if (path / MANIFEST).is_file() else ()
        files += sorted(found, key=lambda file: (len(file.name), file.name)) or [path]
    opened = [open_target(f, providers=providers, allow_unverified=allow_unverified) for f in files]
    members = [member for target in opened for member in target.split()]
    if len(members) < 2:
        raise InputError(
            f"{members[0].description} is a single member, and transfer needs two: name several models with "
            "`targets`."
        )
    interfaces = [f"takes {tuple(one.image_shape)} and knows {one.classes} classes" for one in members]
    for member, interface in zip(members, interfaces, strict=True):
        if interface != interfaces[0]:
            raise InputError(
                "Members must take images of one shape and know the same number of classes: "
                f"{members[0].description} {interfaces[0]}; {member.description} {interface}."
            )
    return members


def predict_all(
    members: Sequence[Target],
    data: Split,
    attacks: Sequence[Attack],
    folder: Path,
    *,
    batch_size: int = 64,
    seed: int = 0,
) -> tuple[Labels, list[Labels]]:
    """Attack each member on its own cross-entropy and show the images to every member.

    Adversarial images are kept in ``folder``, and read there if they are kept already.

    Returns:
        Predictions on clean images [k, N], and for each attack [k, k, N]: [i, j] are member j's predictions
        on the images made on member i.
    """
    images, labels = data.float_images(), data.labels
    for member in members:
        check_examples(member, images, labels)
    # Of a single member, the ensemble's loss is the member's own cross-entropy.
    objectives = [Objective(member, "ensemble") for member in members]

    def predictions(shown: Images, what: str) -> Labels:
        return np.stack([predict(objective, shown, batch_size, what) for objective in objectives])

    clean = predictions(images, "clean images")
    for member, correct in zip(members, clean == labels, strict=True):
        if not correct.any():
            raise InputError(
                f"{member.description} classifies none of the {len(labels)} clean images correctly: it was "
                "made for another dataset, or more examples are needed."
            )
    folder.mkdir(parents=True, exist_ok=True)
    examples = hashlib.sha256(images.tobytes() + labels.tobytes()).hexdigest()
    adversarial = [np.empty((len(members), *clean.shape), np.int32) for _ in attacks]
    for source, objective in enumerate(objectives):
        member = objective.target
        logger.info("%d of %d: images made on %s", source + 1, len(members), member.description)
        for attack, shown in zip(attacks, adversarial, strict=True):
            key = result_key(attack, member, [examples, batch_size, seed])
            file = folder / result_file_name(attack, key)
            files = AttackFiles(folder, attack, key)
            made = read_kept_images(file, images.shape)
            if made is not None:
                logger.info("%s: made by an earlier run", attack.label)
            else:
                made, result = run_attack(attack, objective, images, labels, batch_size, seed, files)
                info = SavedInfo(
                    settings=result.settings,
                    objective=objective.name,
                    dataset=data.name,
                    class_names=data.class_names,
                )
                write_adversarials(file, SavedAdversarials(images, made, labels, info))
            files.remove_batches()
            shown[source] = predictions(made, attack.label)
    return clean, adversarial
