"""What the trainer asks of a regularizer."""

import abc
import dataclasses
import math
from typing import Any, NamedTuple, Self

import tensorflow as tf

from ncen_tf.base.errors import InputError


class Penalty(NamedTuple):
    """A penalty for each example, and the named terms worth watching."""

    value: tf.Tensor
    """[N], weighted, ready to be added to the cross-entropy."""
    terms: dict[str, tf.Tensor]
    """name -> [N], unweighted; the names are the regularizer's ``term_names``."""


@dataclasses.dataclass(frozen=True)
class Regularizer(abc.ABC):
    """A frozen dataclass of coefficients, saved and restored with a Keras model.

    Raises:
        InputError: a coefficient that is not finite.
    """

    def __post_init__(self) -> None:
        for name, value in dataclasses.asdict(self).items():
            if isinstance(value, float) and not math.isfinite(value):
                raise InputError(f"{type(self).__name__}: {name} is finite; got {value}.")

    @property
    @abc.abstractmethod
    def term_names(self) -> tuple[str, ...]:
        """Keys of :attr:`Penalty.terms`."""

    def get_config(self) -> dict[str, Any]:
        return dataclasses.asdict(self)

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> Self:
        return cls(**config)


class GradientRegularizer(Regularizer):
    """A penalty on members' input gradients: the trainer differentiates twice."""

    @abc.abstractmethod
    def __call__(self, gradients: tf.Tensor) -> Penalty:
        """Penalty of per-member input gradients [N, k, D] (D = H*W*C, flattened)."""


class PredictionRegularizer(Regularizer):
    """A penalty on what members predict: one differentiation is enough."""

    @abc.abstractmethod
    def __call__(self, logits: tf.Tensor, labels: tf.Tensor) -> Penalty:
        """Penalty of members' logits [N, k, classes] for the true classes, integer [N]."""
