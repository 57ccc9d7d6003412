"""A target as attacks use it: the mean of several calls, a loss with its gradient, every use counted."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, get_args

import numpy as np
import numpy.typing as npt

from ncen_tf.attack.attack import Array, Labels
from ncen_tf.attack.losses import (
    CROSS_ENTROPIES,
    Array64,
    LossAndGradient,
    ObjectiveName,
    log_mean_probabilities,
    through_log_mean_probabilities,
)
from ncen_tf.base.errors import InputError
from ncen_tf.targets.interface import Signature
from ncen_tf.targets.target import Target

Rows = npt.NDArray[np.intp]
Mask = npt.NDArray[np.bool_]
Loss = Callable[[Array64, Rows], LossAndGradient]
"""Logits [n, k, C], and which n examples of the batch they are of -> losses [n], gradients [n, k, C]."""


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


class Objective:
    """A target and the cross-entropy that gradient attacks maximise on it.

    ``member_average`` is the paper's, the mean of the members' losses; ``ensemble`` is the loss of the
    ensemble's own prediction; ``stacked_softmax`` is what the authors' released code attacks.

    Args:
        target: What is attacked.
        name: ``member_average``, ``ensemble`` or ``stacked_softmax``.

    Attributes:
        queries: Forward passes so far, one for each image.
        gradients: Backward passes so far, one for each image.

    Raises:
        InputError: The name is unknown.
    """

    def __init__(self, target: Target, name: ObjectiveName) -> None:
        if name not in get_args(ObjectiveName):
            known = ", ".join(get_args(ObjectiveName))
            raise InputError(f"`objective` must be one of {known}, got {name!r}.")
        self.target, self.name = target, name
        self.queries = self.gradients = 0
        self.compiled: Any = None
        """What attacks that are written in TensorFlow compile for this objective."""
        self.decayed_targets: dict[float, Target] = {}
        """What the skip gradient method compiles for this objective, by gamma."""

    def logits(self, images: Array) -> Array:
        """Compute the members' logits: float32 [N, H, W, C] in [0, 1] -> float32 [N, k, classes]."""
        self.queries += len(images) * self.target.calls
        return self.target.logits(images)

    def log_probabilities(self, images: Array) -> Array:
        """Compute the ensemble's log-probabilities: float32 [N, classes]."""
        return log_mean_probabilities(self.logits(images)).astype(np.float32)

    def linearize(self, images: Array) -> tuple[Array, Callable[[Array], Array]]:
        """Compute the logits and a function that differentiates them; see :meth:`Target.linearize`."""
        logits, pull_back = self.target.linearize(images)
        self.queries += len(images) * self.target.calls

        def counted(cotangent: Array) -> Array:
            self.gradients += len(cotangent) * self.target.calls
            return pull_back(cotangent)

        return logits, counted

    def loss_and_gradient(self, images: Array, labels: Labels) -> tuple[Array64, Array]:
        """Compute the objective's cross-entropy [N] and its gradient [N, H, W, C]."""
        logits, pull_back = self.linearize(images)
        losses, slopes = CROSS_ENTROPIES[self.name](logits.astype(np.float64), labels)
        return losses, pull_back(slopes.astype(np.float32))

    def ascend(
        self, images: Array, loss: Callable[[Array64], LossAndGradient]
    ) -> tuple[Array, Array64, Array]:
        """Compute logits, losses and directions in which the losses rise.

        Each gradient is scaled so that it enters the target with a largest component of 1: the target
        computes in float32, where gradients of examples that it is sure of would vanish.

        Args:
            images: float32 [N, H, W, C] in [0, 1].
            loss: Logits [N, k, classes] in float64 -> losses [N] and gradients of the logits' shape.

        Returns:
            Logits, losses, and gradients [N, H, W, C], each up to a positive factor.

        Raises:
            InputError: A logit or a gradient is NaN.
        """
        logits, pull_back = self.linearize(images)
        if np.isnan(logits).any():
            raise self._undefined("answer")
        losses, slopes = loss(logits.astype(np.float64))
        largest = np.abs(slopes).max(axis=(1, 2), keepdims=True)
        scaled = np.divide(slopes, largest, out=np.zeros_like(slopes), where=largest != 0)
        gradients = pull_back(scaled.astype(np.float32))
        if np.isnan(gradients).any():  # infinity still has a sign
            raise self._undefined("gradient")
        return logits, losses, gradients

    def predict(self, logits: Array) -> npt.NDArray[np.intp]:
        """Return the classes [N] that the ensemble predicts, of the members' logits.

        Raises:
            InputError: A logit is NaN.
        """
        if np.isnan(logits).any():  # the largest of which would be class 0
            raise self._undefined("answer")
        return log_mean_probabilities(logits).argmax(axis=1)

    def count(self, queries: int, gradients: int) -> None:
        """Add passes that were made without this object's methods."""
        self.queries += queries
        self.gradients += gradients

    def _undefined(self, what: str) -> InputError:
        return InputError(
            f"{self.target.description} gives NaN as its {what} at an image within the perturbation bound: "
            "nothing can be measured on it."
        )


class RemainingExamples:
    """The examples of a batch that are still classified correctly.

    One adversarial image is enough: an example is dropped at the first one that the ensemble gets wrong.

    Args:
        objective: Whose target is attacked; which loss it stands for does not matter.
        images: float32 [N, H, W, C] in [0, 1].
        labels: int [N].

    Attributes:
        adversarials: [N, H, W, C]; of each dropped example the image that broke it, of the others what
            :meth:`keep` was given.
        rows: int [n], the examples that remain.
    """

    def __init__(self, objective: Objective, images: Array, labels: Labels) -> None:
        self.objective, self.clean, self.labels = objective, images, labels
        self.adversarials = images.copy()
        self.rows: Rows = np.arange(len(images))

    def query(self, x: Array) -> Mask:
        """Show images of the remaining examples to the ensemble and drop those that it gets wrong.

        Args:
            x: float32 [n, H, W, C].

        Returns:
            bool [n], which of them remain.

        Raises:
            InputError: A logit is NaN.
        """
        return self._drop_broken(x, self.objective.logits(x)) if len(x) else np.ones(0, bool)

    def ascend(self, x: Array, loss: Loss) -> tuple[Array64, Array, Mask]:
        """Do the same, and compute losses and gradients by one forward and one backward pass.

        Returns:
            Losses [m] and directions of gradients [m, H, W, C] of the m examples that remain, and which of
            the n these are.

        Raises:
            InputError: A logit or a gradient is NaN.
        """
        rows = self.rows
        logits, losses, gradients = self.objective.ascend(x, lambda logits: loss(logits, rows))
        remain = self._drop_broken(x, logits)
        return losses[remain], gradients[remain], remain

    def keep(self, x: Array) -> None:
        """Keep images that did not break the remaining examples: float32 [n, H, W, C]."""
        self.adversarials[self.rows] = x

    def _drop_broken(self, x: Array, logits: Array) -> Mask:
        correct = self.objective.predict(logits) == self.labels[self.rows]
        self.adversarials[self.rows[~correct]] = x[~correct]
        self.rows = self.rows[correct]
        return correct
