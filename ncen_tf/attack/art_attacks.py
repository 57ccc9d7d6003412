"""ZOO, Boundary and HopSkipJump, from the Adversarial Robustness Toolbox (optional)."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt
from art.attacks import evasion
from art.estimators.classification import BlackBoxClassifierNeuralNetwork
from pydantic import Field

from ncen_tf.attack.attack import Array, Labels, MinimalPerturbation
from ncen_tf.attack.objectives import Objective
from ncen_tf.base.settings import settings


class _ArtAttack(MinimalPerturbation):
    """An attack of ART that only queries the ensemble's log-probabilities, whatever the objective."""

    gradient_free: ClassVar[bool] = True

    def __call__(self, objective: Objective, images: Array, labels: Labels, seed: int) -> Array:
        def predict(batch: Array) -> Array:
            return objective.log_probabilities(batch.astype(np.float32))

        target = objective.target
        classifier = BlackBoxClassifierNeuralNetwork(
            predict, target.image_shape, target.classes, channels_first=False, clip_values=(0.0, 1.0)
        )
        np.random.seed(seed)  # noqa: NPY002 - the generator that ART draws from
        found = self.build(classifier).generate(
            images,
            np.eye(target.classes)[labels],
            x_adv_init=_starts(images, predict(images).argmax(axis=1)),
        )
        return self.within_eps(images, found.astype(np.float32))

    def build(self, classifier: Any) -> Any:
        """Build ART's attack."""
        raise NotImplementedError


def _starts(images: Array, predictions: npt.NDArray[np.intp]) -> Array:
    """Find for each image the nearest of the batch that is predicted as another class.

    Without a start, ART's decision-based attacks draw noise from a generator that cannot be seeded. They
    still do where the whole batch is predicted as one class.
    """
    flat = images.reshape(len(images), -1)
    distances = np.stack([np.linalg.norm(flat - image, axis=1) for image in flat])
    distances[predictions[:, np.newaxis] == predictions] = np.inf
    return images[distances.argmin(axis=1)]


@settings
class Zoo(_ArtAttack):
    """Zeroth-order optimisation of log-probabilities, L2 (Chen et al., 2017, arXiv:1708.03999)."""

    name: ClassVar[str] = "ZOO"
    iterations: int = Field(default=200, gt=0, description="Most iterations for an image")
    step_size: float = Field(default=0.01, gt=0, description="Learning rate of Adam on the pixels")
    parallel: int = Field(default=128, gt=0, description="Number of pixels changed in each iteration")

    def build(self, classifier: Any) -> Any:
        return evasion.ZooAttack(
            classifier,
            learning_rate=self.step_size,
            max_iter=self.iterations,
            nb_parallel=self.parallel,
            use_resize=False,
            use_importance=False,
            verbose=False,
        )


@settings
class Boundary(_ArtAttack):
    """Boundary attack, L2 (Brendel et al., 2018, arXiv:1712.04248)."""

    name: ClassVar[str] = "Boundary"
    iterations: int = Field(default=5000, gt=0, description="Most iterations for an image")

    def build(self, classifier: Any) -> Any:
        return evasion.BoundaryAttack(classifier, targeted=False, max_iter=self.iterations, verbose=False)


@settings
class HopSkipJump(_ArtAttack):
    """HopSkipJump, L2 (Chen et al., 2020, arXiv:1904.02144)."""

    name: ClassVar[str] = "HopSkipJump"
    iterations: int = Field(default=50, gt=0, description="Most iterations for an image")
    evaluations: int = Field(default=10_000, gt=0, description="Most queries for one estimate of a gradient")

    def build(self, classifier: Any) -> Any:
        return evasion.HopSkipJump(
            classifier,
            max_iter=self.iterations,
            max_eval=self.evaluations,
            init_eval=min(100, self.evaluations),
            verbose=False,
        )
