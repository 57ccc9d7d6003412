"""Images and labels in an ``.npz`` file."""

from pathlib import Path
from typing import Any

import numpy as np

from ncen_tf.base.errors import InputError
from ncen_tf.data.dataset import Split
from ncen_tf.untrusted.zip import check_zip

_WHOLE = (("images", "labels"), ("x", "y"), ("X", "y"))
_PARTS = (("x_{}", "y_{}"), ("{}_images", "{}_labels"), ("images_{}", "labels_{}"), ("X_{}", "y_{}"))

Names = tuple[str, str]
"""Names of the arrays of images and of labels."""


def npz_parts(file: Path) -> dict[str, Names]:
    """Find the arrays of images and labels in a file: ``train``, ``test`` and ``val``, or ``all``.

    Raises:
        InputError: The file is damaged, or has no such arrays.
    """
    stored = _load(file, lambda arrays: list(arrays.files))
    parts: dict[str, Names] = {}
    for part in ("train", "test", "val"):
        for images, labels in _PARTS:
            if images.format(part) in stored and labels.format(part) in stored:
                parts.setdefault(part, (images.format(part), labels.format(part)))
    for images, labels in _WHOLE:
        if images in stored and labels in stored:
            parts.setdefault("all", (images, labels))
    if not parts:
        raise InputError(
            f"{file} has no arrays images and labels, or x_train, y_train, x_test and y_test; it has "
            f"{', '.join(stored) or 'none'}."
        )
    return parts


def read_npz(file: Path, images: str, labels: str) -> Split:
    """Read images [N, H, W, C] or [N, H, W], integer labels [N] or [N, 1] and, if there, ``class_names``.

    Args:
        file: The file; nothing in it is unpickled.
        images: Name of an array.
        labels: Name of an array.

    Raises:
        InputError: The file is damaged, has pickled objects, or arrays that are no images and labels.
    """

    def read(stored: Any) -> tuple[Any, Any, list[str]]:
        names = [str(name) for name in stored["class_names"]] if "class_names" in stored.files else []
        return stored[images], stored[labels], names

    pixels, numbers, names = _load(file, read)
    pixels = pixels[..., np.newaxis] if pixels.ndim == 3 else pixels
    numbers = numbers[:, 0] if numbers.ndim == 2 and numbers.shape[1] == 1 else numbers
    return Split(pixels, numbers, file.stem, tuple(names))


def _load(file: Path, read: Any) -> Any:
    check_zip(file)
    try:
        with np.load(file, allow_pickle=False) as stored:
            return read(stored)
    except Exception as error:  # zipfile, zlib and NumPy have no common class of errors.
        reason = "it holds pickled objects" if "pickle" in str(error) else str(error)
        raise InputError(f"{file} cannot be read: {reason}.") from error
