"""DIM: MI-FGSM whose gradients are taken on randomly shrunk and shifted copies."""

from __future__ import annotations

import dataclasses
import math
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from ncen_tf.attack.attack import Attack
from ncen_tf.base.errors import InputError

if TYPE_CHECKING:
    import tensorflow

    from ncen_tf.attack.objectives import Objective


@dataclasses.dataclass(frozen=True, kw_only=True)
class DiverseInput(Attack):
    """Diverse-input MI-FGSM (Xie et al., 2019, arXiv:1803.06978), for transfer to other models.

    The original enlarges images, which a network of fixed input size cannot take: here, as is usual
    for such networks, they are shrunk and padded with zeros to their old size.

    Args:
        steps: gradient steps.
        step_size: of each step, in the Linf norm.
        decay: share of the accumulated gradient that the next step keeps.
        probability: of a changed copy at each step, in (0, 1].
        least_scale: the smallest copy's size relative to the image, in (0, 1].

    Raises:
        InputError: ``probability`` or ``least_scale`` above 1.
    """

    name: ClassVar[str] = "DIM"
    steps: int = 40
    step_size: float = 0.01
    decay: float = 1.0
    probability: float = 0.5
    least_scale: float = 0.9

    def __post_init__(self) -> None:
        super().__post_init__()
        for field in ("probability", "least_scale"):
            if getattr(self, field) > 1:
                raise InputError(f"{self.name}: {field} is at most 1; got {getattr(self, field):g}.")

    def __call__(
        self, objective: Objective, images: tensorflow.Tensor, labels: tensorflow.Tensor, seed: int
    ) -> tensorflow.Tensor:
        import tensorflow as tf

        generator = np.random.default_rng(seed)
        adversarial, momentum = images, tf.zeros_like(images)
        for _ in range(self.steps):
            with tf.GradientTape() as tape:
                tape.watch(adversarial)
                columns = objective(self.diversify(adversarial, generator))
                loss = tf.nn.sparse_softmax_cross_entropy_with_logits(labels, columns)
            gradient = tape.gradient(loss, adversarial)
            scale = tf.reduce_mean(tf.abs(gradient), axis=[1, 2, 3], keepdims=True)
            momentum = self.decay * momentum + gradient / tf.maximum(scale, 1e-12)
            moved = adversarial + self.step_size * tf.sign(momentum)
            in_ball = tf.clip_by_value(moved, images - self.eps, images + self.eps)
            adversarial = tf.clip_by_value(in_ball, 0.0, 1.0)
        return adversarial

    def diversify(self, images: tensorflow.Tensor, generator: np.random.Generator) -> tensorflow.Tensor:
        """Shrink and shift a batch, or leave it as it is: [N, H, W, C] -> [N, H, W, C]."""
        import tensorflow as tf

        if generator.random() >= self.probability:
            return images
        height, width = images.shape[1:3]
        scale = generator.uniform(self.least_scale, 1.0)
        small = math.ceil(scale * height), math.ceil(scale * width)
        top = int(generator.integers(height - small[0] + 1))
        left = int(generator.integers(width - small[1] + 1))
        shrunk = tf.image.resize(images, small, method="nearest")
        return tf.image.pad_to_bounding_box(shrunk, top, left, height, width)
