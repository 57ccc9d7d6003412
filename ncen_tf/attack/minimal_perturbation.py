"""Attacks that look for the nearest adversarial example, judged at a fixed radius."""

from __future__ import annotations

import dataclasses

import numpy as np
import numpy.typing as npt

from ncen_tf.attack.attack import Attack, Norm

Array = npt.NDArray[np.float32]


@dataclasses.dataclass(frozen=True, kw_only=True)
class MinimalPerturbation(Attack):
    """An L2 attack without a radius of its own: an image counts as broken if it is broken within eps."""

    norm: Norm = dataclasses.field(init=False, default="L2")

    def within_eps(self, images: Array, adversarials: Array) -> Array:
        """The adversarial images within eps of their originals; the others are the originals again."""
        distances = np.linalg.norm((adversarials - images).reshape(len(images), -1), axis=1)
        near = distances <= self.eps  # False for a NaN
        return np.where(near[:, np.newaxis, np.newaxis, np.newaxis], adversarials, images)
