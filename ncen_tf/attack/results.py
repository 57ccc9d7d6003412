"""What attacks do to images, and the files that keep it: for resuming a suite, and for replay."""

import contextlib
import dataclasses
import hashlib
import json
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

import ncen_tf
from ncen_tf.attack.attack import Array, Attack, Labels
from ncen_tf.base.errors import InputError
from ncen_tf.base.files import replacing
from ncen_tf.base.settings import Settings
from ncen_tf.report.results import AttackResult
from ncen_tf.targets.target import Target
from ncen_tf.untrusted.zip import read_npz

S = TypeVar("S", bound=Settings)

SHOWN = 8
"""Number of adversarial images that a result keeps for pages."""


@dataclasses.dataclass(frozen=True)
class AttackedBatch:
    """One attack on one batch, and what it cost."""

    adversarials: Array
    """[N, H, W, C]."""
    queries: int
    """Forward passes, one for each image."""
    gradients: int
    seconds: float


class SavedInfo(Settings):
    """Where saved adversarial images come from."""

    settings: dict[str, Any]
    """Of the attack, with ``attack``, ``norm`` and ``eps``."""
    objective: str
    dataset: str
    class_names: tuple[str, ...] = ()


@dataclasses.dataclass(frozen=True)
class SavedAdversarials:
    """Adversarial images, the clean ones they came from, and the true classes."""

    images: Array
    adversarials: Array
    labels: Labels
    info: SavedInfo


class _ResultInfo(Settings):
    key: str
    settings: dict[str, Any]
    queries_per_image: float
    gradients_per_image: float
    seconds: float


class _BatchInfo(Settings):
    key: str
    queries: int
    gradients: int
    seconds: float


class AttackFiles:
    """What an interrupted suite keeps of one attack: finished batches, then the result.

    Args:
        folder: Of the suite.
        attack: The attack.
        key: Digest of all that its outcome depends on, from :func:`result_key`.
    """

    def __init__(self, folder: Path, attack: Attack, key: str) -> None:
        self._file = folder / result_file_name(attack, key)
        self._batches = self._file.with_suffix(".batches")
        self._key = key

    def read_result(self) -> AttackResult | None:
        """Read the finished attack; ``None`` if there is none or its file is damaged."""
        try:
            arrays, info = _read(self._file, _ResultInfo)
            settings = info.model_dump()
            return AttackResult(**arrays, **settings) if settings.pop("key") == self._key else None
        except (InputError, TypeError):  # TypeError: an earlier version wrote other arrays.
            return None

    def write_result(self, result: AttackResult) -> None:
        """Write the finished attack and remove its batches."""
        arrays = {name: v for name, v in vars(result).items() if isinstance(v, np.ndarray)}
        rest = {name: v for name, v in vars(result).items() if name not in arrays}
        _write(self._file, _ResultInfo(key=self._key, **rest), arrays)
        self.remove_batches()

    def read_batches(self, count: int) -> dict[int, AttackedBatch]:
        """Read the finished ones of ``count`` batches by number; those that are damaged are left out."""
        batches: dict[int, AttackedBatch] = {}
        for number in range(count):
            with contextlib.suppress(InputError):
                arrays, info = _read(self._batches / f"{number}.npz", _BatchInfo)
                if info.key == self._key:
                    batches[number] = AttackedBatch(**arrays, **info.model_dump(exclude={"key"}))
        return batches

    def write_batch(self, number: int, batch: AttackedBatch) -> None:
        """Write a batch; the first has number 0."""
        self._batches.mkdir(parents=True, exist_ok=True)
        rest = {name: v for name, v in vars(batch).items() if name != "adversarials"}
        info = _BatchInfo(key=self._key, **rest)
        _write(self._batches / f"{number}.npz", info, {"adversarials": batch.adversarials})

    def remove_batches(self) -> None:
        """Remove the batches of an attack whose images are kept elsewhere."""
        shutil.rmtree(self._batches, ignore_errors=True)


def result_key(attack: Attack, target: Target, context: Sequence[str | int]) -> str:
    """Hash what an outcome depends on: attack, target, this package's version, and the context."""
    attacked = [target.description, target.sha256, *target.providers]
    parts = [attack.settings(), attacked, ncen_tf.__version__, list(context)]
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()


def result_file_name(attack: Attack, key: str) -> str:
    """Name an attack's file: ``PGD-Linf-0.1-<key>.npz``."""
    return f"{attack.label.replace(' ', '-')}-{key[:12]}.npz"


def write_adversarials(file: Path, saved: SavedAdversarials) -> None:
    """Write adversarial images with their clean images, labels and origin."""
    arrays = {"images": saved.images, "adversarials": saved.adversarials, "labels": saved.labels}
    _write(file, saved.info, arrays, compress=True)


def read_adversarials(file: Path) -> SavedAdversarials:
    """Read adversarial images that :func:`write_adversarials` wrote.

    Raises:
        InputError: The file is not such a file.
    """
    arrays, info = _read(file, SavedInfo)
    found = {name: (array.dtype.type, array.ndim) for name, array in arrays.items()}
    if found != {"images": (np.float32, 4), "adversarials": (np.float32, 4), "labels": (np.int32, 1)}:
        raise InputError(f"{file} does not hold float32 images and adversarials and int32 labels.")
    images, adversarials = arrays["images"], arrays["adversarials"]
    if adversarials.shape != images.shape or len(arrays["labels"]) != len(images):
        raise InputError(f"{file}: images, adversarials and labels differ in number or shape.")
    if not ((adversarials >= 0) & (adversarials <= 1)).all():  # False for a NaN
        raise InputError(f"{file}: adversarial images must be in [0, 1]; some are outside or NaN.")
    if not {"attack", "norm", "eps"} <= info.settings.keys():
        raise InputError(f"{file} does not say which attack made the images.")
    return SavedAdversarials(**arrays, info=info)


def read_kept_images(file: Path, shape: tuple[int, ...]) -> Array | None:
    """Read adversarial images of an earlier run; ``None`` if there are none of this shape."""
    try:
        adversarials = read_adversarials(file).adversarials
    except InputError:
        return None
    return adversarials if adversarials.shape == shape else None


def _write(file: Path, info: Settings, arrays: Mapping[str, Any], compress: bool = False) -> None:
    with replacing(file) as temporary:
        save = np.savez_compressed if compress else np.savez
        save(temporary, info=np.array(info.model_dump_json()), **arrays)


def _read(file: Path, kind: type[S]) -> tuple[dict[str, Any], S]:
    arrays = read_npz(file)
    if "info" not in arrays:
        raise InputError(f"{file} cannot be read: it has no info.")
    return arrays, kind.from_json(str(arrays.pop("info")), str(file))
