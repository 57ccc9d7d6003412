"""DeepFool and Carlini & Wagner, from Foolbox (optional)."""

from __future__ import annotations

from typing import Any, ClassVar

import foolbox
import numpy as np
import tensorflow as tf
from pydantic import Field

from ncen_tf.attack.attack import Array, Labels, MinimalPerturbation
from ncen_tf.attack.objectives import Objective
from ncen_tf.attack.tensorflow_objective import TensorFlowObjective, attack_in_tensorflow
from ncen_tf.base.settings import settings


class _FoolboxAttack(MinimalPerturbation):
    """An attack of Foolbox on the ensemble's log-probabilities, whatever the objective."""

    def __call__(self, objective: Objective, images: Array, labels: Labels, seed: int) -> Array:
        def attack(compiled: TensorFlowObjective) -> Any:
            x = tf.constant(images)
            model = foolbox.TensorFlowModel(compiled.log_probabilities, bounds=(0, 1), device=x.device)
            # int64 like the argmax they are compared with: Foolbox's own cast needs NumPy 1
            criterion = foolbox.criteria.Misclassification(tf.constant(labels, tf.int64))
            return self.build().run(model, x, criterion)

        return self.within_eps(images, np.asarray(attack_in_tensorflow(objective, attack)))

    def build(self) -> Any:
        """Build Foolbox's attack."""
        raise NotImplementedError


@settings
class DeepFool(_FoolboxAttack):
    """DeepFool, L2 (Moosavi-Dezfooli et al., 2016, arXiv:1511.04599)."""

    name: ClassVar[str] = "DeepFool"
    steps: int = Field(default=50, gt=0, description="Most linearisations")

    def build(self) -> Any:
        return foolbox.attacks.L2DeepFoolAttack(steps=self.steps)


@settings
class CarliniWagner(_FoolboxAttack):
    """Carlini & Wagner, L2 (2017, arXiv:1608.04644)."""

    name: ClassVar[str] = "CW"
    steps: int = Field(default=1000, gt=0, description="Number of Adam steps for each constant")
    binary_search_steps: int = Field(default=9, gt=0, description="Number of constants tried")
    step_size: float = Field(default=0.01, gt=0, description="Learning rate of Adam")

    def build(self) -> Any:
        return foolbox.attacks.L2CarliniWagnerAttack(
            steps=self.steps, binary_search_steps=self.binary_search_steps, stepsize=self.step_size
        )
