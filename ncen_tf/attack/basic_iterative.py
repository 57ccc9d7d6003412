"""BIM, from CleverHans."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from ncen_tf.attack.projected_gradient_descent import IterativeGradient

if TYPE_CHECKING:
    import tensorflow as tf

    from ncen_tf.attack.objectives import Objective


@dataclasses.dataclass(frozen=True, kw_only=True)
class BasicIterative(IterativeGradient):
    """Basic iterative method (Kurakin et al., 2017, arXiv:1607.02533): PGD without a random start."""

    name: ClassVar[str] = "BIM"

    def __call__(self, objective: Objective, images: tf.Tensor, labels: tf.Tensor, seed: int) -> tf.Tensor:
        from cleverhans.tf2.attacks.basic_iterative_method import basic_iterative_method

        return basic_iterative_method(
            objective,
            images,
            self.eps,
            self.step_size,
            self.steps,
            np.inf,
            clip_min=0.0,
            clip_max=1.0,
            y=labels,
            sanity_checks=False,
        )
