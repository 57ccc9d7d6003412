"""MI-FGSM, from CleverHans."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from ncen_tf.attack.attack import Attack, Norm

if TYPE_CHECKING:
    import tensorflow as tf

    from ncen_tf.attack.objectives import Objective


@dataclasses.dataclass(frozen=True, kw_only=True)
class MomentumIterative(Attack):
    """Momentum iterative FGSM (Dong et al., 2018, arXiv:1710.06081); no random start.

    Args:
        steps: gradient steps.
        norm: ``Linf`` or ``L2``.
        step_size: of each step, in that norm.
        decay: share of the accumulated gradient that the next step keeps.
    """

    name: ClassVar[str] = "MI-FGSM"
    norm: Norm = "Linf"
    steps: int = 40
    step_size: float = 0.01
    decay: float = 1.0

    def __call__(self, objective: Objective, images: tf.Tensor, labels: tf.Tensor, seed: int) -> tf.Tensor:
        from cleverhans.tf2.attacks.momentum_iterative_method import momentum_iterative_method

        return momentum_iterative_method(
            objective,
            images,
            self.eps,
            self.step_size,
            self.steps,
            np.inf if self.norm == "Linf" else 2,
            clip_min=0.0,
            clip_max=1.0,
            y=labels,
            decay_factor=self.decay,
            sanity_checks=False,
        )
