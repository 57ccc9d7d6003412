"""Robust accuracy at every perturbation bound, from the minimal distance of each image."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from tabulate import tabulate

from ncen_tf.base.environment import describe_environment
from ncen_tf.base.settings import Settings
from ncen_tf.report import table
from ncen_tf.report.measured import Norm, Proportion, TargetInfo, proportion

Distances = npt.NDArray[np.floating]
_MOST_POINTS = 200


class CurvePoint(Settings):
    """Robust accuracy at one perturbation bound."""

    eps: float
    robust_accuracy: Proportion


class CurveAttack(Settings):
    """What one attack contributed."""

    attack: str
    settings: dict[str, Any]
    attacked: int
    """Images that it was run on: those that are classified correctly when clean."""
    found: int
    """Images that it found an adversarial image for."""
    nearest: int
    """Images for which no other attack found a nearer one."""
    median_distance: float | None
    """Over the images it was run on; ``None`` where it failed on half of them."""
    queries: int
    gradients: int
    seconds: float


class RobustnessCurve(Settings):
    """Robust accuracy against the perturbation bound, in one norm.

    Examples:
        >>> import ncen_tf
        >>> data = ncen_tf.load_data("fashion_mnist_sample").test
        >>> curve = ncen_tf.robustness_curve("exports/reference", data, norm="L2", examples=10, steps=20)
        >>> curve.robust_accuracy(0).value >= curve.robust_accuracy(0.5).value
        True
        >>> ncen_tf.RobustnessCurve.from_json(curve.model_dump_json(), "curve") == curve
        True
    """

    format: Literal[1] = 1
    norm: Norm
    dataset: str
    examples: int
    seed: int
    target: TargetInfo
    distances: tuple[float | None, ...]
    """For each image, the size of the smallest change that was found to break it: 0 where the clean image is
    classified wrongly, ``None`` where no adversarial image was found."""
    median_distance: float | None
    """Over the images that are right when clean; ``None`` where half of them were not broken."""
    points: tuple[CurvePoint, ...]
    """The curve at 0 and at the distances of the images, at most 200 of them."""
    attacks: tuple[CurveAttack, ...]
    environment: dict[str, Any]

    def robust_accuracy(self, eps: float) -> Proportion:
        """Return the share of all images that no change of at most ``eps`` was found to break."""
        return _share_beyond(np.array([math.inf if d is None else d for d in self.distances]), eps)

    def __str__(self) -> str:
        chosen = [self.points[round(i)] for i in np.linspace(0, len(self.points) - 1, 11)]
        rows = [
            (f"{p.eps:.4g}", table.percent(p.robust_accuracy), table.interval(p.robust_accuracy))
            for p in dict.fromkeys(chosen)
        ]
        median = "none" if self.median_distance is None else f"{self.median_distance:.4g}"
        return "\n".join(
            [
                f"curve in {self.norm}, {self.examples} examples of {self.dataset}, seed {self.seed}",
                f"target {self.target.description}"
                + (f", sha256 {self.target.sha256[:12]}" if self.target.sha256 else ""),
                f"median distance of the images that are right when clean: {median}",
                tabulate(rows, ("eps", "robust accuracy", "95 % interval"), "plain", disable_numparse=True),
            ]
        )


def build_curve(
    distances: Distances,
    attacks: Sequence[CurveAttack],
    *,
    norm: Norm,
    dataset: str,
    seed: int,
    target: TargetInfo,
) -> RobustnessCurve:
    """Build the curve of minimal distances [N]: 0 for clean errors, infinite where none is known."""
    bounds = np.unique(np.append(distances[np.isfinite(distances)], 0.0))
    if len(bounds) > _MOST_POINTS:
        bounds = bounds[np.linspace(0, len(bounds) - 1, _MOST_POINTS).round().astype(int)]
    return RobustnessCurve(
        norm=norm,
        dataset=dataset,
        examples=len(distances),
        seed=seed,
        target=target,
        distances=tuple(float(d) if np.isfinite(d) else None for d in distances),
        median_distance=finite_median(distances[distances > 0]),
        points=tuple(CurvePoint(eps=float(b), robust_accuracy=_share_beyond(distances, b)) for b in bounds),
        attacks=tuple(attacks),
        environment=describe_environment(),
    )


def finite_median(distances: Distances) -> float | None:
    """Compute the median of distances; ``None`` where it is infinite or there are none."""
    median = float(np.median(distances)) if len(distances) else math.inf
    return median if math.isfinite(median) else None


def _share_beyond(distances: Distances, eps: float) -> Proportion:
    return proportion(int((distances > eps).sum()), len(distances))
