"""Rounds adversarial images for models that take whole pixel values."""

import numpy as np

from ncen_tf.attack.attack import Array, Attack, sizes_of

_LEVELS = 255
_ROUNDING = 1e-4
"""Of a radius in pixel values, computed in floats."""


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
