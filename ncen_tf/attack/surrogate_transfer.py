"""Auto-PGD on stand-ins for the ensemble; every image is shown to the ensemble itself."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from typing import TYPE_CHECKING, ClassVar

from ncen_tf.attack.auto_pgd import AutoPgd

if TYPE_CHECKING:
    from ncen_tf.attack.standing import Loss, Standing


@dataclasses.dataclass(frozen=True, kw_only=True)
class MeanLogitTransfer(AutoPgd):
    """APGD-CE on the classifier whose logits are the mean of the members' logits.

    Where one member's certainty hides what the others would give away, the mean of logits still has a
    slope. Does nothing to a single classifier, which would be its own stand-in.
    """

    name: ClassVar[str] = "Transfer-mean-logit"

    def losses(self, standing: Standing) -> Iterable[Loss]:
        import tensorflow as tf

        from ncen_tf.attack.losses import log_odds

        if standing.objective.target.members > 1:
            yield lambda logits, rows: log_odds(tf.reduce_mean(logits, axis=1), standing.labels[rows])


@dataclasses.dataclass(frozen=True, kw_only=True)
class MemberTransfer(AutoPgd):
    """APGD-CE on one member after the other; ``steps`` and ``restarts`` are for each member.

    Does nothing to a single classifier.
    """

    name: ClassVar[str] = "Transfer-members"

    def losses(self, standing: Standing) -> Iterable[Loss]:
        from ncen_tf.attack.losses import log_odds

        def of(member: int) -> Loss:
            return lambda logits, rows: log_odds(logits[:, member], standing.labels[rows])

        members = standing.objective.target.members
        return (of(member) for member in range(members) if members > 1)
