"""Images as targets take them: checked, rounded to whole pixel values, and scored batch by batch."""

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

from ncen_tf.attack.attack import Array, Attack, Labels, sizes_of
from ncen_tf.attack.losses import Array64, log_mean_probabilities
from ncen_tf.attack.objectives import Objective
from ncen_tf.base.errors import InputError
from ncen_tf.targets.target import Target

_LEVELS = 255
_ROUNDING = 1e-4
"""Of a radius in pixel values, computed in floats."""


def predict(objective: Objective, images: Array, batch_size: int, what: str) -> Labels:
    """Predict the ensemble's classes: float32 [N, H, W, C] -> int32 [N]; see :func:`score`."""
    return score(objective, images, batch_size, what).argmax(axis=1).astype(np.int32)


def score(objective: Objective, images: Array, batch_size: int, what: str) -> Array64:
    """Compute the ensemble's log-probabilities: float32 [N, H, W, C] -> float64 [N, classes].

    Raises:
        InputError: A logit is not finite; ``what`` names the images in the message.
    """
    found = np.empty((len(images), objective.target.classes))
    for start, (count, indices) in zip(
        range(0, len(images), batch_size),
        batches_of(len(images), batch_size, objective.target.batch_statistics),
        strict=True,
    ):
        scores = log_mean_probabilities(objective.logits(images[indices]))
        if not np.isfinite(scores).all():
            raise InputError(
                f"{objective.target.description} gives NaN or infinite outputs on {what}: "
                "nothing can be measured on it."
            )
        found[start : start + count] = scores[:count]
    return found


def check_examples(target: Target, images: Array, labels: Labels) -> None:
    """Refuse images and labels that an attack cannot start from.

    Raises:
        InputError: They have a wrong shape, type, range or number.
    """
    shape = tuple(target.image_shape)
    if images.dtype != np.float32 or images.ndim != 4 or images.shape[1:] != shape:
        transposed = shape[1:] + shape[:1] == images.shape[1:]
        way_out = " If its ONNX file takes channels first, set `input_layout`=NCHW." if transposed else ""
        raise InputError(
            f"{target.description} takes float32 images of shape {shape}; "
            f"got {images.dtype} {images.shape[1:]}.{way_out}"
        )
    if not len(images) or labels.shape != (len(images),):
        raise InputError(f"Attacks need as many labels as images; got {labels.shape} and {images.shape}.")
    if not (images.min() >= 0 and images.max() <= 1):  # False for a NaN
        raise InputError("Attacks need images in [0, 1]; some are outside or NaN.")
    if labels.min() < 0 or labels.max() >= target.classes:
        raise InputError(
            f"Labels must be in [0, {target.classes}), the target's classes; got {labels.min()} to "
            f"{labels.max()}."
        )


def batches_of(count: int, size: int, fill: bool) -> Iterator[tuple[int, npt.NDArray[np.intp]]]:
    """Cut the examples into batches: how many are new in each, and their indices.

    With ``fill`` the last batch is as large as the others, filled up from the first examples on: a target
    that normalises with batch statistics needs full batches, and copies within one would distort them.
    """
    for start in range(0, count, size):
        new = min(size, count - start)
        yield new, np.arange(start, start + (size if fill else new)) % count


def round_images(images: Array) -> Array:
    """Round images in [0, 1] to multiples of 1/255."""
    return np.rint(images * np.float32(_LEVELS)) / np.float32(_LEVELS)


def round_adversarials(attack: Attack, images: Array, adversarials: Array) -> Array:
    """Round adversarial images to multiples of 1/255 that are within the attack's bound.

    In Linf a pixel takes the nearest value within eps. In the other norms an image whose nearest values are
    too far is rounded towards its original, which shortens every change.

    Args:
        attack: Whose ``eps`` and ``norm`` bound the change.
        images: float32 [N, H, W, C], multiples of 1/255.
        adversarials: float32 [N, H, W, C] in [0, 1].
    """
    clean, found = np.rint(images.astype(float) * _LEVELS), adversarials.astype(float) * _LEVELS
    nearest = np.rint(found)
    if attack.norm == "Linf":
        whole = np.floor(attack.eps * _LEVELS + _ROUNDING)
        rounded = np.clip(nearest, clean - whole, clean + whole)
    else:
        near = sizes_of((nearest - clean) / _LEVELS, attack.norm) <= attack.eps + _ROUNDING / _LEVELS
        rounded = np.where(near[:, None, None, None], nearest, clean + np.trunc(found - clean))
    return (np.clip(rounded, 0, _LEVELS) / _LEVELS).astype(np.float32)
