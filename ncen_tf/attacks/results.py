"""What an attack leaves behind: results, files that resume a suite, adversarial examples to replay."""

import dataclasses
import hashlib
import json
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ncen_tf.attacks.attack import Attack
from ncen_tf.errors import InputError
from ncen_tf.files import replacing

SHOWN = 8
"""Adversarial images that a result keeps, for pages."""


@dataclasses.dataclass(frozen=True)
class AttackResult:
    """One attack on N images.

    ``shown`` are the first adversarial images; all of them are only in the saved file, if asked for.
    """

    settings: dict[str, Any]
    predictions: npt.NDArray[np.int32]
    """[N], the ensemble's class for each adversarial image."""
    l2: npt.NDArray[np.float32]
    """[N], Euclidean size of each change; images are in [0, 1]."""
    linf: npt.NDArray[np.float32]
    """[N], largest change of a pixel."""
    shown: npt.NDArray[np.float32]
    """[min(N, 8), H, W, C]."""
    queries_per_image: float
    gradients_per_image: float
    seconds: float


@dataclasses.dataclass(frozen=True)
class SuiteResult:
    """What attacks did to a target, beside its predictions on clean images."""

    labels: npt.NDArray[np.int32]
    clean_predictions: npt.NDArray[np.int32]
    """[N], the ensemble's class for each clean image."""
    attacks: list[AttackResult]
    resumed: int
    """Attacks that were finished by an earlier run."""


@dataclasses.dataclass(frozen=True)
class SavedAdversarials:
    """Adversarial images and the clean ones they came from."""

    images: npt.NDArray[np.float32]
    adversarials: npt.NDArray[np.float32]
    labels: npt.NDArray[np.int32]
    settings: dict[str, Any]


def result_key(attack: Attack, context: Sequence[str | int]) -> str:
    """Hex digest of an attack's settings and everything else its outcome depends on."""
    return hashlib.sha256(json.dumps([attack.settings(), list(context)]).encode()).hexdigest()


def result_file_name(attack: Attack, key: str) -> str:
    """``PGD-Linf-0.1-<key>.npz``."""
    return f"{attack.label.replace(' ', '-')}-{key[:12]}.npz"


def write_result(file: Path, key: str, result: AttackResult) -> None:
    """Store a finished attack under its key, at once."""
    with replacing(file) as temporary:
        np.savez(temporary, key=key, **(vars(result) | {"settings": json.dumps(result.settings)}))


def read_result(file: Path, key: str) -> AttackResult | None:
    """A finished attack; ``None`` if there is none under this key or its file is damaged."""
    try:
        with np.load(file, allow_pickle=False) as arrays:
            if str(arrays["key"]) != key:
                return None
            values = {field.name: arrays[field.name] for field in dataclasses.fields(AttackResult)}
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
        return None
    numbers = {name: float(values[name]) for name in ("queries_per_image", "gradients_per_image", "seconds")}
    return AttackResult(**(values | numbers | {"settings": json.loads(str(values["settings"]))}))


def write_adversarials(file: Path, saved: SavedAdversarials) -> None:
    """Write adversarial images with their clean images, labels and attack, at once."""
    with replacing(file) as temporary:
        np.savez_compressed(temporary, **(vars(saved) | {"settings": json.dumps(saved.settings)}))


def read_adversarials(file: Path) -> SavedAdversarials:
    """Adversarial images that :func:`write_adversarials` wrote.

    Raises:
        InputError: not such a file.
    """
    try:
        with np.load(file, allow_pickle=False) as arrays:
            values = {field.name: arrays[field.name] for field in dataclasses.fields(SavedAdversarials)}
        settings = json.loads(str(values["settings"]))
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
        raise InputError(f"{file} is no file of saved adversarial examples: {error}.") from error
    if values["adversarials"].shape != values["images"].shape or len(values["labels"]) != len(
        values["images"]
    ):
        raise InputError(f"{file}: images, adversarials and labels differ in number or shape.")
    return SavedAdversarials(**(values | {"settings": settings}))
