"""Images and labels in an ``.npz`` file."""

from pathlib import Path

import numpy as np

from ncen_tf.base.errors import InputError
from ncen_tf.data.dataset import Split
from ncen_tf.untrusted.zip import check_zip


def read_npz(file: Path, classes: tuple[str, ...] | None = None) -> Split:
    """Read ``images`` [N, H, W, C] or [N, H, W], integer ``labels`` [N] and, if there, ``class_names``.

    Args:
        file: The file; nothing in it is unpickled.
        classes: Names of the classes, instead of ``class_names``.

    Raises:
        InputError: The file is damaged, has pickled objects, or lacks an array.
    """
    check_zip(file)
    try:
        with np.load(file, allow_pickle=False) as stored:
            missing = [name for name in ("images", "labels") if name not in stored.files]
            if missing:
                raise InputError(f"{file} has no array {missing[0]!r}; it has {', '.join(stored.files)}.")
            images, labels = stored["images"], stored["labels"]
            names = [str(name) for name in stored["class_names"]] if "class_names" in stored.files else []
    except InputError:
        raise
    except Exception as error:  # zipfile, zlib and NumPy have no common class of errors.
        reason = "it holds pickled objects" if "pickle" in str(error) else str(error)
        raise InputError(f"{file} cannot be read: {reason}.") from error
    images = images[..., np.newaxis] if images.ndim == 3 else images
    return Split(images, labels, file.stem, classes or tuple(names))
