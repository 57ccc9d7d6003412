"""Expectation over transformation, for targets that answer differently each time."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from ncen_tf.attack.attack import Array
from ncen_tf.attack.losses import log_mean_probabilities, through_log_mean_probabilities
from ncen_tf.base.errors import InputError
from ncen_tf.targets.interface import Signature
from ncen_tf.targets.target import Target


class MeanTarget(Target):
    """A target whose answer is the mean of several calls (Athalye et al., 2018, arXiv:1707.07397).

    Each member's scores are the logarithms of its probabilities, averaged over the calls. Gradients are those
    of this mean, of the draws of the same calls. Every call counts as a pass.

    Args:
        target: What is called.
        calls: Number of calls for an answer, at least 2.

    Raises:
        InputError: ``calls`` is below 2.
    """

    gives_logits = False

    def __init__(self, target: Target, calls: int) -> None:
        if calls < 2:
            raise InputError(f"A mean needs at least 2 calls, got {calls}.")
        self._target, self.calls = target, calls
        self.description = f"mean of {calls} calls of {target.description}"
        self.sha256, self.providers, self.recorded = target.sha256, target.providers, target.recorded
        self.class_names = target.class_names
        self.image_shape, self.classes, self.members = target.image_shape, target.classes, target.members
        self.has_gradient, self.batch_statistics = target.has_gradient, target.batch_statistics
        self.preprocessing = target.preprocessing

    @property
    def signatures(self) -> tuple[Signature, ...]:
        return self._target.signatures

    def logits(self, images: Array) -> Array:
        return self._mean([self._target.logits(images) for _ in range(self.calls)])

    def linearize(self, images: Array) -> tuple[Array, Callable[[Array], Array]]:
        answers, pull_backs = zip(*(self._target.linearize(images) for _ in range(self.calls)), strict=True)

        def pull_back(cotangent: Array) -> Array:
            by_member = np.stack(answers, axis=2).reshape(-1, self.calls, self.classes).astype(np.float64)
            upstream = cotangent.reshape(-1, self.classes).astype(np.float64)
            slopes = through_log_mean_probabilities(by_member, upstream)
            by_call = slopes.reshape(*cotangent.shape[:2], self.calls, self.classes).astype(np.float32)
            return np.sum([pull(by_call[:, :, call]) for call, pull in enumerate(pull_backs)], axis=0)

        return self._mean(list(answers)), pull_back

    def _mean(self, answers: list[Array]) -> Array:
        """Average calls: each [N, members, classes] -> log-probabilities of the same shape."""
        by_member = np.stack(answers, axis=2).reshape(-1, self.calls, self.classes)
        return log_mean_probabilities(by_member).reshape(answers[0].shape).astype(np.float32)
