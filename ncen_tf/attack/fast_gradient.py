"""FGSM, from CleverHans."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from ncen_tf.attack.attack import Attack

if TYPE_CHECKING:
    import tensorflow as tf

    from ncen_tf.attack.objectives import Objective


@dataclasses.dataclass(frozen=True, kw_only=True)
class FastGradient(Attack):
    """Fast gradient sign method (Goodfellow et al., 2015, arXiv:1412.6572): one step of size eps."""

    name: ClassVar[str] = "FGSM"

    def __call__(self, objective: Objective, images: tf.Tensor, labels: tf.Tensor, seed: int) -> tf.Tensor:
        from cleverhans.tf2.attacks.fast_gradient_method import fast_gradient_method

        return fast_gradient_method(
            objective, images, self.eps, np.inf, clip_min=0.0, clip_max=1.0, y=labels, sanity_checks=False
        )
