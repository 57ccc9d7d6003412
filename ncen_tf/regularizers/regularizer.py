"""What the trainer asks of a regularizer."""

from typing import NamedTuple, Protocol

import tensorflow as tf


class Penalty(NamedTuple):
    """A penalty for each example, and the named terms worth watching."""

    value: tf.Tensor
    """[N], weighted, ready to be added to the cross-entropy."""
    terms: dict[str, tf.Tensor]
    """name -> [N], unweighted; the names are the regularizer's ``term_names``."""


class Regularizer(Protocol):
    """A penalty on an ensemble's input gradients."""

    @property
    def term_names(self) -> tuple[str, ...]:
        """Keys of :attr:`Penalty.terms`."""

    def __call__(self, gradients: tf.Tensor) -> Penalty:
        """Penalty of per-member input gradients [N, k, D] (D = H*W*C, flattened)."""
