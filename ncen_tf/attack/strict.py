"""The attacks of the suite ``strict``."""

from ncen_tf.attack.attack import Attack, Norm
from ncen_tf.attack.auto_pgd_attacks import AutoPgdCrossEntropy, AutoPgdLogitRatio, AutoPgdTargeted
from ncen_tf.attack.momentum_iterative import MomentumIterative
from ncen_tf.attack.restarted_pgd import RestartedPgd
from ncen_tf.attack.square import Square
from ncen_tf.attack.surrogate_transfer import MeanLogitTransfer, MemberTransfer


def strict_attacks(eps: float, norm: Norm) -> tuple[Attack, ...]:
    """Attacks of one ball, from the cheapest to the most expensive for an example that withstands them.

    Steps and budgets are those of the sources: Dong et al. (2018) for MI-FGSM, 10 steps of eps / 10 with
    decay 1; Croce & Hein (2020) for Auto-PGD, 100 steps and 9 target classes; Wong et al. (2020) for PGD,
    50 steps of eps / 4 and 10 restarts; AutoAttack (Croce & Hein, 2020) for Square, 5,000 queries, over which
    the sizes of its patches are scheduled as Andriushchenko et al. (2020) do.

    Args:
        eps: radius, for images in [0, 1].
        norm: of the ball.
    """
    return (
        MomentumIterative(eps=eps, norm=norm, steps=10, step_size=eps / 10, decay=1.0),
        AutoPgdCrossEntropy(eps=eps, norm=norm),
        AutoPgdLogitRatio(eps=eps, norm=norm),
        MeanLogitTransfer(eps=eps, norm=norm),
        MemberTransfer(eps=eps, norm=norm),
        RestartedPgd(eps=eps, norm=norm, step_size=eps / 4),
        AutoPgdTargeted(eps=eps, norm=norm),
        Square(eps=eps, norm=norm),
    )
