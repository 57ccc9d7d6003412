"""What all attacks have in common."""

from __future__ import annotations

import abc
import dataclasses
import math
from typing import TYPE_CHECKING, Any, ClassVar, Literal, get_args

from ncen_tf.base.errors import InputError

if TYPE_CHECKING:  # suites are read without TensorFlow
    import tensorflow as tf

    from ncen_tf.attack.objectives import Objective

Norm = Literal["Linf", "L2"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Attack(abc.ABC):
    """Settings of an attack; calling it attacks a batch.

    Args:
        eps: radius of the ball around each image, in the attack's norm; images are in [0, 1].

    Raises:
        InputError: a setting that is not a finite number above zero, or an unknown norm.
    """

    name: ClassVar[str]
    gradient_free: ClassVar[bool] = False
    """Whether it works on targets that cannot be differentiated."""
    norm: Norm = dataclasses.field(init=False, default="Linf")
    """Attacks that know both norms make it a setting."""
    eps: float

    def __post_init__(self) -> None:
        if self.norm not in get_args(Norm):
            raise InputError(f"{self.name}: norm is {' or '.join(get_args(Norm))}; got {self.norm!r}.")
        for field, value in dataclasses.asdict(self).items():
            if field != "norm" and not (math.isfinite(value) and value > 0):
                raise InputError(f"{self.name}: {field} is a finite number above 0; got {value}.")

    @abc.abstractmethod
    def __call__(self, objective: Objective, images: tf.Tensor, labels: tf.Tensor, seed: int) -> tf.Tensor:
        """Adversarial images for a batch.

        Args:
            objective: the target, and what is maximised.
            images: float32 [N, H, W, C] in [0, 1].
            labels: int32 [N], the true classes.
            seed: of everything random, in [0, 2^31).

        Returns:
            float32 [N, H, W, C] in [0, 1], each image within ``eps`` of its original.
        """

    @property
    def ball(self) -> tuple[Norm, float]:
        """Norm and radius: what attacks must share for their outcomes to be compared."""
        return self.norm, self.eps

    @property
    def label(self) -> str:
        """Name and radius, for people."""
        return f"{self.name} {self.norm} {self.eps:g}"

    def settings(self) -> dict[str, Any]:
        """Name, norm and every setting, for a report."""
        return {"attack": self.name, "norm": self.norm, **dataclasses.asdict(self)}
