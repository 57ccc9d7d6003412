"""Every attack, by the name that suites, gates and reports use."""

from ncen_tf.attacks.art_attacks import Boundary, HopSkipJump, Zoo
from ncen_tf.attacks.attack import Attack
from ncen_tf.attacks.auto_pgd_attacks import AutoPgdCrossEntropy, AutoPgdLogitRatio, AutoPgdTargeted
from ncen_tf.attacks.basic_iterative import BasicIterative
from ncen_tf.attacks.diverse_input import DiverseInput
from ncen_tf.attacks.fast_gradient import FastGradient
from ncen_tf.attacks.foolbox_attacks import CarliniWagner, DeepFool
from ncen_tf.attacks.momentum_iterative import MomentumIterative
from ncen_tf.attacks.projected_gradient_descent import ProjectedGradientDescent
from ncen_tf.attacks.restarted_pgd import RestartedPgd
from ncen_tf.attacks.skip_gradient import SkipGradient
from ncen_tf.attacks.square import Square
from ncen_tf.attacks.surrogate_transfer import MeanLogitTransfer, MemberTransfer

ATTACKS: dict[str, type[Attack]] = {
    attack.name: attack
    for attack in (
        FastGradient,
        MomentumIterative,
        ProjectedGradientDescent,
        BasicIterative,
        DiverseInput,
        SkipGradient,
        RestartedPgd,
        AutoPgdCrossEntropy,
        AutoPgdLogitRatio,
        AutoPgdTargeted,
        MeanLogitTransfer,
        MemberTransfer,
        Square,
        DeepFool,
        CarliniWagner,
        Zoo,
        Boundary,
        HopSkipJump,
    )
}
