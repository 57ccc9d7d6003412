"""PGD with random restarts."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, ClassVar

import numpy as np
import numpy.typing as npt

from ncen_tf.attack.attack import Attack, Norm
from ncen_tf.attack.balls import direction, project, random_start

if TYPE_CHECKING:
    import tensorflow as tf

    from ncen_tf.attack.objectives import Objective

Array = npt.NDArray[np.float32]


@dataclasses.dataclass(frozen=True, kw_only=True)
class RestartedPgd(Attack):
    """PGD (Madry et al., 2018, arXiv:1706.06083) on the ensemble's cross-entropy, begun anew several times.

    The defaults are PGD-50-10 of Wong et al. (2020, arXiv:2001.03994), who step eps / 4. An example is
    dropped at the first image that breaks it. It attacks the ensemble's log-odds, whatever the objective.

    Args:
        norm: ``Linf`` or ``L2``.
        step_size: of each step, in that norm.
        steps: gradient steps of a run.
        restarts: runs, each from a new random start.
    """

    name: ClassVar[str] = "PGD-restarts"
    norm: Norm = "Linf"
    step_size: float
    steps: int = 50
    restarts: int = 10

    def __call__(self, objective: Objective, images: tf.Tensor, labels: tf.Tensor, seed: int) -> Array:
        from ncen_tf.attack.losses import ensemble_log_odds
        from ncen_tf.attack.standing import Rows, Standing

        generator = np.random.default_rng(seed)
        standing = Standing(objective, images, labels)

        def loss(logits: tf.Tensor, rows: Rows) -> tf.Tensor:
            return ensemble_log_odds(logits, standing.labels[rows])

        for _ in range(self.restarts):
            clean = standing.clean[standing.rows]
            x = random_start(generator, clean, self.eps, self.norm)
            for _ in range(self.steps):
                if not len(standing.rows):
                    return standing.adversarials
                _, gradients, kept = standing.differentiate(x, loss)
                x, clean = x[kept], clean[kept]
                x = project(x + self.step_size * direction(gradients, self.norm), clean, self.eps, self.norm)
            standing.leave(x[standing.query(x)])
        return standing.adversarials
