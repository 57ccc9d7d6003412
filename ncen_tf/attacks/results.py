"""What an attack leaves behind: results, files that resume a suite, adversarial examples to replay."""

import dataclasses
import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ncen_tf.attacks.attack import Attack
from ncen_tf.errors import InputError
from ncen_tf.files import replacing
from ncen_tf.input_files import NUMBER, check_content, parse_json
from ncen_tf.zip_files import check_zip

SHOWN = 8
"""Adversarial images that a result keeps, for pages."""


@dataclasses.dataclass(frozen=True)
class AttackResult:
    """One attack on all or some of N images.

    ``shown`` are the first adversarial images; all of them are only in the saved file, if asked for.
    """

    settings: dict[str, Any]
    attacked: npt.NDArray[np.bool_]
    """[N]; what was not attacked counts as its clean image."""
    predictions: npt.NDArray[np.int32]
    """[N], the ensemble's class for each adversarial image."""
    l2: npt.NDArray[np.float32]
    """[N], Euclidean size of each change; images are in [0, 1]."""
    linf: npt.NDArray[np.float32]
    """[N], largest change of a pixel."""
    shown: npt.NDArray[np.float32]
    """[at most 8, H, W, C], of the first that were attacked."""
    queries_per_image: float
    """Of those that were attacked."""
    gradients_per_image: float
    seconds: float

    def among(self, attacked: npt.NDArray[np.bool_], clean: npt.NDArray[np.int32]) -> "AttackResult":
        """The result with a place for images that were not attacked.

        Args:
            attacked: bool [N], which of all the images these are.
            clean: int [N], the ensemble's class for each clean image.
        """
        predictions = clean.copy()
        l2, linf = np.zeros((2, len(clean)), np.float32)
        predictions[attacked], l2[attacked], linf[attacked] = self.predictions, self.l2, self.linf
        return dataclasses.replace(self, attacked=attacked, predictions=predictions, l2=l2, linf=linf)


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


# Type and number of dimensions of each array in a file.
_ADVERSARIALS = {
    "images": (np.float32, 4),
    "adversarials": (np.float32, 4),
    "labels": (np.int32, 1),
    "settings": (np.str_, 0),
}
_RESULT = {
    "key": (np.str_, 0),
    "settings": (np.str_, 0),
    "attacked": (np.bool_, 1),
    "predictions": (np.int32, 1),
    "l2": (np.float32, 1),
    "linf": (np.float32, 1),
    "shown": (np.float32, 4),
    **dict.fromkeys(("queries_per_image", "gradients_per_image", "seconds"), (np.float64, 0)),
}


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
        values = _read_arrays(file, _RESULT)
        settings = _read_settings(file, values.pop("settings"))
    except InputError:
        return None
    per_image = ("attacked", "predictions", "l2", "linf")
    if values.pop("key") != key or len({len(values[name]) for name in per_image}) > 1:
        return None
    numbers = {name: float(values[name]) for name in ("queries_per_image", "gradients_per_image", "seconds")}
    return AttackResult(**(values | numbers | {"settings": settings}))


def write_adversarials(file: Path, saved: SavedAdversarials) -> None:
    """Write adversarial images with their clean images, labels and attack, at once."""
    with replacing(file) as temporary:
        np.savez_compressed(temporary, **(vars(saved) | {"settings": json.dumps(saved.settings)}))


def read_adversarials(file: Path) -> SavedAdversarials:
    """Adversarial images that :func:`write_adversarials` wrote.

    Raises:
        InputError: not such a file.
    """
    values = _read_arrays(file, _ADVERSARIALS)
    settings = _read_settings(file, values.pop("settings"))
    images, adversarials = values["images"], values["adversarials"]
    if adversarials.shape != images.shape or len(values["labels"]) != len(images):
        raise InputError(f"{file}: images, adversarials and labels differ in number or shape.")
    if not ((adversarials >= 0) & (adversarials <= 1)).all():  # False for a NaN
        raise InputError(f"{file}: adversarial images are in [0, 1]; some are outside or NaN.")
    return SavedAdversarials(**(values | {"settings": settings}))


def _read_arrays(file: Path, layout: Mapping[str, tuple[type[np.generic], int]]) -> dict[str, Any]:
    """Arrays of an npz by name.

    Raises:
        InputError: damage, or an array that is missing or of another type or number of dimensions.
    """
    check_zip(file)
    try:
        with np.load(file, allow_pickle=False) as arrays:
            values = {name: arrays[name] for name in layout}
            found = {name: (value.dtype.type, value.ndim) for name, value in values.items()}
    except Exception as error:  # zipfile, zlib and NumPy have no common class for what damage leads to
        raise InputError(f"{file} cannot be read: {error}.") from error
    for name, expected in layout.items():
        if found[name] != expected or not values[name].dtype.isnative:
            raise InputError(f"{file}: {name} has another type or number of dimensions than was written.")
    return values


def _read_settings(file: Path, text: object) -> dict[str, Any]:
    settings: dict[str, Any] = parse_json(f"{file}: settings", str(text))
    check_content(f"{file}: settings", settings, {"attack": str, "norm": str, "eps": NUMBER})
    return settings
