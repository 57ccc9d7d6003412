"""What all attacks have in common, and every attack by its name."""

from __future__ import annotations

import abc
import dataclasses
import importlib
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple

import numpy as np
import numpy.typing as npt
from pydantic import Field, NonNegativeInt

from ncen_tf.base.errors import InputError
from ncen_tf.base.settings import settings
from ncen_tf.report.measured import Norm as Norm

if TYPE_CHECKING:
    from ncen_tf.attack.objectives import Objective
    from ncen_tf.targets.target import Target

Array = npt.NDArray[np.float32]
Labels = npt.NDArray[np.int32]


class Budget(NamedTuple):
    """The most that an attack spends on an image."""

    gradients: NonNegativeInt
    queries: NonNegativeInt
    """Forward passes, with those of the gradients."""


ATTACKS = {
    "FGSM": "cleverhans_attacks:FastGradient",
    "MI-FGSM": "cleverhans_attacks:MomentumIterative",
    "PGD": "cleverhans_attacks:ProjectedGradientDescent",
    "BIM": "cleverhans_attacks:BasicIterative",
    "DIM": "iterative:DiverseInput",
    "SGM": "skip_gradient:SkipGradient",
    "PGD-restarts": "iterative:RestartedPgd",
    "APGD-CE": "auto_pgd:AutoPgdCrossEntropy",
    "APGD-DLR": "auto_pgd:AutoPgdLogitRatio",
    "APGD-T": "auto_pgd:AutoPgdTargeted",
    "FAB": "adaptive_boundary:AdaptiveBoundary",
    "FAB-T": "adaptive_boundary:TargetedAdaptiveBoundary",
    "Transfer-mean-logit": "auto_pgd:MeanLogitTransfer",
    "Transfer-members": "auto_pgd:MemberTransfer",
    "MORA": "mora:Mora",
    "Square": "square:Square",
    "DeepFool": "foolbox_attacks:DeepFool",
    "CW": "foolbox_attacks:CarliniWagner",
    "ZOO": "art_attacks:Zoo",
    "AutoZOOM": "auto_zoom:AutoZoom",
    "FMN": "minimum_norm:FastMinimumNorm",
    "DDN": "minimum_norm:DecoupledDirectionNorm",
    "sigma-zero": "minimum_norm:SigmaZero",
    "Boundary": "art_attacks:Boundary",
    "HopSkipJump": "art_attacks:HopSkipJump",
}
"""Every attack by the name that suites, gates and reports use: its module and class."""


@settings
class Attack(abc.ABC):
    """Settings of an attack; calling it attacks a batch.

    Raises:
        InputError: A setting is out of range.
    """

    name: ClassVar[str]
    gradient_free: ClassVar[bool] = False
    """Whether it works on targets that cannot be differentiated."""
    seeded_by_image: ClassVar[bool] = False
    """Whether random numbers depend on the seed and the image alone, and not on its batch."""
    norms: ClassVar[tuple[Norm, ...]] = ("Linf",)
    """The norms that the attack knows."""
    least_classes: ClassVar[int] = 2
    """Number of classes from which on its losses are defined."""
    least_members: ClassVar[int] = 1
    """2 if it goes through the members of an ensemble."""
    eps: float = Field(gt=0, description="Perturbation bound in the norm, for images in [0, 1]")
    norm: Norm = Field(default="Linf", description="One of the attack's norms; L0 counts changed values")

    def __post_init__(self) -> None:
        if self.norm not in self.norms:
            raise InputError(f"{self.name}: `norm` must be {' or '.join(self.norms)}, got {self.norm}.")
        if self.norm == "Linf" and self.eps > 1:
            raise InputError(
                f"{self.name}: `eps` must be at most 1 in Linf, got {self.eps:g}: images are in [0, 1], so "
                f"write {self.eps:g}/255 = {self.eps / 255:.4g} for {self.eps:g} steps of 8-bit pixels."
            )

    @abc.abstractmethod
    def __call__(self, objective: Objective, images: Array, labels: Labels, seed: int) -> Array:
        """Make adversarial images of a batch.

        Args:
            objective: The target, and what is maximised.
            images: float32 [N, H, W, C] in [0, 1].
            labels: int32 [N], the true classes.
            seed: Of everything random, in [0, 2^31).

        Returns:
            float32 [N, H, W, C] in [0, 1], each image within ``eps`` of its original.
        """

    def budget(self, classes: int, members: int) -> Budget | None:
        """Return the most passes for an image of a target of so many classes and members, if known."""
        return None

    def suits(self, classes: int, members: int) -> bool:
        """Return whether a target of so many classes and members has what the attack needs."""
        return classes >= self.least_classes and members >= self.least_members

    def check_target(self, target: Target) -> None:
        """Refuse a target that lacks what the attack needs.

        Raises:
            InputError: It has too few classes, or one member where the attack goes through members.
        """
        if target.classes < self.least_classes:
            raise InputError(
                f"{self.name} needs at least {self.least_classes} classes; {target.description} has "
                f"{target.classes}: leave the attack out."
            )
        if target.members < self.least_members:
            raise InputError(
                f"{self.name} attacks an ensemble through its members; {target.description} is a single "
                "classifier: leave the attack out."
            )

    @property
    def threat_model(self) -> tuple[Norm, float]:
        """Norm and eps: what attacks must share for their outcomes to be compared."""
        return self.norm, self.eps

    @property
    def label(self) -> str:
        """Name, norm and eps in one string, such as ``PGD Linf 0.1``."""
        return f"{self.name} {self.norm} {self.eps:g}"

    def settings(self) -> dict[str, Any]:
        """Return name, norm and every setting, for a report."""
        values = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        return {"attack": self.name, "norm": self.norm} | values


@settings
class MinimalPerturbation(Attack):
    """Base of attacks that look for the nearest adversarial image: it counts if it is within eps."""

    norms: ClassVar[tuple[Norm, ...]] = ("L2",)
    norm: Norm = "L2"

    def within_eps(self, images: Array, adversarials: Array) -> Array:
        """Return the adversarial images within eps of their originals; the others are the originals."""
        near = sizes_of(adversarials - images, self.norm) <= self.eps  # False for a NaN
        return np.where(near[:, np.newaxis, np.newaxis, np.newaxis], adversarials, images)


def sizes_of(change: npt.NDArray[np.floating], norm: Norm) -> npt.NDArray[Any]:
    """Compute the size of each image's change: [N, H, W, C] -> [N]. L0 counts values that are not 0."""
    order = {"Linf": np.inf, "L2": 2, "L1": 1, "L0": 0}[norm]
    return np.asarray(np.linalg.norm(change.reshape(len(change), -1), ord=order, axis=1))


def find_attack(name: str) -> type[Attack]:
    """Import the class of an attack.

    Raises:
        InputError: The name is unknown, or the attack needs an optional package that is not installed.
    """
    if name not in ATTACKS:
        raise InputError(f"`name` must be one of {', '.join(ATTACKS)}, got {name!r}.")
    module, class_name = ATTACKS[name].split(":")
    try:
        found: type[Attack] = getattr(importlib.import_module(f"ncen_tf.attack.{module}"), class_name)
    except ImportError as error:
        extra = {"foolbox_attacks": "ncen-tf[foolbox]", "art_attacks": "ncen-tf[art]"}.get(module, "ncen-tf")
        raise InputError(f"{name} needs a package that is missing ({error}): pip install {extra}.") from error
    return found
