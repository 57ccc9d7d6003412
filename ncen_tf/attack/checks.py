"""What must hold before and after an attack for its numbers to mean anything."""

import numpy as np
import numpy.typing as npt

from ncen_tf.attack.attack import Attack
from ncen_tf.base.errors import InputError
from ncen_tf.targets.target import Target

Images = npt.NDArray[np.float32]
Labels = npt.NDArray[np.int32]

# Rounding of image + eps in float32, and of a sum of squares.
_ROUNDING = {"Linf": 1e-6, "L2": 1e-4}


def check_examples(target: Target, images: Images, labels: Labels, batch_size: int) -> None:
    """Refuse images and labels that an attack cannot start from.

    Raises:
        InputError: a wrong shape, type, range, number or batch size.
    """
    if batch_size < 1:
        raise InputError(f"batch_size is at least 1; got {batch_size}.")
    if images.dtype != np.float32 or images.ndim != 4 or images.shape[1:] != tuple(target.image_shape):
        transposed = tuple(target.image_shape[1:]) + tuple(target.image_shape[:1]) == images.shape[1:]
        way_out = " Does its ONNX file take channels first: --input_layout=NCHW?" if transposed else ""
        raise InputError(
            f"{target.description} takes float32 images of shape {tuple(target.image_shape)}; "
            f"got {images.dtype} {images.shape[1:]}.{way_out}"
        )
    if not len(images) or labels.shape != (len(images),):
        raise InputError(f"Attacks need as many labels as images; got {labels.shape} and {images.shape}.")
    if not (images.min() >= 0 and images.max() <= 1):  # False for a NaN
        raise InputError("Attacks need images in [0, 1]; some are outside or NaN.")
    if labels.min() < 0 or labels.max() >= target.classes:
        raise InputError(f"Labels are in [0, {target.classes}); got {labels.min()} to {labels.max()}.")


def check_adversarials(attack: Attack, images: Images, adversarials: Images) -> None:
    """Refuse what an attack must not return.

    Raises:
        InputError: values that are not finite, for the target's gradients are not.
        RuntimeError: images outside the ball or [0, 1].
    """
    if not len(images):
        return
    if not np.isfinite(adversarials).all():
        raise InputError(
            f"{attack.label} made NaN or infinite images: the target's gradients are not finite."
        )
    order = np.inf if attack.norm == "Linf" else 2
    change = (adversarials - images).reshape(len(images), -1)
    farthest = np.linalg.norm(change, ord=order, axis=1).max()
    if farthest > attack.eps + _ROUNDING[attack.norm]:
        raise RuntimeError(f"{attack.label} moved an image by {farthest:g}: a bug, its numbers are wrong.")
    if adversarials.min() < 0 or adversarials.max() > 1:
        raise RuntimeError(f"{attack.label} left [0, 1]: a bug, its numbers are wrong.")
