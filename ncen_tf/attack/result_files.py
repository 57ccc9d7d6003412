"""Files of attacks: results and batches that resume a suite, adversarial examples to replay."""

import hashlib
import json
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

import ncen_tf
from ncen_tf.attack.attack import Attack
from ncen_tf.attack.results import AttackedBatch, AttackResult, SavedAdversarials
from ncen_tf.base.errors import InputError
from ncen_tf.base.files import replacing
from ncen_tf.untrusted.input_files import NUMBER, check_content, parse_json
from ncen_tf.targets.target import Target
from ncen_tf.untrusted.zip import check_zip

# Type and number of dimensions of each array in a file.
_ADVERSARIALS = {
    "images": (np.float32, 4),
    "adversarials": (np.float32, 4),
    "labels": (np.int32, 1),
    "settings": (np.str_, 0),
    "objective": (np.str_, 0),
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
_BATCH = {
    "key": (np.str_, 0),
    "adversarials": (np.float32, 4),
    **dict.fromkeys(("queries", "gradients"), (np.int64, 0)),
    "seconds": (np.float64, 0),
}


def result_key(attack: Attack, target: Target, context: Sequence[str | int]) -> str:
    """Hex digest of what an outcome depends on: attack, target, this package's version, and the rest."""
    attacked = [target.description, target.sha256, *target.providers]
    parts = [attack.settings(), attacked, ncen_tf.__version__, list(context)]
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()


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


class BatchFiles:
    """The batches that an attack is done with, one file each, for as long as others are to come.

    Args:
        folder: of this attack's batches alone; made with the first.
        key: of the attack, as for its result.
    """

    def __init__(self, folder: Path, key: str) -> None:
        self._folder = folder
        self._key = key

    def read(self, shape: tuple[int, ...]) -> list[AttackedBatch]:
        """Batches of an earlier run, from the first to the last before one that is missing or damaged.

        Args:
            shape: of each, [N, H, W, C].
        """
        batches: list[AttackedBatch] = []
        while (batch := self._read_one(len(batches), shape)) is not None:
            batches.append(batch)
        return batches

    def write(self, number: int, batch: AttackedBatch) -> None:
        """Store a batch, at once; the first has number 0."""
        self._folder.mkdir(parents=True, exist_ok=True)
        with replacing(self._file(number)) as temporary:
            np.savez(temporary, key=self._key, **vars(batch))

    def remove(self) -> None:
        """Remove all of them."""
        shutil.rmtree(self._folder, ignore_errors=True)

    def _file(self, number: int) -> Path:
        return self._folder / f"{number}.npz"

    def _read_one(self, number: int, shape: tuple[int, ...]) -> AttackedBatch | None:
        try:
            values = _read_arrays(self._file(number), _BATCH)
        except InputError:
            return None
        if values.pop("key") != self._key or values["adversarials"].shape != shape:
            return None
        numbers = {name: values.pop(name).item() for name in ("queries", "gradients", "seconds")}
        return AttackedBatch(**values, **numbers)


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
    return SavedAdversarials(**(values | {"settings": settings, "objective": str(values["objective"])}))


def read_kept_images(file: Path, shape: tuple[int, ...]) -> npt.NDArray[np.float32] | None:
    """Adversarial images of an earlier run; ``None`` if there are none of this shape, or they are damaged."""
    try:
        adversarials = read_adversarials(file).adversarials
    except InputError:
        return None
    return adversarials if adversarials.shape == shape else None


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
