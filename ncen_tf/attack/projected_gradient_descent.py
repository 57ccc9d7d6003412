"""PGD, from CleverHans."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from ncen_tf.attack.attack import Attack
from ncen_tf.base.errors import InputError

if TYPE_CHECKING:
    import tensorflow as tf

    from ncen_tf.attack.objectives import Objective


@dataclasses.dataclass(frozen=True, kw_only=True)
class IterativeGradient(Attack):
    """Settings that PGD and BIM share.

    Args:
        steps: gradient steps.
        step_size: of each step, in the Linf norm; at most eps.

    Raises:
        InputError: a step larger than eps.
    """

    steps: int
    step_size: float

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.step_size > self.eps:
            raise InputError(f"{self.name}: step_size is at most eps, {self.eps:g}; got {self.step_size:g}.")


@dataclasses.dataclass(frozen=True, kw_only=True)
class ProjectedGradientDescent(IterativeGradient):
    """Projected gradient descent (Madry et al., 2018, arXiv:1706.06083), started at random in the ball."""

    name: ClassVar[str] = "PGD"

    def __call__(self, objective: Objective, images: tf.Tensor, labels: tf.Tensor, seed: int) -> tf.Tensor:
        import tensorflow
        from cleverhans.tf2.attacks.projected_gradient_descent import projected_gradient_descent

        tensorflow.random.set_seed(seed)  # CleverHans draws the start from TensorFlow's global generator
        return projected_gradient_descent(
            objective,
            images,
            self.eps,
            self.step_size,
            self.steps,
            np.inf,
            clip_min=0.0,
            clip_max=1.0,
            y=labels,
            rand_init=True,
            sanity_checks=False,
        )
