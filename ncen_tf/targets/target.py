"""What attacks and reports need to know of a target."""

from typing import Protocol

import tensorflow as tf


class Target(Protocol):
    """A classifier, single or ensemble, that attacks can query and differentiate.

    One that is faster when no gradient will be asked for has a method ``answer`` too, which does what
    ``member_logits`` does and need not be differentiable.
    """

    @property
    def description(self) -> str:
        """What it is and what runs it: ``onnx exports/x/ensemble.onnx, CPUExecutionProvider``."""

    @property
    def sha256(self) -> str:
        """Hex digest of the file, or of the weights, behind it: tells a target from its next version."""

    @property
    def providers(self) -> tuple[str, ...]:
        """onnxruntime's execution providers, as the session reports them; empty for TensorFlow."""

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """(H, W, C) of an image."""

    @property
    def classes(self) -> int:
        """Number of classes."""

    @property
    def members(self) -> int:
        """Members of the ensemble; 1 for a single classifier."""

    @property
    def gives_logits(self) -> bool:
        """False where only probabilities are known: member logits are then log-probabilities."""

    def member_logits(self, images: tf.Tensor) -> tf.Tensor:
        """Logits of each member: float32 [N, H, W, C] in [0, 1] -> float32 [N, members, classes].

        Differentiable with ``tf.GradientTape`` and usable inside ``tf.function``.
        """
