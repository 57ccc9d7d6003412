"""DeepFool and Carlini & Wagner, from Foolbox (optional)."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from ncen_tf.attack.minimal_perturbation import Array, MinimalPerturbation
from ncen_tf.base.errors import InputError

if TYPE_CHECKING:
    import tensorflow

    from ncen_tf.attack.objectives import Objective


@dataclasses.dataclass(frozen=True, kw_only=True)
class FoolboxAttack(MinimalPerturbation):
    """An attack of Foolbox on the ensemble's log-probabilities, whatever the objective."""

    def __call__(
        self, objective: Objective, images: tensorflow.Tensor, labels: tensorflow.Tensor, seed: int
    ) -> Array:
        import tensorflow

        try:
            import foolbox
        except ImportError as error:
            raise InputError(f"{self.name} needs Foolbox ({error}): pip install ncen-tf[foolbox].") from error
        model = foolbox.TensorFlowModel(objective.log_probabilities, bounds=(0, 1), device=images.device)
        # int64 like the argmax they are compared with: Foolbox's own cast needs NumPy 1
        criterion = foolbox.criteria.Misclassification(tensorflow.cast(labels, tensorflow.int64))
        found = self.build(foolbox.attacks).run(model, images, criterion)
        return self.within_eps(np.asarray(images), np.asarray(found))

    def build(self, attacks: Any) -> Any:
        """The attack, from Foolbox's module of attacks."""
        raise NotImplementedError


@dataclasses.dataclass(frozen=True, kw_only=True)
class DeepFool(FoolboxAttack):
    """DeepFool, L2 (Moosavi-Dezfooli et al., 2016, arXiv:1511.04599).

    Args:
        steps: most linearisations.
    """

    name: ClassVar[str] = "DeepFool"
    steps: int = 50

    def build(self, attacks: Any) -> Any:
        return attacks.L2DeepFoolAttack(steps=self.steps)


@dataclasses.dataclass(frozen=True, kw_only=True)
class CarliniWagner(FoolboxAttack):
    """Carlini & Wagner, L2 (2017, arXiv:1608.04644).

    Args:
        steps: Adam steps for each constant.
        binary_search_steps: constants tried.
        step_size: of Adam, in tanh space.
    """

    name: ClassVar[str] = "CW"
    steps: int = 1000
    binary_search_steps: int = 9
    step_size: float = 0.01

    def build(self, attacks: Any) -> Any:
        return attacks.L2CarliniWagnerAttack(
            steps=self.steps, binary_search_steps=self.binary_search_steps, stepsize=self.step_size
        )
