"""Auto-PGD on the ensemble's own prediction: cross-entropy, DLR, targeted DLR."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from typing import TYPE_CHECKING, ClassVar

import numpy as np
import numpy.typing as npt

from ncen_tf.attack.auto_pgd import AutoPgd

if TYPE_CHECKING:
    from ncen_tf.attack.standing import Loss, Standing

Labels = npt.NDArray[np.int32]


@dataclasses.dataclass(frozen=True, kw_only=True)
class AutoPgdCrossEntropy(AutoPgd):
    """APGD-CE: on the ensemble's cross-entropy, by way of its log-odds, whatever the objective."""

    name: ClassVar[str] = "APGD-CE"

    def losses(self, standing: Standing) -> Iterable[Loss]:
        from ncen_tf.attack.losses import ensemble_log_odds

        yield lambda logits, rows: ensemble_log_odds(logits, standing.labels[rows])


@dataclasses.dataclass(frozen=True, kw_only=True)
class AutoPgdLogitRatio(AutoPgd):
    """APGD-DLR: on the difference of logits ratio of the ensemble's log-probabilities."""

    name: ClassVar[str] = "APGD-DLR"
    least_classes: ClassVar[int] = 3

    def losses(self, standing: Standing) -> Iterable[Loss]:
        from ncen_tf.attack.losses import logit_ratio
        from ncen_tf.ensembles.penalties import log_mean_probabilities

        yield lambda logits, rows: logit_ratio(log_mean_probabilities(logits), standing.labels[rows])


@dataclasses.dataclass(frozen=True, kw_only=True)
class AutoPgdTargeted(AutoPgd):
    """APGD-T: on the targeted DLR of one wrong class after the other, the likeliest on the clean image first.

    Args:
        targets: wrong classes that are tried, or all if there are fewer.
    """

    name: ClassVar[str] = "APGD-T"
    least_classes: ClassVar[int] = 4
    targets: int = 9

    def losses(self, standing: Standing) -> Iterable[Loss]:
        from ncen_tf.attack.losses import targeted_logit_ratio
        from ncen_tf.ensembles.penalties import log_mean_probabilities

        def towards(targets: Labels) -> Loss:
            return lambda logits, rows: targeted_logit_ratio(
                log_mean_probabilities(logits), standing.labels[rows], targets[rows]
            )

        scores = np.array(standing.objective.answer(standing.clean))
        for classes in likeliest_wrong_classes(scores, standing.labels)[:, : self.targets].T:
            yield towards(classes)


def likeliest_wrong_classes(scores: npt.NDArray[np.float32], labels: Labels) -> Labels:
    """All classes but the true one, by falling score: scores [N, C], labels [N] -> [N, C - 1]."""
    ranked = np.argsort(-scores, axis=1, kind="stable").astype(np.int32)
    return ranked[ranked != labels[:, np.newaxis]].reshape(len(labels), -1)
