"""ZOO, Boundary and HopSkipJump, from the Adversarial Robustness Toolbox (optional)."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import numpy.typing as npt

from ncen_tf.attack.minimal_perturbation import Array, MinimalPerturbation
from ncen_tf.base.errors import InputError

if TYPE_CHECKING:
    import tensorflow as tf

    from ncen_tf.attack.objectives import Objective


@dataclasses.dataclass(frozen=True, kw_only=True)
class ArtAttack(MinimalPerturbation):
    """An attack of ART that only queries the ensemble's log-probabilities, whatever the objective.

    Args:
        iterations: most iterations for an image.
    """

    gradient_free: ClassVar[bool] = True
    iterations: int

    def __call__(self, objective: Objective, images: tf.Tensor, labels: tf.Tensor, seed: int) -> Array:
        try:
            from art.attacks import evasion
            from art.estimators.classification import BlackBoxClassifierNeuralNetwork
        except ImportError as error:
            raise InputError(
                f"{self.name} needs the Adversarial Robustness Toolbox ({error}): pip install ncen-tf[art]."
            ) from error

        def predict(batch: Array) -> Array:
            return np.asarray(objective.answer(batch.astype(np.float32)))

        target = objective.target
        classifier = BlackBoxClassifierNeuralNetwork(
            predict, target.image_shape, target.classes, channels_first=False, clip_values=(0.0, 1.0)
        )
        np.random.seed(seed)  # noqa: NPY002 - the generator that ART draws from
        clean, classes = np.asarray(images), np.asarray(labels)
        found = self.build(evasion, classifier).generate(
            clean, np.eye(target.classes)[classes], x_adv_init=_starts(clean, predict(clean).argmax(axis=1))
        )
        return self.within_eps(clean, found.astype(np.float32))

    def build(self, evasion: Any, classifier: Any) -> Any:
        """The attack, from ART's module of evasion attacks."""
        raise NotImplementedError


def _starts(images: Array, predictions: npt.NDArray[np.intp]) -> Array:
    """For each image, the nearest of the batch that is predicted as another class.

    Without a start, ART's decision-based attacks draw noise from a generator that cannot be seeded; it does
    so still where the whole batch is predicted as one class.
    """
    flat = images.reshape(len(images), -1)
    distances = np.stack([np.linalg.norm(flat - image, axis=1) for image in flat])
    distances[predictions[:, np.newaxis] == predictions] = np.inf
    return images[distances.argmin(axis=1)]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Zoo(ArtAttack):
    """Zeroth-order optimisation of log-probabilities, L2 (Chen et al., 2017, arXiv:1708.03999).

    Args:
        step_size: of Adam on the pixels.
        parallel: pixels changed in each iteration.
    """

    name: ClassVar[str] = "ZOO"
    iterations: int = 200
    step_size: float = 0.01
    parallel: int = 128

    def build(self, evasion: Any, classifier: Any) -> Any:
        return evasion.ZooAttack(
            classifier,
            learning_rate=self.step_size,
            max_iter=self.iterations,
            nb_parallel=self.parallel,
            use_resize=False,
            use_importance=False,
            verbose=False,
        )


@dataclasses.dataclass(frozen=True, kw_only=True)
class Boundary(ArtAttack):
    """Boundary attack, L2 (Brendel et al., 2018, arXiv:1712.04248)."""

    name: ClassVar[str] = "Boundary"
    iterations: int = 5000

    def build(self, evasion: Any, classifier: Any) -> Any:
        return evasion.BoundaryAttack(classifier, targeted=False, max_iter=self.iterations, verbose=False)


@dataclasses.dataclass(frozen=True, kw_only=True)
class HopSkipJump(ArtAttack):
    """HopSkipJump, L2 (Chen et al., 2020, arXiv:1904.02144).

    Args:
        evaluations: most queries for one estimate of a gradient.
    """

    name: ClassVar[str] = "HopSkipJump"
    iterations: int = 50
    evaluations: int = 10_000

    def build(self, evasion: Any, classifier: Any) -> Any:
        return evasion.HopSkipJump(
            classifier,
            max_iter=self.iterations,
            max_eval=self.evaluations,
            init_eval=min(100, self.evaluations),
            verbose=False,
        )
