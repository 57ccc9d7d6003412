"""Accuracies of a classifier under attack, with their uncertainty."""

import dataclasses
import math
import statistics
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

Labels = npt.NDArray[np.int32]

CONFIDENCE = 0.95


@dataclasses.dataclass(frozen=True)
class Proportion:
    """``count`` of ``total`` examples."""

    count: int
    total: int

    @property
    def value(self) -> float | None:
        """count / total in [0, 1]; ``None`` of nothing."""
        return self.count / self.total if self.total else None

    @property
    def interval(self) -> tuple[float, float]:
        """95 % Wilson score interval (Wilson, 1927), within [0, 1]."""
        if not self.total:
            return 0.0, 1.0
        z = statistics.NormalDist().inv_cdf((1 + CONFIDENCE) / 2)
        p, n = self.count / self.total, self.total
        half = z * math.sqrt(p * (1 - p) / n + z**2 / (4 * n**2))
        high = (p + z**2 / (2 * n) + half) / (1 + z**2 / n)
        # Both ends are roots of one quadratic; a difference would leave 1e-19 where nothing was counted.
        low = p**2 / (1 + z**2 / n) / high
        return low, min(1.0, high)


def clean_accuracy(labels: Labels, clean: Labels) -> Proportion:
    """ACE: share of clean images that are classified right. Labels and predictions: int [N]."""
    return Proportion(int((clean == labels).sum()), len(labels))


def robust_accuracy(labels: Labels, clean: Labels, adversarial: Sequence[Labels]) -> Proportion:
    """Share of all examples that are classified right clean and under every one of the attacks.

    A clean mistake counts as broken, for the clean image lies in the ball too. With several attacks this
    is the per-example worst case.

    Args:
        labels: int [N].
        clean: predictions on clean images, int [N].
        adversarial: predictions under each attack, each int [N].
    """
    right = (clean == labels) & np.all([predicted == labels for predicted in adversarial], axis=0)
    return Proportion(int(right.sum()), len(labels))


def aae(labels: Labels, clean: Labels, adversarial: Sequence[Labels]) -> Proportion:
    """Luo et al.'s accuracy on adversarial examples: robust accuracy among what is right when clean."""
    survived = robust_accuracy(labels, clean, adversarial)
    return Proportion(survived.count, clean_accuracy(labels, clean).count)


def mean_over_broken(
    labels: Labels, clean: Labels, adversarial: Labels, sizes: npt.NDArray[np.float32]
) -> float | None:
    """Mean size of the changes that broke an example; ``None`` if none did. Sizes: float [N]."""
    broken = (clean == labels) & (adversarial != labels)
    return float(sizes[broken].mean()) if broken.any() else None
