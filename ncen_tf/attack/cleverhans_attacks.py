"""FGSM, MI-FGSM, PGD and BIM from CleverHans."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator
from typing import Any, ClassVar
from unittest import mock

import numpy as np
import tensorflow as tf
from cleverhans.tf2.attacks.basic_iterative_method import basic_iterative_method
from cleverhans.tf2.attacks.fast_gradient_method import fast_gradient_method
from cleverhans.tf2.attacks.momentum_iterative_method import momentum_iterative_method
from cleverhans.tf2.attacks.projected_gradient_descent import projected_gradient_descent
from cleverhans.tf2.utils import compute_gradient
from pydantic import Field

from ncen_tf.attack.attack import Array, Attack, Budget, Labels, Norm
from ncen_tf.attack.objectives import Objective
from ncen_tf.attack.tensorflow_objective import TensorFlowObjective, attack_in_tensorflow
from ncen_tf.base.errors import InputError
from ncen_tf.base.settings import settings

_COMMON: dict[str, Any] = {"clip_min": 0.0, "clip_max": 1.0, "sanity_checks": False}


class _CleverHansAttack(Attack):
    """An attack of CleverHans on the objective's columns."""

    def __call__(self, objective: Objective, images: Array, labels: Labels, seed: int) -> Array:
        def attack(columns: TensorFlowObjective) -> tf.Tensor:
            tf.random.set_seed(seed)  # CleverHans draws from TensorFlow's global generator.
            with _own_gradient(columns):
                return self.attack(columns, tf.constant(images), tf.constant(labels, tf.int32))

        return attack_in_tensorflow(objective, attack)

    def budget(self, classes: int, members: int) -> Budget:
        steps = getattr(self, "steps", 1)  # the fast gradient method takes one
        return Budget(steps, steps)

    def attack(self, columns: TensorFlowObjective, images: tf.Tensor, labels: tf.Tensor) -> tf.Tensor:
        """Make adversarial images."""
        raise NotImplementedError


@contextlib.contextmanager
def _own_gradient(columns: TensorFlowObjective) -> Iterator[None]:
    """Let CleverHans compile its gradient for this objective alone.

    CleverHans has one compiled gradient for everything, which would hold every model that was attacked.
    """
    if columns.cleverhans_gradient is None:
        columns.cleverhans_gradient = tf.function(compute_gradient.python_function, reduce_retracing=True)
    with contextlib.ExitStack() as stack:
        for name in ("fast_gradient_method", "momentum_iterative_method"):
            module = sys.modules[f"cleverhans.tf2.attacks.{name}"]
            stack.enter_context(mock.patch.object(module, "compute_gradient", columns.cleverhans_gradient))
        yield


@settings
class FastGradient(_CleverHansAttack):
    """Fast gradient sign method (Goodfellow et al., 2015, arXiv:1412.6572): one step of size eps in Linf."""

    name: ClassVar[str] = "FGSM"

    def attack(self, columns: TensorFlowObjective, images: tf.Tensor, labels: tf.Tensor) -> tf.Tensor:
        return fast_gradient_method(columns, images, self.eps, np.inf, y=labels, **_COMMON)


@settings
class MomentumIterative(_CleverHansAttack):
    """Momentum iterative FGSM (Dong et al., 2018, arXiv:1710.06081); no random start."""

    name: ClassVar[str] = "MI-FGSM"
    norms: ClassVar[tuple[Norm, ...]] = ("Linf", "L2")
    steps: int = Field(default=40, gt=0, description="Number of gradient steps")
    step_size: float = Field(default=0.01, gt=0, description="Size of each step, in the norm")
    decay: float = Field(default=1.0, gt=0, description="Share of the accumulated gradient that a step keeps")

    def attack(self, columns: TensorFlowObjective, images: tf.Tensor, labels: tf.Tensor) -> tf.Tensor:
        norm = np.inf if self.norm == "Linf" else 2
        return momentum_iterative_method(
            columns,
            images,
            self.eps,
            self.step_size,
            self.steps,
            norm,
            y=labels,
            decay_factor=self.decay,
            **_COMMON,
        )


@settings
class ProjectedGradientDescent(_CleverHansAttack):
    """Projected gradient descent (Madry et al., 2018, arXiv:1706.06083) in Linf from one random start."""

    name: ClassVar[str] = "PGD"
    steps: int = Field(kw_only=True, gt=0, description="Number of gradient steps")
    step_size: float = Field(kw_only=True, gt=0, description="Size of each step, at most eps")

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.step_size > self.eps:
            raise InputError(
                f"{self.name}: `step_size` must be at most eps, {self.eps:g}, got {self.step_size:g}."
            )

    def attack(self, columns: TensorFlowObjective, images: tf.Tensor, labels: tf.Tensor) -> tf.Tensor:
        return projected_gradient_descent(
            columns,
            images,
            self.eps,
            self.step_size,
            self.steps,
            np.inf,
            y=labels,
            rand_init=True,
            **_COMMON,
        )


@settings
class BasicIterative(ProjectedGradientDescent):
    """Basic iterative method (Kurakin et al., 2017, arXiv:1607.02533): PGD without a random start."""

    name: ClassVar[str] = "BIM"

    def attack(self, columns: TensorFlowObjective, images: tf.Tensor, labels: tf.Tensor) -> tf.Tensor:
        return basic_iterative_method(
            columns, images, self.eps, self.step_size, self.steps, np.inf, y=labels, **_COMMON
        )
