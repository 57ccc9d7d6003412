"""What attacks make of images."""

import dataclasses
from typing import Any

import numpy as np
import numpy.typing as npt

SHOWN = 8
"""Adversarial images that a result keeps, for pages."""


@dataclasses.dataclass(frozen=True)
class AttackedBatch:
    """One attack on one batch, and what it cost."""

    adversarials: npt.NDArray[np.float32]
    """[N, H, W, C]."""
    queries: int
    """Forward passes, one for each image."""
    gradients: int
    seconds: float


@dataclasses.dataclass(frozen=True)
class AttackResult:
    """One attack on all or some of N images.

    ``shown`` are the first adversarial images; all of them are only in the saved file, if asked for.
    """

    settings: dict[str, Any]
    attacked: npt.NDArray[np.bool_]
    """[N]; what was not attacked counts as its clean image."""
    predictions: npt.NDArray[np.int32]
    """[N], the ensemble's class for each adversarial image."""
    l2: npt.NDArray[np.float32]
    """[N], Euclidean size of each change; images are in [0, 1]."""
    linf: npt.NDArray[np.float32]
    """[N], largest change of a pixel."""
    shown: npt.NDArray[np.float32]
    """[at most 8, H, W, C], of the first that were attacked."""
    queries_per_image: float
    """Of those that were attacked."""
    gradients_per_image: float
    seconds: float

    def among(self, attacked: npt.NDArray[np.bool_], clean: npt.NDArray[np.int32]) -> "AttackResult":
        """The result with a place for images that were not attacked.

        Args:
            attacked: bool [N], which of all the images these are.
            clean: int [N], the ensemble's class for each clean image.
        """
        predictions = clean.copy()
        l2, linf = np.zeros((2, len(clean)), np.float32)
        predictions[attacked], l2[attacked], linf[attacked] = self.predictions, self.l2, self.linf
        return dataclasses.replace(self, attacked=attacked, predictions=predictions, l2=l2, linf=linf)


@dataclasses.dataclass(frozen=True)
class SuiteResult:
    """What attacks did to a target, beside its predictions on clean images."""

    labels: npt.NDArray[np.int32]
    clean_predictions: npt.NDArray[np.int32]
    """[N], the ensemble's class for each clean image."""
    attacks: list[AttackResult]
    resumed: int
    """Attacks that were finished by an earlier run."""


@dataclasses.dataclass(frozen=True)
class SavedAdversarials:
    """Adversarial images and the clean ones they came from."""

    images: npt.NDArray[np.float32]
    adversarials: npt.NDArray[np.float32]
    labels: npt.NDArray[np.int32]
    settings: dict[str, Any]
    """Of the attack."""
    objective: str
    """What the attack maximised."""
