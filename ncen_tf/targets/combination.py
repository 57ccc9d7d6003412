"""Several classifiers that answer together, as one target."""

import hashlib
from collections.abc import Callable, Sequence
from typing import Literal

import numpy as np

from ncen_tf.base.errors import InputError
from ncen_tf.targets.interface import Signature
from ncen_tf.targets.target import Array, Target, no_gradient

Combine = Literal["softmax", "logits"]


class CombinedTarget(Target):
    """An ensemble put together from targets, as it is deployed.

    With ``softmax`` it predicts the mean of the targets' probabilities, and each of them is a member. With
    ``logits`` it predicts by the mean of their logits: one classifier with one member.

    Args:
        targets: At least two, with the same classes and images.
        combine: What is averaged: ``softmax`` or ``logits``.

    Raises:
        InputError: The targets do not fit each other.
    """

    def __init__(self, targets: Sequence[Target], combine: Combine = "softmax") -> None:
        if len(targets) < 2:
            raise InputError("An ensemble needs at least two models.")
        first = targets[0]
        for target in targets[1:]:
            for name, mine, others in (
                ("classes", first.classes, target.classes),
                ("images of shape", first.image_shape, target.image_shape),
            ):
                if mine != others:
                    raise InputError(
                        f"{first.description} and {target.description} do not fit each other: "
                        f"{name} {mine} and {others}."
                    )
        if len({target.members for target in targets}) > 1 or (combine == "logits" and first.members > 1):
            raise InputError(
                "The models are ensembles themselves: they can only be combined by softmax, and with the "
                "same number of members each."
            )
        self.preprocessing, self.class_names = first.preprocessing, first.class_names
        self._targets, self._combine = tuple(targets), combine
        self.image_shape, self.classes = first.image_shape, first.classes
        self.members = 1 if combine == "logits" else sum(target.members for target in targets)
        self.gives_logits = all(target.gives_logits for target in targets)
        self.has_gradient = all(target.has_gradient for target in targets)
        self.batch_statistics = any(target.batch_statistics for target in targets)
        self.providers = tuple(dict.fromkeys(name for target in targets for name in target.providers))
        self.sha256 = hashlib.sha256("".join(target.sha256 for target in targets).encode()).hexdigest()
        self.description = f"mean {combine} of {'; '.join(target.description for target in targets)}"

    @property
    def signatures(self) -> tuple[Signature, ...]:
        return tuple(signature for target in self._targets for signature in target.signatures)

    @property
    def whole_pixels(self) -> bool:
        return any(target.whole_pixels for target in self._targets)

    def logits(self, images: Array) -> Array:
        return self._joined([target.logits(images) for target in self._targets])

    def linearize(self, images: Array) -> tuple[Array, Callable[[Array], Array]]:
        if not self.has_gradient:
            raise no_gradient(self.description)
        parts = [target.linearize(images) for target in self._targets]

        def pull_back(cotangent: Array) -> Array:
            if self._combine == "logits":
                cotangents = [cotangent / np.float32(len(parts))] * len(parts)
            else:
                cotangents = np.split(cotangent, len(parts), axis=1)
            gradients = [part[1](each) for part, each in zip(parts, cotangents, strict=True)]
            return np.sum(gradients, axis=0, dtype=np.float32)

        return self._joined([logits for logits, _ in parts]), pull_back

    def split(self) -> Sequence[Target]:
        return [self] if self.members == 1 else [part for target in self._targets for part in target.split()]

    def _joined(self, logits: Sequence[Array]) -> Array:
        if self._combine == "logits":
            return np.mean(logits, axis=0, dtype=np.float32)
        return np.concatenate(logits, axis=1)
